"""What worker and trainer exchange: policies as files, evaluations as JSON."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from grpo.checkpoint import TrainingState
from grpo.envs import EnvironmentSpec
from grpo.evaluation import Evaluation
from grpo.policies import BasePolicy, PolicySpec, make_policy
from grpo.trainer import policy_spec
from grpo.verdict import Baseline, Verdict

__all__ = [
    "evaluation_from_json",
    "evaluation_to_json",
    "load_policy",
    "policy_of",
    "save_policy",
    "verdict_from_json",
]

_SPEC = "spec"
_ARRAYS = {"returns": np.float64, "lengths": np.int64, "seeds": np.int64}


def evaluation_to_json(evaluation: Evaluation) -> dict[str, Any]:
    """All fields as JSON values."""
    values = {f.name: getattr(evaluation, f.name) for f in dataclasses.fields(evaluation)}
    return values | {name: values[name].tolist() for name in _ARRAYS}


def evaluation_from_json(values: Mapping[str, Any]) -> Evaluation:
    """Inverse of `evaluation_to_json`."""
    arrays = {name: np.asarray(values[name], dtype) for name, dtype in _ARRAYS.items()}
    return Evaluation(**dict(values) | arrays)


def verdict_from_json(values: Mapping[str, Any]) -> Verdict:
    """Inverse of `dataclasses.asdict`."""
    return Verdict(**{name: Baseline(**baseline) for name, baseline in values.items()})


def save_policy(policy: BasePolicy, path: Path) -> None:
    """Write a policy to an `.npz` file, for `load_policy`."""
    state = {name: value.cpu().numpy() for name, value in policy.state_dict().items()}
    spec = np.frombuffer(json.dumps(policy.spec.to_dict()).encode(), np.uint8)
    np.savez(path, allow_pickle=False, **{_SPEC: spec}, **state)


def load_policy(path: Path) -> BasePolicy:
    """Inverse of `save_policy`."""
    with np.load(path, allow_pickle=False) as file:
        state = {name: torch.from_numpy(file[name]) for name in file.files if name != _SPEC}
        spec = json.loads(file[_SPEC].tobytes())
    policy = make_policy(PolicySpec.from_dict(spec))
    policy.load_state_dict(state)
    return policy


def policy_of(state: TrainingState, environment: EnvironmentSpec) -> BasePolicy:
    """The policy of a training's state."""
    policy = make_policy(policy_spec(environment, state.config))
    state.policy.load_into(policy)
    return policy
