"""Episodes as files for others: Parquet by pandas, or a Minari dataset with the extra `minari`.

One row, or one entry, is a step: what was observed before it, the action, and what came of it. What
is observed and done is kept leaf by leaf, each of the type and shape that its space declares.
"""

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from grpo.actions import DictActions
from grpo.envs import EnvironmentSpec
from grpo.observations import MASK, path_name
from grpo.observations import Path as LeafPath
from grpo.trajectories import Trajectory
from grpo_platform.core.errors import InvalidRequestError

__all__ = ["Written", "check_minari", "columns_of", "minari_id", "write_minari", "write_parquet"]

_PART_EPISODES: Final = 16
"""Episodes of one file, so that no more of them are held in memory."""

_NAMESPACE: Final = "grpo"

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """What an export holds."""

    returns: tuple[float, ...]
    """Undiscounted return of each episode."""

    lengths: tuple[int, ...]
    """Steps of each episode."""

    cut: int
    """Episodes that the environment did not end itself."""


@dataclass(frozen=True, slots=True)
class _Leaf:
    """One array of an observation or an action, over the steps."""

    name: str
    path: LeafPath
    values: npt.NDArray[Any]
    """Shape (T, *shape), of the space's type."""


def columns_of(spec: EnvironmentSpec) -> list[dict[str, Any]]:
    """Name, shape and type of what is observed and done, in the order of the columns."""
    no_observations = np.zeros((0, *spec.observation_shape), spec.observation.dtype)
    leaves = [
        *_observed(spec, no_observations),
        *_done(spec, np.zeros((0, *spec.action.shape))),
    ]
    return [
        {"name": leaf.name, "shape": list(leaf.values.shape[1:]), "dtype": leaf.values.dtype.name}
        for leaf in leaves
    ]


def _observed(spec: EnvironmentSpec, rows: npt.NDArray[Any]) -> list[_Leaf]:
    """What N rows, (N, *observation_shape), hold, leaf by leaf; the action mask last."""
    reads, n = spec.observation, len(rows)
    flat = rows.reshape(n, reads.size)
    found = []
    for leaf, own in reads.columns():
        values = flat[:, own].reshape(n, *leaf.shape).astype(leaf.dtype)
        found.append(_Leaf(_named("observation", leaf.path), leaf.path, values))
    if reads.n_mask:
        found.append(_Leaf(MASK, (), reads.masks(flat).astype(np.uint8)))
    return found


def _done(spec: EnvironmentSpec, rows: npt.NDArray[Any]) -> list[_Leaf]:
    """What N actions, (N, *action shape), are, leaf by leaf."""
    action, n = spec.action, len(rows)
    if not isinstance(action, DictActions):
        return [_Leaf("action", (), rows.astype(spec.action_space.dtype))]
    found = []
    parts = np.split(rows, np.cumsum(action.sizes)[:-1], axis=1)
    for (path, part), values in zip(action.parts, parts, strict=True):
        space = _space_at(spec.action_space, path)
        shaped = values.reshape(n, *part.shape).astype(space.dtype)
        found.append(_Leaf(_named("action", path), path, shaped))
    return found


def _named(what: str, path: LeafPath) -> str:
    return f"{what}.{path_name(path)}" if path else what


def _space_at(space: spaces.Space[Any], path: LeafPath) -> spaces.Space[Any]:
    found: Any = space
    for key in path:
        found = found.spaces[key]
    return found  # type: ignore[no-any-return]


def _parts(episodes: Iterable[_T]) -> Iterator[list[_T]]:
    left = iter(episodes)
    while part := list(islice(left, _PART_EPISODES)):
        yield part


def write_parquet(episodes: Iterable[Trajectory], spec: EnvironmentSpec, folder: Path) -> Written:
    """Write `steps/part-….parquet`, one row a step, and `episodes.parquet`, one row an episode.

    `pandas.read_parquet(folder / "steps")` reads all parts. An array of several numbers is a list
    in its cell, flattened in C order; an episode's last observation, after its last step, is in
    its row of the other file.

    Args:
        episodes: in the order of their numbers.
        spec: their environment.
        folder: that exists, and has neither yet.
    """
    import pandas as pd

    (folder / "steps").mkdir()
    rows: list[dict[str, Any]] = []
    for part, some in enumerate(_parts(enumerate(episodes))):
        frames = [pd.DataFrame(_steps(spec, number, one)) for number, one in some]
        steps = pd.concat(frames, ignore_index=True)
        steps.to_parquet(folder / "steps" / f"part-{part:05d}.parquet", index=False)
        rows += [_episode(spec, number, one) for number, one in some]
    pd.DataFrame(rows).to_parquet(folder / "episodes.parquet", index=False)
    return Written(
        returns=tuple(row["return"] for row in rows),
        lengths=tuple(row["length"] for row in rows),
        cut=sum(not (row["terminated"] or row["truncated"]) for row in rows),
    )


def _steps(spec: EnvironmentSpec, number: int, one: Trajectory) -> dict[str, Any]:
    n = one.length
    last = np.arange(n) == n - 1
    leaves = [*_observed(spec, one.observations[:-1]), *_done(spec, one.actions)]
    return {
        "episode": np.full(n, number),
        "seed": np.full(n, one.seed),
        "step": np.arange(n),
        **{leaf.name: _cells(leaf.values) for leaf in leaves},
        "reward": one.rewards,
        "terminated": last & one.terminated,
        "truncated": last & one.truncated,
        "value": one.values,
        "log_prob": one.log_probs,
    }


