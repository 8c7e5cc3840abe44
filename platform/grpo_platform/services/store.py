"""What is done with a store while no server runs on it, or beside one: the `store` commands."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from grpo_platform.core.errors import (
    AmbiguousIdError,
    InvalidRequestError,
    UnknownExperimentError,
    UnknownJobError,
    UnknownSweepError,
)
from grpo_platform.core.settings import Settings
from grpo_platform.core.states import JobStatus
from grpo_platform.experiments.store import ExperimentStore
from grpo_platform.services.direct import open_store
from grpo_platform.sweeps.store import SweepStore
from grpo_platform.tracking import locations
from grpo_platform.tracking.addresses import existing_store_uri, named_store_uri
from grpo_platform.tracking.backup import Manifest, RestoredStore, back_up_store, restore_store
from grpo_platform.tracking.jobs import JobStore
from grpo_platform.tracking.schema import Schema, read_schema, upgrade_schema

__all__ = [
    "Unsigned",
    "adopt_artifacts",
    "back_up",
    "restore",
    "schema",
    "sign",
    "unsigned",
    "upgrade",
]


class Unsigned(NamedTuple):
    """A job or parent of jobs that servers with this token do not train."""

    job_id: str
    kind: str
    """`job`, `sweep` or `experiment`."""

    status: JobStatus
    env_name: str
    model_name: str


def schema(settings: Settings) -> Schema:
    """Which schema the database has; raises what `read_schema` does."""
    return read_schema(named_store_uri(settings))


def upgrade(settings: Settings, *, backed_up: bool) -> tuple[Schema, Path | None]:
    """Bring an older schema to the installed MLflow's.

    Args:
        settings: name the store.
        backed_up: there is a backup; a sqlite file is copied anyway.

    Returns:
        The schema as it was, and the copy that was made of a sqlite file.

    Raises:
        InvalidRequestError: it is older, no sqlite file, and not backed up.
        StoreError: see `upgrade_schema`.
    """
    uri = named_store_uri(settings)
    before = read_schema(uri)
    if not before.is_older:
        return before, None
    if not uri.startswith("sqlite:") and not backed_up:
        raise InvalidRequestError("Back the database up first (pg_dump), then say --backed-up.")
    return before, upgrade_schema(uri)


def back_up(settings: Settings, target: Path) -> Manifest:
    """Copy the store whole into a new folder; raises what `back_up_store` does."""
    return back_up_store(named_store_uri(settings), target)


def restore(settings: Settings, source: Path) -> RestoredStore:
    """Put a backup in the store's place; raises what `restore_store` does."""
    return restore_store(named_store_uri(settings), source)


def adopt_artifacts(settings: Settings) -> Path:
    """Go on with the artifact root as it is now; returns it, raises what `locations` does."""
    return locations.adopt_artifacts(existing_store_uri(settings))


def unsigned(settings: Settings) -> list[Unsigned]:
    """Jobs, sweeps and experiments that may go on yet and were not queued with this token.

    Raises:
        InvalidRequestError: there is no token.
        StoreError: there is no store, or it cannot be used.
    """
    jobs, sweeps, experiments = _signed_stores(settings)
    return [
        Unsigned(sweep.sweep_id, "sweep", sweep.status, sweep.request.env_name, "")
        for sweep in sweeps.unsigned()
    ] + [
        Unsigned(one.experiment_id, "experiment", one.status, one.request.env_name, one.model_name)
        for one in experiments.unsigned()
    ] + [
        Unsigned(job.job_id, "job", job.status, job.request.config.env_name, job.model_name)
        for job in jobs.unsigned()
    ]  # fmt: skip


def sign(settings: Settings, ids: Iterable[str]) -> Iterator[str]:
    """Vouch for runs, so that servers with this token train them; yields the id of each one.

    Raises:
        UnknownJobError: no such job, sweep or experiment.
        InvalidRequestError: there is no token.
        StoreError: there is no store, or it cannot be used.
    """
    jobs, sweeps, experiments = _signed_stores(settings)
    parents: dict[str, SweepStore | ExperimentStore] = {
        **dict.fromkeys((sweep.sweep_id for sweep in sweeps.unsigned()), sweeps),
        **dict.fromkeys((one.experiment_id for one in experiments.unsigned()), experiments),
    }
    for text in ids:
        run_id = _whole(text, jobs, sweeps, experiments)
        parents.get(run_id, jobs).sign(run_id)
        yield run_id


def _whole(text: str, *stores: JobStore | SweepStore | ExperimentStore) -> str:
    """The id that a text means, of whatever it is."""
    found: list[str] = []
    for store in stores:
        with suppress(UnknownJobError, UnknownSweepError, UnknownExperimentError):
            found.append(store.id_of(text))
    if len(set(found)) > 1:
        raise AmbiguousIdError(text, found)
    return found[0] if found else text


def _signed_stores(settings: Settings) -> tuple[JobStore, SweepStore, ExperimentStore]:
    if settings.api_token is None:
        raise InvalidRequestError(
            "Set GRPO_API_TOKEN to the server's token: without one there are no signatures."
        )
    jobs, _ = open_store(settings)
    return jobs, SweepStore(jobs), ExperimentStore(jobs)
