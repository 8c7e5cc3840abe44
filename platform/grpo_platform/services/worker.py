"""A worker by hand: one job of the queue, trained in the process that asks, without a server."""

from grpo_platform.core.errors import ConflictError, InvalidRequestError
from grpo_platform.core.settings import Settings
from grpo_platform.core.signing import Signer, not_vouched_for
from grpo_platform.core.states import TERMINAL, JobStatus
from grpo_platform.jobs.resources import check_this_machine
from grpo_platform.jobs.worker import run_worker
from grpo_platform.tracking.addresses import existing_store_uri
from grpo_platform.tracking.jobs import JobStore
from grpo_platform.tracking.records import JobRecord
from grpo_platform.tracking.store import Store

__all__ = ["run_queued"]


def run_queued(job_id: str, settings: Settings) -> int:
    """Train a queued job in this process, in the foreground, as `run_worker` does.

    Args:
        job_id: the job.
        settings: name the store, and hold the token that the job must have been queued with.

    Returns:
        Exit code: 0 when the job completed, 1 when it failed, was stopped, or is another's.

    Raises:
        UnknownJobError: no such job.
        ConflictError: it does not wait, another worker has it, or it was queued by others.
        InvalidRequestError: its stored request cannot be read, or asks for more than there is.
        grpo.ConfigError: its device does not exist.
        StoreError: there is no store, or it cannot be used.
    """
    uri = existing_store_uri(settings)
    store = JobStore(uri, signer=Signer(settings.api_token))
    job = store.get(job_id)
    _check_free(job)
    if not store.vouches_for(job):
        raise ConflictError(not_vouched_for(job_id))
    if job.request_error is not None:
        raise InvalidRequestError(job.request_error)
    check_this_machine(job.request)
    place = Store(
        tracking_uri=uri, experiment_id=job.experiment_id, artifact_location=job.artifact_uri
    )
    return run_worker(place, job_id, job.attempt, job.request)


def _check_free(job: JobRecord) -> None:
    """Refuse a job that no worker may claim."""
    if job.status in TERMINAL:
        again = f"; call POST /training/{job.job_id}/resume first"
        raise ConflictError(
            f"Job {job.job_id} is {job.status.value}, and a worker takes one that is queued"
            f"{'' if job.status is JobStatus.COMPLETED else again}."
        )
    if job.status is JobStatus.RUNNING or job.claimed_by is not None:
        raise ConflictError(
            f"Job {job.job_id} is held by the worker {job.claimed_by or job.worker}. Stop the job "
            "there first, or wait: when that worker is lost, a server queues the job again."
        )