def _episode(spec: EnvironmentSpec, number: int, one: Trajectory) -> dict[str, Any]:
    final = _observed(spec, one.observations[-1:])
    return {
        "episode": number,
        "seed": one.seed,
        "length": one.length,
        "return": one.total,
        "terminated": one.terminated,
        "truncated": one.truncated,
        **{f"final_{leaf.name}": _cells(leaf.values)[0] for leaf in final},
    }


def _cells(values: npt.NDArray[Any]) -> Any:  # noqa: ANN401 - what a column is made of
    return values if values.ndim == 1 else list(values.reshape(len(values), -1))


# --- Minari ---------------------------------------------------------------------------------


def check_minari() -> None:
    """Refuse where the extra is not installed.

    Raises:
        InvalidRequestError: it is not.
    """
    missing = [name for name in ("minari", "h5py") if find_spec(name) is None]
    if missing:
        raise InvalidRequestError(
            f"Minari datasets need the extra `minari`, and {missing[0]} is not installed: "
            "pip install 'grpo-platform[minari]', or write --format parquet.",
            field="format",
        )


def minari_id(model: str, version: int) -> str:
    """Name of a version's dataset, in Minari's letters."""
    return f"{_NAMESPACE}/{model.replace('.', '_')}-v{version}"


def write_minari(
    episodes: Iterable[Trajectory],
    spec: EnvironmentSpec,
    folder: Path,
    dataset_id: str,
    description: str,
) -> Written:
    """Write a Minari dataset below a folder, lossless: images are kept as they are.

    Value, log-probability and action mask are in each step's infos.

    Args:
        episodes: in the order of their numbers.
        spec: their environment.
        folder: that becomes `MINARI_DATASETS_PATH` for whoever loads it.
        dataset_id: as `minari_id` gives it.
        description: of the dataset, for people.

    Raises:
        InvalidRequestError: the extra is not installed, or Minari cannot store these spaces.
    """
    check_minari()
    import minari

    returns: list[float] = []
    lengths: list[int] = []
    cut = 0
    dataset: Any = None
    with _datasets_in(folder):
        for some in _parts(episodes):
            buffers = [_buffer(spec, one) for one in some]
            if dataset is None:
                dataset = minari.create_dataset_from_buffers(
                    dataset_id, buffers, algorithm_name="GRPO", author="grpo-platform",
                    description=description, data_format="hdf5", jpeg_encoding=False,
                    **_environment(spec),
                )  # fmt: skip
            else:
                dataset.update_dataset_from_buffer(buffers)
            returns += [one.total for one in some]
            lengths += [one.length for one in some]
            cut += sum(not one.ended for one in some)
    return Written(returns=tuple(returns), lengths=tuple(lengths), cut=cut)


@contextmanager
def _datasets_in(folder: Path) -> Iterator[None]:
    """Let Minari write there, whose place is a variable, and not warn of what nobody told it."""
    before = os.environ.get("MINARI_DATASETS_PATH")
    os.environ["MINARI_DATASETS_PATH"] = str(folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if before is None:
            del os.environ["MINARI_DATASETS_PATH"]
        else:
            os.environ["MINARI_DATASETS_PATH"] = before


def _environment(spec: EnvironmentSpec) -> Mapping[str, Any]:
    """What Minari is told of it: the registration where that is plain data, and the spaces."""
    told: dict[str, Any] = {
        "observation_space": spec.observation_space, "action_space": spec.action_space
    }  # fmt: skip
    env = spec.make()
    try:
        if env.spec is not None:
            env.spec.to_json()
            told["env"] = env  # closed: its registration is what is read
    except Exception:  # noqa: BLE001 - foreign arguments: any kind of trouble, and it is optional
        return told
    finally:
        env.close()
    return told


def _buffer(spec: EnvironmentSpec, one: Trajectory) -> Any:  # noqa: ANN401
    from minari.data_collector import EpisodeBuffer

    ends = np.zeros((2, one.length), np.bool_)
    ends[:, -1] = one.terminated, one.truncated or not one.terminated
    observed = _observed(spec, one.observations)
    # Minari's infos are of every observation, the last one included
    infos = {
        "value": np.append(one.values, np.nan),
        "log_prob": np.append(one.log_probs, np.nan),
        **{leaf.name: leaf.values for leaf in observed if leaf.name == MASK},
    }
    return EpisodeBuffer(
        seed=one.seed,
        observations=_nested(spec.observation_space, _by_path(observed)),
        actions=_nested(spec.action_space, _by_path(_done(spec, one.actions))),
        rewards=one.rewards.tolist(),
        terminations=ends[0].tolist(),
        truncations=ends[1].tolist(),
        infos=infos,
    )


def _by_path(leaves: Iterable[_Leaf]) -> dict[LeafPath, npt.NDArray[Any]]:
    return {leaf.path: leaf.values for leaf in leaves if leaf.name != MASK}


def _nested(
    space: spaces.Space[Any], leaves: Mapping[LeafPath, npt.NDArray[Any]], at: LeafPath = ()
) -> Any:  # noqa: ANN401 - dicts and tuples of arrays, as the space is
    if isinstance(space, spaces.Dict):
        return {key: _nested(part, leaves, (*at, key)) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_nested(part, leaves, (*at, i)) for i, part in enumerate(space.spaces))
    return leaves[at]
