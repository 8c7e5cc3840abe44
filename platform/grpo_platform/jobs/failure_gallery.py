"""The worst episodes of a job's evaluation, cut to where the value collapsed, as artifacts.

| artifact under `failures/` | holds |
|---|---|
| `gallery.json` | everything below as data: `Gallery.to_dict` |
| `index.html` | the same to look at, clips included; opens anywhere, offline |
| `01/trace.csv` | one row a step: reward, value, log-probability, action, observation |
| `01/snapshot.json` | the state before the step of the collapse, where states can be set exactly |
| `01/clip.mp4` | the film from shortly before the collapse on, of 160 steps at most |
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from grpo.envs import EnvironmentSpec, VecEnv, make_vec_env
from grpo.errors import GRPOError
from grpo.evaluation import Evaluation
from grpo.policies import BasePolicy
from grpo.scenarios.suite import snapshot_to_json
from grpo.trajectories import Trajectory, play
from grpo_platform.jobs.failure_page import gallery_page
from grpo_platform.tracking.artifacts import PAGE_FILE
from grpo_platform.tracking.video import VideoError, record_steps

__all__ = [
    "FOLDER",
    "INDEX_FILE",
    "Collapse",
    "Failure",
    "Gallery",
    "clip_file",
    "find_collapse",
    "group_alike",
    "make_gallery",
    "worst_episodes",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

FOLDER: Final = "failures"
INDEX_FILE: Final = f"{FOLDER}/gallery.json"

_WINDOW: Final = 20
"""Steps in which a value collapses, at most."""

_LEAD: Final = 40
"""Steps of the clip before the collapse."""

LONGEST_CLIP: Final = 160
"""Steps that a clip shows, at most."""

_MOST_CLUSTERS: Final = 6
_STRUCTURE: Final = 0.25
"""Mean silhouette below which groups are chance: Kaufman & Rousseeuw (1990), table 4."""

_MOST_FEATURES: Final = 64
"""Numbers of an observation in a table's row, or that episodes are grouped by; images are not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Collapse:
    """Where an episode's value estimate fell most."""

    step: int
    """The last step, from 0, before which the value was still high."""

    before: float
    """Value there."""

    after: float
    """Value at the end of the fall."""

    window: int
    """Steps between the two."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """One of the worst episodes."""

    number: int
    """From 1, the lowest return first."""

    seed: int
    """That it was reset with."""

    total: float
    """Its return."""

    length: int
    """Its steps."""

    ended: str
    """`terminated`, `truncated` or `cut`."""

    collapse: Collapse
    cluster: int
    """Group of failures that are alike, from 1."""

    trace: str
    """Artifact path."""

    snapshot: str | None
    """Artifact path of the state before `collapse.step`; None where states cannot be set exactly:
    the seed and the trace's actions lead there."""

    clip: str | None
    """Artifact path; None where the environment cannot be filmed."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        values = asdict(self)
        values["return"] = values.pop("total")
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Failure":
        """Inverse of `to_dict`."""
        given = dict(values)
        collapse = Collapse(**given.pop("collapse"))
        return cls(total=float(given.pop("return")), collapse=collapse, **given)


@dataclass(frozen=True, kw_only=True, slots=True)
class Gallery:
    """The worst episodes of one evaluation."""

    env_name: str
    env_kwargs: dict[str, Any]
    episodes: int
    """Of the evaluation."""

    median: float
    """Return of its median episode; a failure's is below."""

    failures: tuple[Failure, ...]
    notes: tuple[str, ...] = ()
    """What is missing, and why, in sentences."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        values = asdict(self) | {"failures": [failure.to_dict() for failure in self.failures]}
        return values | {"notes": list(self.notes)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Gallery":
        """Inverse of `to_dict`; raises KeyError, TypeError or ValueError for anything else."""
        given = dict(values)
        failures = tuple(Failure.from_dict(each) for each in given.pop("failures"))
        return cls(failures=failures, notes=tuple(given.pop("notes")), **given)


def worst_episodes(returns: FloatArray, most: int) -> IntArray:
    """Which episodes are failures: those with the lowest returns, all below the median.

    So a policy whose episodes are all as good as each other has none.

    Args:
        returns: shape (n,).
        most: how many at most.

    Returns:
        Indices, the lowest return first; of equal ones the earlier episode.
    """
    order = np.argsort(returns, kind="stable")
    below = returns[order] < np.median(returns)
    return order[below][:most]


def find_collapse(values: FloatArray) -> Collapse:
    """Where the value estimate fell most within a window.

    The window has w = min(20, ⌈T / 4⌉) steps; the fall from step t is V(t) − V(min(t + w, T − 1)),
    and the collapse is the step with the largest one: of equal ones the last, which is the last
    step at which all still looked well. Where the value never falls, the policy saw nothing coming:
    then it is the step w before the last.

    Args:
        values: shape (T,), T ≥ 1: V before each step.
    """
    last = len(values) - 1
    window = max(1, min(_WINDOW, -(-len(values) // 4)))
    after = np.minimum(np.arange(len(values)) + window, last)
    falls = values - values[after]
    step = last - int(np.argmax(falls[::-1]))
    if falls[step] <= 0.0:
        step = max(0, last - window)
    end = int(after[step])
    return Collapse(
        step=step, before=float(values[step]), after=float(values[end]), window=end - step
    )


def group_alike(features: FloatArray) -> IntArray:
    """Which failures are alike.

    Features are standardised and clustered agglomeratively by Ward's criterion, which draws no
    random numbers. The number of groups, from 2 to 6, is the one with the largest mean silhouette
    (Rousseeuw 1987); below 0.25 there is no structure, and all are one group.

    Args:
        features: shape (n, k).

    Returns:
        Shape (n,): number of the group of each, from 1, in the order of their first members.
    """
    n = len(features)
    spread = features.std(axis=0)
    kept = features[:, spread > 1e-12]
    if n < 3 or not kept.shape[1]:
        return np.ones(n, np.int64)
    from sklearn.cluster import AgglomerativeClustering
    from sklearn.metrics import silhouette_score

    scaled = (kept - kept.mean(axis=0)) / kept.std(axis=0)
    most = min(_MOST_CLUSTERS, n - 1, len(np.unique(scaled, axis=0)))
    best, labels = _STRUCTURE, np.zeros(n, np.int64)
    for k in range(2, most + 1):
        found = AgglomerativeClustering(n_clusters=k, linkage="ward").fit_predict(scaled)
        score = float(silhouette_score(scaled, found))
        if score > best:
            best, labels = score, found
    _, first = np.unique(labels, return_index=True)
    order = {int(labels[i]): rank for rank, i in enumerate(sorted(first), start=1)}
    return np.array([order[int(label)] for label in labels], np.int64)


def make_gallery(
    policy: BasePolicy,
    spec: EnvironmentSpec,
    evaluation: Evaluation,
    most: int,
    folder: Path,
    clip_frames: int = LONGEST_CLIP,
) -> Gallery | None:
    """Play the worst episodes again, and write the gallery's files.

    Args:
        policy: that was evaluated.
        spec: its environment.
        evaluation: the reported one.
        most: failures at most.
        folder: that gets `FOLDER`, with the files at their artifact paths.
        clip_frames: most steps that a clip shows, `LONGEST_CLIP` at most; 0 makes no clips.

    Returns:
        None where no episode is worse than the others; nothing is written then.

    Raises:
        GRPOError: the environment cannot be played any more.
    """
    worst = worst_episodes(evaluation.returns, most)
    if not len(worst):
        return None
    seeds = evaluation.seeds[worst].tolist()
    longest = int(evaluation.lengths[worst].max())
    played = list(
        play(policy, spec.env_name, seeds, env_kwargs=spec.env_kwargs, step_limit=longest)
    )
    played.sort(key=lambda one: one.total)
    groups = group_alike(np.array([_features(spec, one) for one in played]))
    failures = []
    snapshots, why = _snapshots(spec, played)
    notes = [why] if why else []
    for i, one in enumerate(played):
        failure = _described(i + 1, one, int(groups[i]))
        place = folder / FOLDER / f"{i + 1:02d}"
        place.mkdir(parents=True)
        _write_trace(spec, one, place / "trace.csv")
        if snapshots[i] is not None:
            (place / "snapshot.json").write_text(json.dumps(snapshots[i]) + "\n", "utf-8")
            failure = replace(failure, snapshot=f"{FOLDER}/{place.name}/snapshot.json")
        failures.append(failure)
    films, why = _film(spec, played, failures, folder, min(clip_frames, LONGEST_CLIP))
    notes += [why] if why else []
    gallery = Gallery(
        env_name=spec.env_name,
        env_kwargs=dict(spec.env_kwargs),
        episodes=len(evaluation.returns),
        median=float(np.median(evaluation.returns)),
        failures=tuple(films),
        notes=tuple(notes),
    )
    text = json.dumps(gallery.to_dict(), indent=2) + "\n"
    (folder / INDEX_FILE).write_text(text, encoding="utf-8")
    page = gallery_page(gallery.to_dict(), [one.values for one in played], folder)
    (folder / PAGE_FILE).write_text(page, encoding="utf-8")
    return gallery


def _described(number: int, one: Trajectory, cluster: int) -> Failure:
    ended = "terminated" if one.terminated else "truncated" if one.truncated else "cut"
    return Failure(
        number=number, seed=one.seed, total=one.total, length=one.length, ended=ended,
        collapse=find_collapse(one.values), cluster=cluster,
        trace=f"{FOLDER}/{number:02d}/trace.csv", snapshot=None, clip=None,
    )  # fmt: skip


def _features(spec: EnvironmentSpec, one: Trajectory) -> FloatArray:
    """Where an episode ended, how long it took, and what it returned."""
    final = one.observations[-1].ravel()[: spec.observation.observed].astype(np.float64)
    if final.size > _MOST_FEATURES:
        final = np.zeros(0)
    return np.concatenate([final, [one.length, one.total]])


def _snapshots(
    spec: EnvironmentSpec, played: Sequence[Trajectory]
) -> tuple[list[dict[str, Any] | None], str | None]:
    """The state before each collapse, in JSON; None, and why, where that is not exact."""
    none: list[dict[str, Any] | None] = [None] * len(played)
    envs = make_vec_env(spec.env_name, spec.env_kwargs, 1)
    try:
        if envs.branching != "exact" or not envs.storable_snapshots:
            said = "A state of this environment cannot be set"
            return none, f"{said}: the seed and the actions of a trace lead there."
        found = [_snapshot(envs, one) for one in played]
        lost = sum(each is None for each in found)
        return found, f"{lost} episodes did not repeat themselves exactly." if lost else None
    except GRPOError as error:
        return none, f"There are no snapshots: {error}"
    finally:
        envs.close()


def _snapshot(envs: VecEnv, one: Trajectory) -> dict[str, Any] | None:
    """The state before an episode's collapse; None where its actions do not lead there."""
    member, step = np.array([0]), find_collapse(one.values).step
    envs.reset(member, [one.seed])
    observed = one.observations[0]
    for action in one.actions[:step]:
        observed = envs.step(member, action[None]).observations[0]
    if observed.tobytes() != one.observations[step].tobytes():
        return None
    return snapshot_to_json(envs.snapshot(0))


