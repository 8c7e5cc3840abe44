"""An experiment and its seeds as the platform sees them: frozen records, read from MLflow runs."""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import TypeAdapter, ValidationError

from grpo_platform.core.errors import InvalidRequestError
from grpo_platform.core.names import Tag, seed_claim, seeds_tag
from grpo_platform.experiments.request import ExperimentRequest
from grpo_platform.registry.card import EvaluationCard, canonical_json
from grpo_platform.registry.records import Decision
from grpo_platform.tracking.group_records import GroupKind, GroupMember, GroupRecord, group_fields
from grpo_platform.tracking.reader import RunRow
from grpo_platform.tracking.records import record_of

__all__ = [
    "EXPERIMENT",
    "ExperimentRecord",
    "Rule",
    "SeedRecord",
    "SeedState",
    "Selection",
    "experiment_of",
    "failed_of",
    "seed_of",
]

SeedState = Literal["queued", "running", "completed", "failed", "stopped"]
Rule = Literal["best", "median"]

EXPERIMENT: Final = GroupKind(
    mark=Tag.EXPERIMENT,
    request=Tag.EXPERIMENT_REQUEST,
    resuming=Tag.EXPERIMENT_RESUMING,
    member=Tag.EXPERIMENT_SEED,
    claim=seed_claim,
    members=seeds_tag,
)
"""How experiments and their jobs are told in the store."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedRecord(GroupMember):
    """One seed of an experiment at the moment it was read; its number is the seed."""

    state: SeedState
    """As its job's status; `failed` also where its run is gone."""

    @property
    def seed(self) -> int:
        """What the job's random generators are seeded with."""
        return self.number


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """The version that was chosen among those of an experiment's seeds."""

    rule: Rule
    seed: int
    job_id: str
    chosen_by: float
    """Mean return of its job's final evaluation, by which it was chosen."""

    evaluation: EvaluationCard | None
    """On fresh episodes; None where it could not be played."""

    model_version: int | None
    """Under the experiment's model name; None where it could not be registered."""

    promoted: bool
    reason: str
    """How it was chosen, how it did on fresh episodes and why it serves or not, in sentences."""

    decision: Decision | None = None
    """Whether and why it serves; None where it could not be registered, and in experiments of
    earlier releases."""

    def to_json(self) -> str:
        """Compact JSON, for the tag."""
        return canonical_json(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Selection | None":
        """Inverse of `to_json`; None where the text is nothing that it writes."""
        try:
            return _SELECTION.validate_json(text)
        except ValidationError:
            return None


_SELECTION: Final = TypeAdapter(Selection)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExperimentRecord(GroupRecord):
    """One experiment at the moment it was read."""

    request: ExperimentRequest
    """What it was asked to be."""

    metrics: Mapping[str, float]
    """Latest value of each metric of the parent run."""

    selection: Selection | None = None
    """Which version was chosen; None until all seeds are completed, and where none is."""

    @property
    def experiment_id(self) -> str:
        """The MLflow run id of the parent."""
        return self.group_id

    @property
    def seed_jobs(self) -> Mapping[int, str]:
        """Job of each seed that was given one."""
        return self.jobs

    @property
    def model_name(self) -> str:
        """Registered model that receives the version that is chosen, or every seed's."""
        return self.request.model_name_for(self.group_id)


def experiment_of(row: RunRow) -> ExperimentRecord:
    """The experiment that a run of ours stands for."""
    fields = group_fields(row, EXPERIMENT)
    request, request_error = _request_of(row.tags, fields["jobs"])
    fields["error_message"] = fields["error_message"] or request_error
    return ExperimentRecord(
        **fields,
        request=request,
        request_error=request_error,
        metrics=row.metrics,
        selection=Selection.from_json(row.tags.get(Tag.EXPERIMENT_SELECTION, "")),
    )


def seed_of(seed: int, job_id: str, row: RunRow | None) -> SeedRecord:
    """The seed that a job of an experiment trains; a job that is gone has failed."""
    unmade = row is not None and Tag.JOB not in row.tags
    if row is None or row.deleted or unmade:
        state: SeedState = "queued" if unmade else "failed"
        return SeedRecord(number=seed, job_id=job_id, job=None, state=state)
    job = record_of(row)
    return SeedRecord(number=seed, job_id=job_id, job=job, state=job.status.value)


def failed_of(seeds: Iterable[SeedRecord]) -> list[SeedRecord]:
    """Those of all that failed and can be trained again: their runs are there."""
    return [seed for seed in seeds if seed.state == "failed" and seed.resumable]


def _request_of(
    tags: Mapping[str, str], jobs: Mapping[int, str]
) -> tuple[ExperimentRequest, str | None]:
    try:
        return ExperimentRequest.from_json(tags.get(Tag.EXPERIMENT_REQUEST, "")), None
    except InvalidRequestError as error:
        reason = f"The experiment's stored request cannot be read: {error}"
        known = tuple(sorted(jobs)[:2])
        seeds = known if len(known) == 2 else (0, 1)
        return ExperimentRequest(seeds=seeds, config={}), reason
