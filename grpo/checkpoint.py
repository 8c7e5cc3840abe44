"""Save and load the whole state of a training run, versioned and without pickle.

A checkpoint is one `.npz` file: the arrays, and under `meta` a JSON tree that says where each
belongs.
"""

import dataclasses
import io
import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grpo.config import GRPOConfig
from grpo.errors import CheckpointError, ConfigError, in_words
from grpo.network import FloatArray
from grpo.policies import BasePolicy
from grpo.rollout import VisitedState
from grpo.updates import OptimizerState

__all__ = ["FORMAT", "PolicyState", "TrainingState", "load", "save"]

FORMAT = "grpo-checkpoint-1"
"""Changes whenever an older reader would misread a newer file."""

_ARRAY = "__array__"


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class PolicyState:
    """A policy's weights and moments, apart from it."""

    weights: FloatArray
    """Shape (n,): `BasePolicy.flat`, the policy's weights, then the value head's."""

    buffers: dict[str, npt.NDArray[np.float64]]
    """Moments of observations, shape (observation size,) each, and of returns, scalars; as named
    in the policy."""

    @classmethod
    def of(cls, policy: BasePolicy) -> "PolicyState":
        """A copy of a policy's, which later updates do not change."""
        buffers = {name: value.numpy().copy() for name, value in policy.named_buffers()}
        return cls(weights=policy.flat.copy(), buffers=buffers)

    def load_into(self, policy: BasePolicy) -> None:
        """Give a policy of the same make these."""
        policy.flat[:] = self.weights
        for name, value in policy.named_buffers():
            value.numpy()[...] = self.buffers[name]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class TrainingState:
    """All that a run needs to go on as if it had never paused, at the end of an iteration."""

    config: GRPOConfig
    """Hyperparameters."""

    weights: FloatArray
    """As in `PolicyState`."""

    buffers: dict[str, npt.NDArray[np.float64]]
    """As in `PolicyState`."""

    optimizer: OptimizerState
    """Both optimisers."""

    reference: FloatArray | None
    """Shape (policy_size,): weights of the reference policy, where there is a KL term."""

    streams: dict[str, Any]
    """State of every random generator, JSON values."""

    next_starts: tuple[VisitedState | None, ...]
    """Per group, the state that it goes on from; None for a reset."""

    timesteps: int
    """Timesteps so far, branches and replays included."""

    iterations: int
    """Iterations so far."""

    n_updates: int
    """Minibatch updates of the policy so far."""

    members: tuple[VisitedState | None, ...] = ()
    """Per member that goes on with its own episode, where it is; None for a reset."""

    start: PolicyState | None = None
    """What training started from, where the config's seed does not tell it."""

    @property
    def policy(self) -> PolicyState:
        """The policy's part."""
        return PolicyState(weights=self.weights, buffers=self.buffers)


def save(path: str | os.PathLike[str], state: TrainingState, extra: dict[str, Any]) -> None:
    """Write a checkpoint; a file of that name is replaced as a whole or not at all.

    Args:
        path: file to write.
        state: what `Trainer.state` gave.
        extra: JSON values of the caller, given back by `load`.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    fields = {spec.name: getattr(state, spec.name) for spec in dataclasses.fields(state)}
    if state.start is None:
        del fields["start"]  # earlier releases read such files
    tree = {
        "format": FORMAT,
        "state": _pack(fields | {"config": state.config.to_dict()}, arrays),
        "extra": extra,
    }
    meta = json.dumps(tree, allow_nan=False).encode()
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            np.savez(file, allow_pickle=False, meta=np.frombuffer(meta, np.uint8), **arrays)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def load(path: str | os.PathLike[str]) -> tuple[TrainingState, dict[str, Any]]:
    """Read a checkpoint.

    Returns:
        The state, and the caller's `extra`.

    Raises:
        CheckpointError: the file is missing, damaged, foreign, or of another version.
    """
    try:
        data = Path(path).read_bytes()
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        tree = json.loads(arrays.pop("meta").tobytes())
        if tree["format"] != FORMAT:
            raise CheckpointError(
                f"This checkpoint is of format {str(tree['format'])[:40]!r}; this version of grpo "
                f"reads {FORMAT!r}."
            )
        return _state(_unpack(tree["state"], arrays)), tree["extra"]
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, ConfigError):
            raise CheckpointError(f"The checkpoint's config is not valid: {error}") from error
        raise CheckpointError(
            f"Cannot read this file as a checkpoint: {in_words(error)}."
        ) from error


def _state(fields: dict[str, Any]) -> TrainingState:
    begun = fields.pop("start", None)
    return TrainingState(
        config=GRPOConfig(**fields.pop("config")),
        optimizer=OptimizerState(**fields.pop("optimizer")),
        next_starts=_visited(fields.pop("next_starts")),
        members=_visited(fields.pop("members", [])),  # earlier files have none
        start=None if begun is None else PolicyState(**begun),
        **fields,
    )


def _visited(states: list[dict[str, Any] | None]) -> tuple[VisitedState | None, ...]:
    return tuple(None if state is None else VisitedState(**state) for state in states)


def _pack(value: object, arrays: dict[str, npt.NDArray[Any]]) -> object:
    """A JSON tree, with each array put aside and a reference in its place."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {spec.name: getattr(value, spec.name) for spec in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): _pack(item, arrays) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_pack(item, arrays) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        name = f"a{len(arrays)}"
        arrays[name] = np.asarray(value)
        return {_ARRAY: name}
    return value


def _unpack(value: Any, arrays: dict[str, npt.NDArray[Any]]) -> Any:  # noqa: ANN401
    """Inverse of `_pack`; tuples come back as lists."""
    if isinstance(value, dict):
        if set(value) == {_ARRAY}:
            return arrays[value[_ARRAY]]
        return {key: _unpack(item, arrays) for key, item in value.items()}
    if isinstance(value, list):
        return [_unpack(item, arrays) for item in value]
    return value
