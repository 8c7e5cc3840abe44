"""A field is declared once: HTTP, the command line, MLproject and the search space follow."""

import dataclasses
import inspect
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
import yaml
from pydantic import ValidationError

from grpo import GRPOConfig
from grpo.fields import fields_of
from grpo_platform import cli
from grpo_platform.api.schemas import models
from grpo_platform.api.schemas.common import reply_of
from grpo_platform.api.schemas.experiments import TrainBody
from grpo_platform.api.schemas.sweeps import SweepBody
from grpo_platform.api.schemas.training import TrainRequest
from grpo_platform.cli import sweeps
from grpo_platform.client.fields import TrainFields
from grpo_platform.core.request import JobRequest, resolve_request
from grpo_platform.core.states import JobStatus
from grpo_platform.mlproject.entry_points import EvaluateParameters
from grpo_platform.registry import records
from grpo_platform.registry.card import ModelCard
from grpo_platform.sweeps.request import SweepRequest

ROOT = Path(__file__).resolve().parents[2]
TRAIN = TrainRequest.model_json_schema()["properties"]
TRAIN_BODY = TrainBody.model_json_schema()["properties"]
SWEEP = SweepBody.model_json_schema()["properties"]
EVALUATE = EvaluateParameters.model_json_schema()["properties"]
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"


def test_a_body_has_the_fields_of_its_records_in_their_order():
    names = [field.name for kind in (GRPOConfig, JobRequest) for field in dataclasses.fields(kind)]
    names.remove("config")
    # kept in env_kwargs, where everything about the environment stands
    assert list(TrainRequest.model_fields) == [*names, "wrappers"]
    assert list(SweepBody.model_fields) == [f.name for f in dataclasses.fields(SweepRequest)]


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (TRAIN["n_steps"], {"type": "integer", "minimum": 1, "maximum": 1_000_000, "default": 32}),
        (TRAIN["gamma"], {"type": "number", "minimum": 0, "maximum": 1, "default": 0.99}),
        (TRAIN["clip_range_high"]["anyOf"][0], {"exclusiveMinimum": 0, "maximum": 10}),
        (TRAIN["clip_range_high"]["anyOf"][1], {"type": "null"}),
        (TRAIN["baseline"], {"enum": ["group", "critic", "both", "shrinkage"]}),
        (TRAIN["net_arch"], {"type": "array", "maxItems": 8, "default": [64, 64]}),
        (TRAIN["net_arch"]["items"], {"type": "integer", "minimum": 1, "maximum": 4096}),
        (TRAIN["env_kwargs"], {"type": "object", "default": {}}),
        (TRAIN["env_name"], {"type": "string", "minLength": 1, "maxLength": 200}),
        (TRAIN["model_name"]["anyOf"][0], {"type": "string", "pattern": NAME}),
        (TRAIN["num_cpus"], {"minimum": 0.01, "maximum": 1024, "examples": [1.0, 4.0]}),
        (TRAIN["bootstrap"], {"type": "boolean", "default": False}),
        (TRAIN["reward_function_type"], {"default": "optimized_cartpole"}),
        (TRAIN["seed"], {"default": None}),
        (TRAIN["batch_size"], {"description": "Minibatch size, in transitions."}),
        (SWEEP["n_trials"], {"type": "integer", "minimum": 1, "maximum": 1000, "default": 20}),
        (SWEEP["search_space"], {"type": "object", "minProperties": 1, "maxProperties": 50}),
    ],
)
def test_each_kind_of_field_is_what_its_declaration_says(schema, expected):
    assert schema | expected == schema


@pytest.mark.parametrize("body", [TrainRequest, SweepBody])
def test_every_field_says_what_it_is(body):
    for name, field in body.model_fields.items():
        assert field.description, name


@pytest.mark.parametrize("kind", [GRPOConfig, JobRequest, SweepRequest])
def test_every_number_has_a_range(kind):
    for field in fields_of(kind).values():
        assert field.type not in (int, float) or field.bound is not None, field.name


def test_what_is_in_force_can_be_sent_again():
    request = JobRequest(config=GRPOConfig(seed=7, env_kwargs={"a": [1]}), model_name="m")
    again = TrainRequest.model_validate_json(request.to_json())
    assert resolve_request(again.model_dump(), 10**9) == request


def test_wrappers_are_kept_with_what_the_environment_is_made_of():
    given = {"env_kwargs": {"a": 1}, "wrappers": ["ClipAction"], "seed": 1}
    found = resolve_request(given, 10**9).config.env_kwargs
    assert found == {"a": 1, "wrappers": ["ClipAction"]}
    again = TrainRequest.model_validate_json(resolve_request(given, 10**9).to_json())
    assert resolve_request(again.model_dump(), 10**9) == resolve_request(given, 10**9)


