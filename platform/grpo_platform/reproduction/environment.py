"""Whether results of before still compare once an environment's package has changed.

The environment that is gone is not needed. A version made here carries its reference episodes (see
`grpo_platform.registry.reference`): their actions are taken again in the environment that is
installed now, and every bit is compared; then the version plays the episodes of its reported
evaluation once more, and the returns are compared in pairs.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from grpo.envs import EnvironmentSpec, check_environment
from grpo.errors import ConfigError, EnvironmentFaultError
from grpo.evaluation import Interval, evaluate, mean_interval
from grpo.policies import BasePolicy
from grpo.trajectories import Divergence, Trajectory, replay
from grpo_platform.core.errors import ConflictError
from grpo_platform.core.names import Tag
from grpo_platform.registry.card import EvaluationCard, ModelCard
from grpo_platform.registry.models import Registry
from grpo_platform.registry.names import Tag as ModelTag
from grpo_platform.registry.records import ModelVersionRef
from grpo_platform.registry.reference import (
    EpisodeReturns,
    ReferenceEpisodes,
    environment_packages,
)
from grpo_platform.reproduction.verdict import Difference, Verdict
from grpo_platform.tracking.jobs import JobStore

__all__ = ["EnvironmentImpact", "Returns", "compare_environment"]


FloatArray = npt.NDArray[np.float64]

_ROUND_OFF: Final = 1e-9
"""Of a return, relative to the largest."""

_JOB_ID: Final = re.compile(r"[0-9a-f]{32}")


class Returns(NamedTuple):
    """The reported evaluation, and the same episodes today."""

    episodes: int
    then: float
    """Mean return as it was reported."""

    now: float
    """Mean return today."""

    difference: Interval | None
    """Now minus then, of the same episodes; None where only the mean of then is known."""

    differing: int | None
    """Episodes whose return is not the same, bit for bit; None likewise."""

    chance: bool
    """Whether chance explains the difference, or round-off: zero is in its interval; where that is
    not known, the intervals of the two evaluations overlap."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EnvironmentImpact:
    """What a change of the environment means for one version."""

    version: str
    """`name/version`."""

    env_name: str
    verdict: Verdict
    """`identical`: every bit compared was the same; `equivalent`: not that, but the returns differ
    by no more than chance; `different`: they do, or the policy cannot play there any more."""

    packages: tuple[Difference, ...]
    """Packages of the environment whose version is another one."""

    replayed: int
    """Reference episodes whose actions were taken again; 0 where the version has none."""

    steps: int
    """Steps in them."""

    divergence: Divergence | None
    """The first step that differed."""

    returns: Returns | None
    """None where there was no evaluation, or the policy cannot play there any more."""

    notes: tuple[str, ...] = ()
    """What the verdict does not rest on, in sentences."""

    run_id: str = ""
    """MLflow run that keeps this."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        told = self.returns
        return {
            "version": self.version,
            "env_name": self.env_name,
            "verdict": self.verdict.value,
            "run_id": self.run_id,
            "packages": [difference._asdict() for difference in self.packages],
            "replayed_episodes": self.replayed,
            "replayed_steps": self.steps,
            "first_difference": self.divergence and self.divergence._asdict(),
            "returns": told and {
                **told._asdict(),
                "difference": told.difference and told.difference._asdict(),
            },
            "notes": list(self.notes),
        }  # fmt: skip

    def rows(self) -> list[tuple[str, str, str]]:
        """What was compared, and how it was then and now; packages first."""
        rows: list[tuple[str, str, str]] = [*self.packages]
        if self.replayed:
            found = self.divergence
            same = f"{self.steps} steps of {self.replayed} episodes"
            rows.append(("replayed bit for bit", same, "all equal" if found is None else "not all"))
            if found is not None:
                where = f"step {found.step} of seed {found.seed}: {found.what}"
                rows.append((where, found.then, found.now))
        if self.returns is not None:
            told = self.returns
            rows.append((f"mean return of {told.episodes} episodes",
                         f"{told.then:.2f}", f"{told.now:.2f}"))  # fmt: skip
            if told.difference is not None:
                d = told.difference
                shown = f"{d.estimate:+.2f}, 95 % interval {d.low:+.2f} to {d.high:+.2f}"
                rows.append(("paired difference", f"{told.differing} returns differ", shown))
        return rows

    def to_markdown(self) -> str:
        """The table with the verdict above it."""
        lines = [
            f"**{self.verdict.value}**: {self.version} in {self.env_name}, as it was made and now.",
            "",
            "| what | then | now |",
            "|---|---|---|",
            *(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in self.rows()),
            *(f"\n{note}" for note in self.notes),
        ]
        return "\n".join(lines) + "\n"


def compare_environment(store: JobStore, registry: Registry, reference: str) -> EnvironmentImpact:
    """Compare a version's environment with the one that it was made in; a run keeps the answer.

    Args:
        store: gets the run.
        registry: has the version.
        reference: `name`, `name@alias`, `name/version`, or the id of the job that made it.

    Raises:
        UnknownModelError: no such version of ours.
        UnsafeModelError: its files are not what was registered.
        ConflictError: nothing was kept that could be compared.
        StoreError: the store refused, or is away.
    """
    version = _resolve(store, registry, reference)
    impact = _compare(registry, version)
    tags = {Tag.REPLAYS: version.label}
    name = f"environment of {version.label}"
    run_id = store.begin_run(registry.experiment_of(version), tags, name)
    found = replace(impact, run_id=run_id)
    try:
        with TemporaryDirectory() as folder:
            files = []
            for file, text in (
                ("environment.json", json.dumps(found.to_dict(), indent=2) + "\n"),
                ("environment.md", found.to_markdown()),
            ):
                files.append(Path(folder) / file)
                files[-1].write_text(text, encoding="utf-8")
            note = {Tag.REPRODUCTION_VERDICT: found.verdict.value, Tag.NOTE: found.to_markdown()}
            store.finish_run(run_id, files, note)
    finally:
        store.abandon(run_id, "The comparison ended before it was written down.")
    return found


def _resolve(store: JobStore, registry: Registry, reference: str) -> ModelVersionRef:
    if not _JOB_ID.fullmatch(reference):
        return registry.resolve(reference)
    job = store.get(reference)
    if job.model_version is None:
        raise ConflictError(
            f"Job {reference} made no version: only what was trained to its end can be played."
        )
    return registry.resolve(f"{job.model_name}/{job.model_version}")


def _compare(registry: Registry, version: ModelVersionRef) -> EnvironmentImpact:
    kept = registry.reference_of(version) or ReferenceEpisodes(trajectories=())
    tags = registry.version(version.name, version.version).tags
    card = ModelCard.from_json(tags.get(ModelTag.CARD, ""))
    if not kept.trajectories and kept.evaluation is None and card.evaluation is None:
        raise ConflictError(
            f"{version.label} was not evaluated, and has no reference episodes: there is nothing "
            "to compare the environment with."
        )
    policy = registry.load_policy(version.label)
    try:
        spec = check_environment(card.env_name, card.env_kwargs)
        refusal = _refusal(policy, spec)
    except ConfigError as error:
        spec, refusal = None, str(error)
    if spec is None or refusal is not None:
        return EnvironmentImpact(
            version=version.label, env_name=card.env_name, verdict=Verdict.DIFFERENT,
            packages=_changed(kept, spec), replayed=0, steps=0, divergence=None, returns=None,
            notes=(f"The version cannot play there any more: {refusal}",),
        )  # fmt: skip
    first, steps = _replay(kept.trajectories, spec)
    returns, notes = None, _notes(kept)
    try:
        returns = _play(policy, spec, kept.evaluation, card.evaluation)
        verdict = _verdict(bool(kept.trajectories), first, returns)
    except EnvironmentFaultError as error:
        verdict, notes = Verdict.DIFFERENT, (*notes, f"An episode cannot be played: {error}")
    return EnvironmentImpact(
        version=version.label,
        env_name=card.env_name,
        verdict=verdict,
        packages=_changed(kept, spec),
        replayed=len(kept.trajectories),
        steps=steps,
        divergence=first,
        returns=returns,
        notes=notes,
    )


def _refusal(policy: BasePolicy, spec: EnvironmentSpec) -> str | None:
    """Why a policy cannot act in an environment of this description; None where it can."""
    reads, acts = policy.spec.reads, policy.spec.action
    if [leaf.shape for leaf in reads.leaves] != [leaf.shape for leaf in spec.observation.leaves]:
        return f"{spec.env_name} is observed in other shapes than it was."
    if policy.spec.observation is not None and reads.leaves != spec.observation.leaves:
        return f"{spec.env_name} is observed otherwise than it was."
    if acts != spec.action or reads.n_mask != spec.observation.n_mask:
        return f"{spec.env_name} takes other actions than it did."
    return None


def _changed(kept: ReferenceEpisodes, spec: EnvironmentSpec | None) -> tuple[Difference, ...]:
    """Packages that are not what they were; none where nobody kept what they were."""
    if spec is None or not kept.packages:
        return ()
    now = environment_packages(spec)
    return tuple(
        Difference(name, kept.packages.get(name, "none"), now.get(name, "none"))
        for name in sorted(kept.packages.keys() | now.keys())
        if kept.packages.get(name) != now.get(name)
    )


def _replay(kept: Sequence[Trajectory], spec: EnvironmentSpec) -> tuple[Divergence | None, int]:
    """The earliest difference of any episode, and how many steps were compared."""
    found = [replay(one, spec.env_name, env_kwargs=spec.env_kwargs) for one in kept]
    steps = sum(
        one.length if divergence is None else divergence.step
        for one, divergence in zip(kept, found, strict=True)
    )
    differing = [divergence for divergence in found if divergence is not None]
    return min(differing, key=lambda divergence: divergence.step, default=None), steps


def _play(
    policy: BasePolicy,
    spec: EnvironmentSpec,
    kept: EpisodeReturns | None,
    reported: EvaluationCard | None,
) -> Returns | None:
    """The evaluation's episodes once more, against what was kept of them."""
    if kept is None and reported is None:
        return None
    episodes = len(kept.seeds) if kept is not None else reported.episodes if reported else 0
    found = evaluate(policy, spec.env_name, env_kwargs=spec.env_kwargs, n_episodes=episodes)
    if kept is not None and np.array_equal(kept.seeds, found.seeds):
        difference = mean_interval(found.returns - kept.returns)
        return Returns(
            episodes=episodes,
            then=float(kept.returns.mean()),
            now=found.mean,
            difference=difference,
            differing=int(np.count_nonzero(found.returns != kept.returns)),
            chance=_by_chance(difference, kept.returns),
        )
    if reported is None:
        return None
    near = found.ci_low <= reported.ci_high and reported.ci_low <= found.ci_high
    return Returns(episodes, reported.mean, found.mean, None, None, near)


def _by_chance(difference: Interval, returns: FloatArray) -> bool:
    """Whether zero is in the interval, or as good as that: round-off has a direction, too."""
    round_off = _ROUND_OFF * float(np.abs(returns).max())
    return difference.low <= round_off and difference.high >= -round_off


def _notes(kept: ReferenceEpisodes) -> tuple[str, ...]:
    notes = []
    if not kept.trajectories:
        notes.append(
            "The version has no reference episodes, as those made before they were kept: only the "
            "returns of its evaluation are compared, and no step can be named."
        )
    if kept.evaluation is None:
        notes.append("The evaluation was not kept episode by episode: its interval is compared.")
    return tuple(notes)


def _verdict(replays: bool, first: Divergence | None, returns: Returns | None) -> Verdict:
    """See `EnvironmentImpact.verdict`.

    Args:
        replays: whether there were reference episodes.
        first: their first difference.
        returns: of the evaluation's episodes.
    """
    same_bits = replays and first is None
    if same_bits and (returns is None or returns.differing == 0):
        return Verdict.IDENTICAL
    if returns is None:
        return Verdict.DIFFERENT
    return Verdict.EQUIVALENT if returns.chance else Verdict.DIFFERENT
