"""The HTTP schema of POST /train has the fields, defaults and ranges of what is trained."""

import dataclasses

import pytest
from pydantic import TypeAdapter

from grpo import GRPOConfig
from grpo.config import BOUNDS
from grpo_platform.api.schemas.training import TrainRequest
from grpo_platform.core.request import JobRequest
from grpo_platform.core.states import JobStatus

CONFIG = {field.name: field for field in dataclasses.fields(GRPOConfig)}
OWN = {field.name: field for field in dataclasses.fields(JobRequest) if field.name != "config"}


def default_of(field):
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def test_fields_are_those_of_the_config_and_of_the_request():
    assert set(TrainRequest.model_fields) == set(CONFIG) | set(OWN)


@pytest.mark.parametrize("name", sorted(set(CONFIG) | set(OWN)))
def test_defaults_are_equal(name):
    # the seed is drawn, and the default environment's preset names its own reward
    special = {"seed": None, "reward_function_type": "optimized_cartpole"}
    expected = special.get(name, default_of(CONFIG.get(name) or OWN[name]))
    given = TrainRequest.model_fields[name].get_default(call_default_factory=True)
    assert given == (list(expected) if isinstance(expected, tuple) else expected)


@pytest.mark.parametrize("name", sorted(BOUNDS))
def test_ranges_are_equal(name):
    bound = BOUNDS[name]
    schema = TypeAdapter(TrainRequest).json_schema()["properties"][name]
    schema = schema.get("anyOf", [schema])[0]
    assert schema["maximum"] == bound.high
    assert schema["exclusiveMinimum" if bound.exclusive_low else "minimum"] == bound.low


def test_every_field_says_what_it_is():
    for name, field in TrainRequest.model_fields.items():
        assert field.description, name


def test_what_is_in_force_can_be_sent_again():
    request = JobRequest(config=GRPOConfig(seed=7, env_kwargs={"a": [1]}), model_name="m")
    again = TrainRequest.model_validate_json(request.to_json())
    assert JobRequest.from_dict(again.model_dump()) == request


def test_status_words_are_the_contracts():
    assert {status.value for status in JobStatus} == {
        "queued", "running", "completed", "failed", "stopped",
    }  # fmt: skip