def _write_trace(spec: EnvironmentSpec, one: Trajectory, path: Path) -> None:
    """One row a step; numbers as Python writes them, so that they are read back exactly."""
    shows = spec.observation.size <= _MOST_FEATURES
    actions = one.actions.reshape(one.length, -1)
    seen = one.observations[:-1].reshape(one.length, -1)[:, : spec.observation.size * shows]
    header = ["step", "reward", "value", "log_prob"]
    header += [f"action_{i}" for i in range(actions.shape[1])]
    header += [f"observation_{i}" for i in range(seen.shape[1])]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for i in range(one.length):
            numbers = (one.rewards[i], one.values[i], one.log_probs[i])
            writer.writerow([i, *map(float, numbers), *actions[i].tolist(), *seen[i].tolist()])


def clip_file(number: int) -> str:
    """Artifact path of the film of the failure with this number."""
    return f"{FOLDER}/{number:02d}/clip.mp4"


def _film(
    spec: EnvironmentSpec,
    played: Sequence[Trajectory],
    failures: Sequence[Failure],
    folder: Path,
    longest: int,
) -> tuple[list[Failure], str | None]:
    """The failures with their clips, as far as the environment can be filmed."""
    if not longest:
        return list(failures), "There are no clips: GRPO_VIDEO_FRAMES is 0."
    filmed: list[Failure] = []
    for one, failure in zip(played, failures, strict=True):
        clip = clip_file(failure.number)
        first = max(0, failure.collapse.step - _LEAD)
        shown = range(first, min(one.length, first + longest))
        try:
            record_steps(one, spec.env_name, spec.env_kwargs, shown, folder / clip)
        except VideoError as error:
            (folder / clip).unlink(missing_ok=True)
            return [*filmed, *failures[len(filmed) :]], f"There are no clips: {error}"
        filmed.append(replace(failure, clip=clip))
    return filmed, None
