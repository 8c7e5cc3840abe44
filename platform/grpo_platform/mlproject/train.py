"""Entry point `main`: a run that `mlflow run` created becomes a job of ours."""

from collections.abc import Mapping

from grpo_platform.api.schemas.training import TrainRequest
from grpo_platform.core.request import JobRequest, resolve_request
from grpo_platform.core.settings import Settings
from grpo_platform.core.signing import Signer
from grpo_platform.jobs.resources import check_this_machine
from grpo_platform.jobs.worker import run_worker
from grpo_platform.mlproject.parameters import validated
from grpo_platform.registry.models import Registry
from grpo_platform.services.training import check_request
from grpo_platform.tracking.addresses import existing_store_uri
from grpo_platform.tracking.jobs import JobStore
from grpo_platform.tracking.store import Store

__all__ = ["request_of", "train"]


def train(run_id: str, given: Mapping[str, str]) -> int:
    """Make the run a job and train it here, in the foreground, as POST /train does.

    Returns:
        Exit code: 0 when the job completed, 1 when it failed or was stopped.

    Raises:
        InvalidRequestError: the parameters are malformed.
        grpo.ConfigError: they cannot be trained.
        PlatformError: they do not fit what is in the store, or it is away.
    """
    request = request_of(given)
    settings = Settings()
    uri = existing_store_uri(settings)
    store = JobStore(uri, signer=Signer(settings.api_token))
    check_request(request, Registry(uri), store, check_this_machine)
    job = store.adopt(run_id, request)
    place = Store(
        tracking_uri=uri, experiment_id=job.experiment_id, artifact_location=job.artifact_uri
    )
    return run_worker(place, run_id, job.attempt, request)


def request_of(given: Mapping[str, str]) -> JobRequest:
    """Validated like the body of POST /train, but for its types: every value came as text."""
    body = validated(TrainRequest, given)
    return resolve_request(body.model_dump(exclude_unset=True), Settings().max_timesteps)
