"""What a version's episodes were like when it was made, kept with its files.

With it another release of the environment is compared with the one that is gone: the same actions
are taken again, and every bit is compared; and the returns of the reported evaluation, episode by
episode, are compared with those of today.
"""

import functools
import io
import json
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from gymnasium.envs.registration import EnvSpec

from grpo.envs import EnvironmentSpec
from grpo.evaluation import Evaluation, evaluation_seeds
from grpo.policies import BasePolicy
from grpo.trajectories import Trajectory, play
from grpo_platform.core.errors import UnsafeModelError
from grpo_platform.tracking.provenance import package_versions

__all__ = ["EpisodeReturns", "ReferenceEpisodes", "environment_packages", "record_reference"]

_EPISODES: Final = 2
_MOST_STEPS: Final = 128
_LEAST_STEPS: Final = 10
_PROBED_STEPS: Final = 5
_CPU_SECONDS: Final = 0.05
"""That recording may compute: it delays the job's completion."""

_SECONDS: Final = 0.5
"""That it may take where the machine is busy, or the environment waits for something."""

_TRACE_BYTES: Final = 2**18
"""Of what is observed in one episode, before it is compressed."""

_MOST_BYTES: Final = 2**20
"""Of the file: a model with a larger one is not loaded, see `integrity.check_sizes`."""

_ENGINES: Final = ("mujoco", "box2d", "ale-py", "pygame")
"""Packages that compute what an environment of another package shows."""

_FIELDS: Final = ("observations", "actions", "rewards", "values", "log_probs")


class EpisodeReturns(NamedTuple):
    """The reported evaluation, episode by episode; three arrays of shape (n,)."""

    seeds: npt.NDArray[np.int64]
    returns: npt.NDArray[np.float64]
    lengths: npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferenceEpisodes:
    """What is known of a version in the environment that it was trained in."""

    trajectories: tuple[Trajectory, ...]
    """Greedy episodes, the first of the evaluation's; mostly only their first steps."""

    evaluation: EpisodeReturns | None = None
    """The reported evaluation; None where there was none."""

    packages: Mapping[str, str] = field(default_factory=dict)
    """Versions of the packages that the environment is from, and of those that compute it."""

    def to_bytes(self) -> bytes:
        """A .npz file, which nothing is pickled in."""
        arrays: dict[str, npt.NDArray[Any]] = {}
        told: list[dict[str, Any]] = []
        for i, one in enumerate(self.trajectories):
            arrays |= {f"{name}_{i}": getattr(one, name) for name in _FIELDS}
            told.append(
                {"seed": one.seed, "terminated": one.terminated, "truncated": one.truncated}
            )
        if self.evaluation is not None:
            arrays |= {f"evaluation_{k}": v for k, v in self.evaluation._asdict().items()}
        meta = {"trajectories": told, "packages": dict(self.packages)}
        content = io.BytesIO()
        encoded = np.frombuffer(json.dumps(meta).encode(), np.uint8)
        np.savez_compressed(content, allow_pickle=False, meta=encoded, **arrays)
        return content.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes, label: str) -> "ReferenceEpisodes":
        """Inverse of `to_bytes`.

        Args:
            content: of the file, as verified.
            label: of the version, for messages.

        Raises:
            UnsafeModelError: it is no such file.
        """
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            meta = json.loads(arrays.pop("meta").tobytes())
            trajectories = tuple(
                Trajectory(**{name: arrays[f"{name}_{i}"] for name in _FIELDS}, **told)
                for i, told in enumerate(meta["trajectories"])
            )
            evaluation = None
            if "evaluation_seeds" in arrays:
                evaluation = EpisodeReturns(
                    *(arrays[f"evaluation_{name}"] for name in EpisodeReturns._fields)
                )
            return cls(
                trajectories=trajectories, evaluation=evaluation, packages=dict(meta["packages"])
            )
        except (KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise UnsafeModelError(
                f"The reference episodes of {label} cannot be read: {error}."
            ) from error


def record_reference(
    policy: BasePolicy, spec: EnvironmentSpec, evaluation: Evaluation | None
) -> bytes:
    """Play the first episodes of the evaluation again, for as long as there is time and room.

    Args:
        policy: that was trained.
        spec: its environment, as it is now.
        evaluation: the reported one.

    Returns:
        `ReferenceEpisodes.to_bytes`.

    Raises:
        grpo.GRPOError: the environment cannot be played any more.
    """
    told = None
    seeds = evaluation_seeds(_EPISODES).tolist()
    if evaluation is not None:
        told = EpisodeReturns(evaluation.seeds, evaluation.returns, evaluation.lengths)
        seeds = evaluation.seeds[:_EPISODES].tolist()
    _play(policy, spec, seeds[:1], 1)  # what is found out once about an environment takes longer
    begun, computed = time.monotonic(), time.process_time()
    played = _play(policy, spec, seeds, _PROBED_STEPS)
    steps = min(
        _affordable(time.process_time() - computed, _CPU_SECONDS),
        _affordable(time.monotonic() - begun, _SECONDS),
        _that_fit(spec),
    )
    if steps > _PROBED_STEPS:
        played = _play(policy, spec, seeds, steps)
    packages = environment_packages(spec)
    while True:
        reference = ReferenceEpisodes(trajectories=played, evaluation=told, packages=packages)
        content = reference.to_bytes()
        if len(content) <= _MOST_BYTES or not played:
            return content
        played = played[:-1]


def _play(
    policy: BasePolicy, spec: EnvironmentSpec, seeds: list[int], steps: int
) -> tuple[Trajectory, ...]:
    return tuple(play(policy, spec.env_name, seeds, env_kwargs=spec.env_kwargs, step_limit=steps))


def _affordable(probed_seconds: float, seconds: float) -> int:
    """Steps that fit in the time, by what the first few took, the making of instances included."""
    return int(_PROBED_STEPS * seconds / max(probed_seconds, 1e-6))


def _that_fit(spec: EnvironmentSpec) -> int:
    size = spec.observation.size * spec.observation.dtype.itemsize
    return int(np.clip(_TRACE_BYTES // size, _LEAST_STEPS, _MOST_STEPS))


def environment_packages(spec: EnvironmentSpec) -> dict[str, str]:
    """Versions of the packages that an environment's behaviour depends on, as installed here."""
    entry = spec.source.entry_point if isinstance(spec.source, EnvSpec) else spec.source
    module = entry if isinstance(entry, str) else getattr(entry, "__module__", "")
    # named as its module: to ask which distribution a module is of takes half a second
    own = module.partition(".")[0].replace("_", "-").lower()
    names = {own, "gymnasium", "numpy", *_ENGINES} - {""}
    found = {name: _installed(name) for name in sorted(names)}
    return {**package_versions(), **{name: told for name, told in found.items() if told}}


@functools.cache
def _installed(name: str) -> str | None:
    """Version of a distribution; None where there is none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
