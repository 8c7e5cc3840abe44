"""The environment as an MLflow dataset: what the run's data came from."""

import json
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag

from grpo_platform.jobs.request import JobRequest
from grpo_platform.tracking.provenance import environment_of

__all__ = ["dataset_of"]

_DIGEST_LENGTH = 32


def dataset_of(request: JobRequest) -> DatasetInput | None:
    """Entry for a run's inputs; None where the environment cannot be made here."""
    found = environment_of(request)
    if found is None:
        return None
    spec, digest = found
    source = {"env_name": spec["env_name"], "env_kwargs": spec["env_kwargs"]}
    features = [_tensor("observation", spec["observation"]["shape"])]
    profile = {
        name: spec[name] for name in ("max_episode_steps", "reward_threshold") if name in spec
    }
    dataset = Dataset(
        name=spec["env_name"],
        digest=digest[:_DIGEST_LENGTH],
        source_type="gymnasium",
        source=json.dumps(source),
        schema=json.dumps({"mlflow_tensorspec": {"features": json.dumps(features)}}),
        profile=json.dumps(profile | {"action": _without_bounds(spec["action"])}),
    )
    return DatasetInput(dataset, tags=[InputTag("mlflow.data.context", "training")])


def _tensor(name: str, shape: list[int]) -> dict[str, Any]:
    return {
        "name": name,
        "type": "tensor",
        "tensor-spec": {"dtype": "float32", "shape": [-1, *shape]},
    }


def _without_bounds(action: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in action.items() if name not in ("low", "high")}
