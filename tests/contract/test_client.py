"""The client's types are the API's, and a type checker sees a name that does not exist."""

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import pytest

from grpo_platform.api.schemas.comparisons import ComparisonBody
from grpo_platform.api.schemas.sweeps import SweepBody
from grpo_platform.api.schemas.training import Job, TrainRequest
from grpo_platform.client import Job as ClientJob
from grpo_platform.client import StatusWord
from grpo_platform.client.fields import ComparisonFields, SweepFields, TrainFields
from grpo_platform.core.states import JobStatus
from scripts import reply_types

ROOT = Path(__file__).resolve().parents[2]


def plain(kind: Any) -> str:
    """A type without its ranges."""
    if get_origin(kind) is Annotated:
        return plain(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return " | ".join(sorted(plain(part) for part in get_args(kind)))
    if get_origin(kind) in (list, Sequence):  # the client takes more than JSON has
        return f"list[{plain(get_args(kind)[0])}]"
    return str(kind)


def test_fields_and_their_types_are_those_of_post_train():
    given = get_type_hints(TrainFields)
    assert given.keys() == TrainRequest.model_fields.keys()
    for name, field in TrainRequest.model_fields.items():
        if name not in ("env_kwargs", "policy_kwargs", "wrappers"):
            assert plain(given[name]) == plain(field.annotation), name


def test_fields_and_their_types_are_those_of_post_sweeps():
    given = get_type_hints(SweepFields)
    assert given.keys() == SweepBody.model_fields.keys() - {"search_space", "n_trials"}
    for name in given.keys() - {"config"}:
        assert plain(given[name]) == plain(SweepBody.model_fields[name].annotation), name


def test_fields_and_their_types_are_those_of_post_comparisons():
    given = get_type_hints(ComparisonFields)
    assert given.keys() == ComparisonBody.model_fields.keys() - {"references"}
    for name in given:
        assert plain(given[name]) == plain(ComparisonBody.model_fields[name].annotation), name


def test_replies_are_typed_as_the_servers_schema_says():
    assert (
        ROOT / "platform/grpo_platform/client/replies.py"
    ).read_text() == reply_types.module(), (
        "the schema is another now: python scripts/reply_types.py writes the types anew"
    )
    assert get_type_hints(ClientJob).keys() == Job.model_fields.keys()
    assert set(get_args(StatusWord)) == {status.value for status in JobStatus}


def test_every_schema_has_a_name_of_its_own():
    """Two models of one name get their modules' names, in every generated client too."""
    assert [name for name in reply_types.schema()["components"]["schemas"] if "__" in name] == []


WRONG = """
from grpo_platform.client import AsyncGRPOClient, GRPOClient
client = GRPOClient()
client.start_training(total_timesteps=64, net_arch=[8], seed=None)
client.train_model("m", "CartPole-v1", 5000, learning_rate=1e-3)
client.train_model("m", total_timesteps=64)
client.start_sweep({}, 3, config={"n_steps": 8}, sampler="grid")
client.jobs(status="completed")
client.start_training(timesteps=64)
client.train_model("m", lerning_rate=1e-3)
client.start_sweep({}, config={"n_step": 8})
client.start_training(n_epochs="ten")
client.jobs(status="done")
client.job("j")["statsu"]
client.job("j")["progress"].upper()
[version["evaluation"]["mean"] for version in client.model("m")["versions"]]
client.experiment("e")["results"]["iqr"]
for event in client.events("j"):
    if event["event"] == "metrics":
        event["data"]["metrics"], event["data"]["status"]
async def awaited(client: AsyncGRPOClient) -> str:
    client.job("j")["status"]
    return (await client.job("j"))["status"] + (await client.predict("m", [0]))["values"]
"""


@pytest.mark.rotated(5)
@pytest.mark.slow
def test_mypy_refuses_what_does_not_exist(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(WRONG)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", str(program)], cwd=ROOT, capture_output=True, text=True,
        timeout=250, check=False,
    )  # fmt: skip
    refused = re.findall(r"program\.py:(\d+): error", done.stdout)
    assert sorted(set(map(int, refused))) == [*range(9, 18), 20, 22, 23], done.stdout + done.stderr
