"""The worst episodes of a completed job: read from its run, and made scenarios of its model."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from grpo.scenarios.suite import Start
from grpo_platform.core.errors import NotFoundError, StoreError, UnknownModelError
from grpo_platform.core.states import TERMINAL, JobStatus
from grpo_platform.jobs.failure_gallery import FOLDER, INDEX_FILE, Failure, Gallery, clip_file
from grpo_platform.scenarios.editing import add_start_state
from grpo_platform.scenarios.keeping import KeptSuite
from grpo_platform.services.container import Services
from grpo_platform.tracking.artifacts import VIDEO_FILE
from grpo_platform.tracking.jobs import JobStore
from grpo_platform.tracking.records import JobRecord

__all__ = [
    "JobFailures", "ScenarioMade", "failure_to_scenario", "job_failures", "read_clip", "read_film",
]  # fmt: skip


class JobFailures(NamedTuple):
    """What a job's run keeps of its worst episodes."""

    job: JobRecord
    gallery: Gallery | None
    message: str
    """Why there is no gallery; empty where there is one."""


def job_failures(store: JobStore, job_id: str) -> JobFailures:
    """The worst episodes of a job, as far as there are any yet.

    Raises:
        UnknownJobError: no such job.
        StoreError: the files cannot be read, or are not ours.
    """
    job = store.get(job_id)
    if INDEX_FILE not in store.list_artifacts(job_id, FOLDER):
        return JobFailures(job, None, _why_none(job))
    values = _read(store, job_id, INDEX_FILE)
    try:
        return JobFailures(job, Gallery.from_dict(values), "")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(
            f"The failures of job {job_id} cannot be read: they are damaged."
        ) from error


class ScenarioMade(NamedTuple):
    """A failure as a scenario of its model."""

    scenario: str
    """Its name."""

    kept: KeptSuite
    """The suite that it is in now."""


def failure_to_scenario(
    services: Services,
    job_id: str,
    number: int,
    actor: str,
    *,
    scenario: str | None = None,
    assertions: Sequence[str] | None = None,
) -> ScenarioMade:
    """Let the model of a job be tested on a failure from now on.

    The episode begins in the state before the collapse; where states cannot be set, at the reset
    with its seed.

    Args:
        services: everything behind the faces.
        job_id: the job.
        number: of the failure.
        actor: who does it.
        scenario: that gets the start state; made where there is none. One of its own by default.
        assertions: what must hold, if the scenario is made. By default the return from there on
            must be higher than it was.

    Raises:
        UnknownJobError: no such job.
        UnknownModelError: its model was deleted.
        NotFoundError: it has no failure of this number.
        InvalidRequestError: what comes out is no suite.
        grpo.ConfigError: the environment cannot begin there.
        StoreError: the files cannot be read.
    """
    found, failure = _one_failure(services.store, job_id, number)
    name = scenario or f"failure {number} of {job_id}"
    start, rest = _start(services.store, job_id, failure)
    try:
        suite = services.scenarios.show(found.job.model_name).suite
    except UnknownModelError:
        raise
    except NotFoundError:
        suite = None
    longer = add_start_state(suite, name, start, assertions or (f"return > {rest!r}",))
    kept = services.scenarios.put(found.job.model_name, longer.to_dict(), actor)
    return ScenarioMade(name, kept)


def read_film(store: JobStore, job_id: str) -> bytes:
    """The film (MP4) of greedy episodes that a completed job's run has.

    Raises:
        UnknownJobError: no such job.
        NotFoundError: it has no film.
        StoreError: the file cannot be read.
    """
    if VIDEO_FILE not in store.list_artifacts(job_id):
        raise NotFoundError(
            f"Job {job_id} has no film: it is made some seconds after a job is completed, where "
            "its environment can be rendered and imageio-ffmpeg is installed, which the extra "
            "`video` brings: pip install 'grpo-platform[video]'."
        )
    return _content(store, job_id, VIDEO_FILE)


def read_clip(store: JobStore, job_id: str, number: int) -> bytes:
    """The film (MP4) of one of a job's worst episodes.

    Raises:
        UnknownJobError: no such job.
        NotFoundError: it has no failure of this number, or no film of it.
        StoreError: the file cannot be read.
    """
    found, failure = _one_failure(store, job_id, number)
    if failure.clip is None:
        notes = "" if found.gallery is None else " ".join(found.gallery.notes)
        raise NotFoundError(f"Failure {number} of job {job_id} has no film. {notes}".strip())
    return _content(store, job_id, clip_file(number))


def _one_failure(store: JobStore, job_id: str, number: int) -> tuple[JobFailures, Failure]:
    found = job_failures(store, job_id)
    failures = () if found.gallery is None else found.gallery.failures
    failure = next((each for each in failures if each.number == number), None)
    if failure is None:
        what = f"{len(failures)} failures, from 1" if failures else "no failures"
        raise NotFoundError(f"Job {job_id} has {what}. {found.message}".strip())
    return found, failure


def _start(store: JobStore, job_id: str, failure: Failure) -> tuple[Start, float]:
    """Where the episode begins, and the return that it had from there on."""
    if failure.snapshot is None:
        return Start(seed=failure.seed), failure.total
    snapshot = _read(store, job_id, failure.snapshot)
    with TemporaryDirectory() as folder:
        path = store.download(job_id, failure.trace, Path(folder))
        with path.open(encoding="utf-8", newline="") as file:
            rewards = [float(row["reward"]) for row in csv.DictReader(file)]
    return Start(snapshot=snapshot), sum(rewards[failure.collapse.step :])


def _why_none(job: JobRecord) -> str:
    if job.status not in TERMINAL:
        return f"The job is {job.status.value}: its worst episodes are kept once it is completed."
    if job.status is not JobStatus.COMPLETED:
        return f"The job is {job.status.value}: it was not evaluated."
    if not job.request.failure_gallery:
        return "The job was trained with failure_gallery 0."
    return (
        "No episode of the evaluation was worse than the others; or they are being gathered, which "
        "takes some seconds after a job is completed."
    )


def _content(store: JobStore, job_id: str, path: str) -> bytes:
    with TemporaryDirectory() as folder:
        return store.download(job_id, path, Path(folder)).read_bytes()


def _read(store: JobStore, job_id: str, path: str) -> Any:  # noqa: ANN401 - JSON values
    content = _content(store, job_id, path)
    try:
        return json.loads(content)
    except ValueError as error:
        raise StoreError(f"{path} of job {job_id} is damaged: it is no JSON.") from error