def test_status_words_are_the_contracts():
    assert {status.value for status in JobStatus} == {
        "queued", "running", "completed", "failed", "stopped",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("command", "properties", "renamed"),
    [
        (
            cli.train,
            TRAIN_BODY,
            {"env": "env_name", "timesteps": "total_timesteps", "reward": "reward_function_type"},
        ),
        (
            sweeps.start,
            SWEEP,
            {"trials": "n_trials", "concurrent": "max_concurrent_trials", "model": "model_name"},
        ),
        (cli.evaluate, EVALUATE, {}),
    ],
)
def test_options_have_the_ranges_and_defaults_of_their_fields(command, properties, renamed):
    others = {"context", "space", "setting", "wait", "as_json", "sample"}
    signature = inspect.signature(command).parameters
    for name, hint in get_type_hints(command, include_extras=True).items():
        if name in others | {"return"}:
            continue
        field, (kind, option) = properties[renamed.get(name, name)], get_args(hint)
        plain = field.get("anyOf", [field])[0]
        assert signature[name].default in (None, inspect.Parameter.empty, field.get("default"))
        assert option.min in (None, plain.get("minimum")), name
        assert option.max in (None, plain.get("maximum")), name
        assert get_origin(kind) is not Literal or list(get_args(kind)) == plain["enum"], name


def test_the_command_line_names_every_field():
    (train,) = (found for found in cli.app.registered_commands if found.callback is cli.train)
    named = str(train.epilog).partition("Fields for --set: ")[2].rstrip(".")
    assert named.split(", ") == sorted(TrainFields.__annotations__) == sorted(TRAIN)


def test_parameters_of_mlflow_run_have_the_defaults_of_their_fields():
    points = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]
    for entry, properties in (("main", TRAIN), ("sweep", SWEEP), ("evaluate", EVALUATE)):
        for name, declared in points[entry]["parameters"].items():
            assert declared.get("default") == properties[name].get("default"), (entry, name)


DECLARED = '''
    momentum: Annotated[float, Bound(0.0, 1.0)] = 0.5
    """Share of the last step that the next one keeps."""
'''
FOLLOWS = """
import json, grpo.config
from grpo_platform.api.schemas.training import TrainRequest
from grpo_platform.mlproject.entry_points import request_of
from grpo_platform.sweeps.space import parse_space
from grpo_platform.tracking.records import params_of

request = request_of({"momentum": "0.25", "model_name": "m"})
space = {"momentum": {"type": "float", "low": 0.1, "high": 0.9}}
print(json.dumps({
    "module": grpo.config.__file__,
    "schema": TrainRequest.model_json_schema()["properties"]["momentum"],
    "reply": TrainRequest.model_validate(request.to_dict()).momentum,
    "param": params_of(request, "0" * 32)["momentum"],
    "space": parse_space(space)["momentum"].high,
}))
"""


def test_a_field_that_is_added_to_the_config_is_everywhere(tmp_path):
    for package in ("grpo", "platform"):
        shutil.copytree(ROOT / package, tmp_path / package)
    config = tmp_path / "grpo/config.py"
    before, after, rest = config.read_text().partition("\n    def __post_init__")
    config.write_text(f"{before}{DECLARED}{after}{rest}")
    done = subprocess.run(
        [sys.executable, "-c", FOLLOWS], cwd=tmp_path, capture_output=True, text=True,
        timeout=120, check=False, env={"PYTHONPATH": f"{tmp_path / 'platform'}:{tmp_path}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.pop("module") == str(config)
    assert found.pop("schema") == {
        "type": "number", "title": "Momentum", "minimum": 0.0, "maximum": 1.0, "default": 0.5,
        "description": "Share of the last step that the next one keeps.",
    }  # fmt: skip
    assert found == {"reply": 0.25, "param": "0.25", "space": 0.9}


def test_replies_show_records_as_they_are():
    comparison = records.Comparison(
        champion=1, episodes=100, seed=3, candidate_mean=2.0, champion_mean=1.0, difference=1.0,
        ci_low=0.5, ci_high=1.5, equal=False, ended="evidence",
    )  # fmt: skip
    decision = records.Decision(
        number=1, action="promote", version=2, rule="if_better", verdict="promoted", reason="So.",
        champion_before=1, champion_after=2, forced=False, actor="api", decided_at="now",
        comparison=comparison,
    )  # fmt: skip
    shown = reply_of(models.Decision, decision)
    assert shown.model_dump() == dataclasses.asdict(decision) | {"promoted": True}
    assert all(field.is_required() for field in models.Decision.model_fields.values())
    inside = {"card", "environment_sha256", "model_id"}
    fields = {*fields_of(records.VersionInfo), *fields_of(ModelCard)}
    assert set(models.ModelVersion.model_fields) == (fields - inside) | {"scenarios"}


@pytest.mark.parametrize("value", ["two", 1.5, -1, 2_000, None])
def test_numbers_or_a_name_are_refused_in_one_sentence_by_the_fields_own_name(value):
    with pytest.raises(ValidationError) as caught:
        TrainRequest.model_validate({"env_workers": value})
    (finding,) = caught.value.errors()
    assert finding["loc"] == ("env_workers",)
    assert "at most 1024, or 'auto'" in finding["msg"]
