"""What is compared, read from the store: experiments' seeds, and versions that play anew.

Versions play fresh episodes, all on the same seeds: neither their training nor the choice of one of
them has seen these, so that no winner's curse is in the comparison.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from grpo.evaluation import evaluation_seeds
from grpo_platform.comparisons.records import Unit
from grpo_platform.comparisons.request import ComparisonRequest, Reference
from grpo_platform.core.errors import ConflictError, InvalidRequestError, UnknownJobError
from grpo_platform.core.names import Metric, Tag
from grpo_platform.core.states import TERMINAL
from grpo_platform.experiments.store import ExperimentStore
from grpo_platform.registry.comparison import Contender, Evaluate, Game
from grpo_platform.registry.models import Registry
from grpo_platform.sweeps.records import best_of
from grpo_platform.sweeps.store import SweepStore
from grpo_platform.tracking.histories import History
from grpo_platform.tracking.jobs import JobStore

__all__ = ["Contestant", "Contestants", "SideReader"]

_ROUND: Final = 20
"""Episodes that every version plays before the time is looked at."""

_FEW_POINTS: Final = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Contestant:
    """One side before anything is computed of it."""

    reference: Reference
    label: str
    env_name: str
    env_kwargs: Mapping[str, Any]
    reward_function_type: str
    total_timesteps: int
    unit: Unit
    job_ids: tuple[str, ...]
    seeds: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    returns: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    chosen: str | None = None
    surely: bool = True
    """Whether it was chosen after looking; else it may have been."""

    left_out: int = 0
    unfinished: bool = False
    contender: Contender | None = None
    """Of a version: plays it."""

    histories: tuple[History, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Contestants:
    """All sides, with their returns."""

    sides: tuple[Contestant, ...]
    curve_metric: str
    cut_short: bool
    """Whether there was no time for all episodes."""


class SideReader:
    """Reads what is compared. Safe to call from several threads.

    Args:
        jobs: of the store.
        experiments: of the same store.
        sweeps: of the same store.
        registry: of the same store.
        evaluate: plays a policy; a server's own does so elsewhere than in itself.
    """

    def __init__(
        self,
        jobs: JobStore,
        experiments: ExperimentStore,
        sweeps: SweepStore,
        registry: Registry,
        evaluate: Evaluate,
    ) -> None:
        self._jobs = jobs
        self._experiments = experiments
        self._sweeps = sweeps
        self._registry = registry
        self.evaluate = evaluate

    def whole(self, reference: Reference) -> Reference:
        """The same with its whole id, where it was named by the beginning of one.

        Raises:
            NotFoundError: nothing begins so, or several do.
        """
        id_of = {"experiment": self._experiments.id_of, "job": self._jobs.id_of,
                 "sweep": self._sweeps.id_of}.get(reference.kind)  # fmt: skip
        return reference if id_of is None else replace(reference, name=id_of(reference.name))

    def describe(self, request: ComparisonRequest) -> list[Contestant]:
        """The sides, before versions have played.

        Raises:
            NotFoundError: there is no such side.
            ConflictError: it has nothing to compare yet.
            InvalidRequestError: two of them are the same version.
            UnsafeModelError: a version's card cannot be read.
        """
        read = {"experiment": self._experiment, "job": self._job,
                "model": self._model, "sweep": self._sweep}  # fmt: skip
        found = [read[reference.kind](reference) for reference in request.references]
        _check_different(found)
        labels = [side.label for side in found]
        return [
            replace(side, label=f"{side.label} ({side.reference.kind} {side.reference.name[:8]})")
            if labels.count(side.label) > 1
            else side
            for side in found
        ]

    def fill(self, sides: Sequence[Contestant], request: ComparisonRequest) -> Contestants:
        """Let versions play, and read the histories.

        Raises:
            UnsafeModelError: the files of a version are not what was registered.
            grpo.GRPOError: an environment cannot be played here.
            StoreError: the store refused, or is away.
        """
        played, cut_short = self._play(sides, request)
        metric, filled = self._histories(played)
        return Contestants(sides=tuple(filled), curve_metric=metric, cut_short=cut_short)

    def _experiment(self, reference: Reference) -> Contestant:
        record = self._experiments.experiment(reference.name)
        seeds = self._experiments.seeds(record)
        evaluated = [s for s in seeds if s.job is not None and Metric.EVAL_MEAN in s.job.metrics]
        evaluated = [s for s in evaluated if s.state == "completed"]
        if len(evaluated) < 2:
            raise ConflictError(
                f"Experiment {reference.name} has {len(evaluated)} evaluated seeds, and a "
                "comparison needs at least two; wait for it, or resume it."
            )
        returns = [s.job.metrics[Metric.EVAL_MEAN] for s in evaluated if s.job is not None]
        config = record.request.job(record.request.seeds[0], reference.name).config
        return Contestant(
            reference=reference,
            label=record.request.model_name or f"experiment {reference.name[:8]}",
            env_name=config.env_name,
            env_kwargs=config.env_kwargs,
            reward_function_type=config.reward_function_type,
            total_timesteps=config.total_timesteps,
            unit="seed",
            job_ids=tuple(s.job_id for s in evaluated),
            seeds=np.array([s.seed for s in evaluated], np.int64),
            returns=np.array(returns),
            left_out=len(record.request.seeds) - len(evaluated),
            unfinished=record.status not in TERMINAL,
        )

    def _job(self, reference: Reference) -> Contestant:
        job = self._jobs.get(reference.name)
        if job.model_version is None:
            raise ConflictError(
                f"Job {reference.name} is {job.status.value} and has made no version that could "
                "play; wait for it, or resume it."
            )
        return self._version(reference, f"{job.model_name}/{job.model_version}")

    def _sweep(self, reference: Reference) -> Contestant:
        sweep = self._sweeps.sweep(reference.name)
        trials = self._sweeps.trials(sweep)
        best = best_of(trials, sweep.request)
        if best is None or best.job is None or best.job.model_version is None:
            raise ConflictError(
                f"Sweep {reference.name} has no completed trial whose version could play; wait "
                "for it."
            )
        made = f"{best.job.model_name}/{best.job.model_version}"
        return replace(
            self._version(reference, made),
            surely=True,
            chosen=f"trial {best.number}, the best of {len(trials)} by {sweep.request.metric}",
        )

    def _model(self, reference: Reference) -> Contestant:
        return self._version(reference, reference.name)

    def _version(self, reference: Reference, name: str) -> Contestant:
        ref = self._registry.resolve(name)
        contender = Contender(self._registry, ref.name, ref.version)
        card = contender.card
        group = None if card.selection else self._group_of(card.job_id)
        return Contestant(
            reference=reference,
            label=ref.label,
            env_name=card.env_name,
            env_kwargs=card.env_kwargs,
            reward_function_type=str(card.config.get("reward_function_type", "environment")),
            total_timesteps=int(card.config.get("total_timesteps", card.timesteps)),
            unit="episode",
            job_ids=(card.job_id,),
            chosen=card.selection or group,
            surely=group is None,
            contender=contender,
        )

    def _group_of(self, job_id: str) -> str | None:
        """What a job is one of several of, in words; None where it stands alone, or is deleted."""
        try:
            tags = self._jobs.tags(job_id)
        except UnknownJobError:
            return None
        parent = tags.get(Tag.PARENT_RUN, "")[:8]
        if Tag.EXPERIMENT_SEED in tags:
            return f"one of the seeds of experiment {parent}"
        return f"one of the trials of sweep {parent}" if Tag.TRIAL in tags else None

    def _play(
        self, sides: Sequence[Contestant], request: ComparisonRequest
    ) -> tuple[list[Contestant], bool]:
        """All versions play the same episodes, round by round, until there is no time."""
        players = [side for side in sides if side.contender is not None]
        returns: list[list[npt.NDArray[np.float64]]] = [[] for _ in players]
        game = Game(request.seed, float(request.max_seconds), self.evaluate)
        begun, played = time.monotonic(), 0
        while players and played < request.episodes:
            count = min(_ROUND, request.episodes - played)
            pace = (time.monotonic() - begun) / played if played else 0.0
            if pace * (played + count) > request.max_seconds:
                break
            for side, found in zip(players, returns, strict=True):
                if side.contender is not None:
                    found.append(side.contender.play(game, played, count))
            played += count
        seeds = evaluation_seeds(max(played, 1), request.seed)[:played]
        each = iter(returns)
        filled = [
            side if side.contender is None
            else replace(side, seeds=seeds, returns=np.concatenate(next(each)))
            for side in sides
        ]  # fmt: skip
        return filled, bool(players) and played < request.episodes

    def _histories(self, sides: Sequence[Contestant]) -> tuple[str, list[Contestant]]:
        """Evaluations' histories where all sides have some, else those of training's episodes."""
        jobs = [job_id for side in sides for job_id in side.job_ids]
        metric = Metric.EVAL_MEAN
        found = self._jobs.histories_of(jobs, metric)
        longest = [
            max((len(found[job].steps) for job in side.job_ids if job in found), default=0)
            for side in sides
        ]
        if min(longest) < _FEW_POINTS:
            metric = Metric.EPISODE_RETURN
            found = self._jobs.histories_of(jobs, metric)
        return metric, [
            replace(side, histories=tuple(found[job] for job in side.job_ids if job in found))
            for side in sides
        ]


def _check_different(sides: Sequence[Contestant]) -> None:
    """Refuse a version that is named in two ways."""
    named: dict[str, Reference] = {}
    for side in sides:
        if side.contender is None:
            continue
        if other := named.get(side.label):
            raise InvalidRequestError(
                f"The {other.kind} {other.name} and the {side.reference.kind} "
                f"{side.reference.name} are both {side.label}; name each version once.",
                field="references",
            )
        named[side.label] = side.reference
