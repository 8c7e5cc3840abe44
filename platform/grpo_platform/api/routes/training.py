"""Training calls."""

import math
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request
from starlette.responses import Response, StreamingResponse

from grpo_platform.api.dependencies import (
    EnvNameFilter,
    JobId,
    JsonRoute,
    Limit,
    ModelNameFilter,
    PageToken,
    ServicesDep,
)
from grpo_platform.api.errors import documented
from grpo_platform.api.events import EVENT_SCHEMA, JobFeeds, Watcher
from grpo_platform.api.schemas.experiments import ExperimentReply, TrainBody, started_reply
from grpo_platform.api.schemas.training import (
    DeletedJob,
    Job,
    JobConfig,
    JobList,
    JobLogs,
    MetricHistory,
    MetricPoint,
    ResumedJob,
    StoppedJob,
    TrainReply,
    config_of,
    job_reply,
)
from grpo_platform.core.errors import UnknownExperimentError
from grpo_platform.core.names import Metric
from grpo_platform.core.states import JobStatus
from grpo_platform.experiments.aggregate import threshold_of
from grpo_platform.jobs.run_writer import read_log
from grpo_platform.services.experiments import submit_experiment
from grpo_platform.services.training import changes_from_preset, resume, submit

__all__ = ["router"]

router = APIRouter(
    tags=["training"], route_class=JsonRoute, responses=documented(401, 403, 422, 503)
)

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="A second call with the same key and body gives the same job.",
    ),
]


@router.post(
    "/train", operation_id="start_training", responses=documented(400, 404, 409, 413, 415, 429)
)
def start_training(
    body: TrainBody, services: ServicesDep, idempotency_key: IdempotencyKey = None
) -> TrainReply | ExperimentReply:
    """Queue a training job, or, with `seeds`, one for each seed."""
    given = body.model_dump(exclude_unset=True)
    if body.seeds is not None or "register" in given:
        return started_reply(submit_experiment(services, given, idempotency_key))
    given.pop("seeds", None)
    job = submit(services, given, idempotency_key)
    return TrainReply(job_id=job.job_id, message="Training started", config=config_of(job))


@router.get("/training/jobs", operation_id="list_jobs", responses=documented(404))
def list_jobs(
    services: ServicesDep,
    limit: Limit = 100,
    page_token: PageToken = None,
    status: JobStatus | None = None,
    env_name: EnvNameFilter = None,
    model_name: ModelNameFilter = None,
    experiment_id: Annotated[str | None, Query(max_length=64)] = None,
) -> JobList:
    """Jobs, newest first."""
    if experiment_id is not None:
        with suppress(UnknownExperimentError):  # which has no jobs
            experiment_id = services.experiments.id_of(experiment_id)
    page = services.store.list(
        status=status,
        env_name=env_name,
        model_name=model_name,
        experiment=experiment_id,
        limit=limit,
        page_token=page_token,
    )
    jobs = [job_reply(record) for record in page.items]
    return JobList(jobs=jobs, next_page_token=page.next_page_token)


@router.get("/training/{job_id}/status", operation_id="get_job", responses=documented(404))
def get_job(job_id: JobId, services: ServicesDep) -> Job:
    """How a job is doing."""
    return job_reply(services.job(job_id))


@router.get("/training/{job_id}/config", operation_id="get_job_config", responses=documented(404))
def get_job_config(job_id: JobId, services: ServicesDep) -> JobConfig:
    """What a job trains with, and where that differs from its environment's preset."""
    job = services.job(job_id)
    return JobConfig(
        job_id=job_id,
        config=config_of(job),
        preset=changes_from_preset(job.request.config),
        threshold=threshold_of(job),
    )


@router.post("/training/{job_id}/stop", operation_id="stop_job", responses=documented(404, 409))
def stop_job(job_id: JobId, services: ServicesDep) -> StoppedJob:
    """End a job between two updates; its checkpoint is kept."""
    services.jobs.stop(job_id)
    return StoppedJob(
        message=f"Training stops; POST /training/{job_id}/resume goes on from its checkpoint.",
        job_id=job_id,
    )


@router.post(
    "/training/{job_id}/resume", operation_id="resume_job", responses=documented(404, 409, 429)
)
def resume_job(job_id: JobId, services: ServicesDep) -> ResumedJob:
    """Take a stopped or failed job up again, from its checkpoint, in the same run."""
    job = resume(services, job_id)
    done = f"{job.current_timesteps:,} of {job.total_timesteps:,} timesteps were done"
    message = (
        f"Training goes on from its last checkpoint; {done}."
        if job.checkpoint
        else "Training starts anew: the job has no checkpoint."
    )
    return ResumedJob(message=message, job_id=job_id)


@router.delete("/training/{job_id}", operation_id="delete_job", responses=documented(404, 409))
def delete_job(job_id: JobId, services: ServicesDep) -> DeletedJob:
    """Delete a finished job with its run, checkpoints and logs; its model stays."""
    services.jobs.delete(job_id)
    return DeletedJob(message="The job, its checkpoints and its logs are deleted.", job_id=job_id)


@router.get(
    "/training/{job_id}/metrics", operation_id="get_metric_history", responses=documented(400, 404)
)
def get_metric_history(
    job_id: JobId,
    services: ServicesDep,
    key: Annotated[
        str, Query(min_length=1, max_length=250, description="Name of the metric.")
    ] = Metric.EPISODE_RETURN,
    max_points: Annotated[int, Query(ge=2, le=10_000, description="Most points returned.")] = 500,
) -> MetricHistory:
    """History of a metric, evenly thinned."""
    points = [
        MetricPoint(
            step=point.step,
            value=point.value,
            timestamp=datetime.fromtimestamp(point.timestamp_ms / 1000, UTC),
        )
        for point in services.store.history(job_id, key, max_points)
        if math.isfinite(point.value)
    ]
    return MetricHistory(job_id=job_id, key=key, points=points)


@router.get("/training/{job_id}/logs", operation_id="get_job_logs", responses=documented(404))
def get_job_logs(
    job_id: JobId,
    services: ServicesDep,
    tail: Annotated[int, Query(ge=1, le=10_000, description="Most lines returned.")] = 200,
) -> JobLogs:
    """The last lines of what the job's worker printed."""
    text = read_log(services.store, job_id).decode("utf-8", "replace")
    return JobLogs(job_id=job_id, lines=text.splitlines()[-tail:])


async def _watcher(job_id: JobId, request: Request) -> AsyncIterator[Watcher]:
    feeds: JobFeeds = request.app.state.feeds
    async with feeds.watch(job_id) as watcher:
        yield watcher


@router.get(
    "/training/{job_id}/events",
    operation_id="watch_job",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"text/event-stream": {"schema": EVENT_SCHEMA}}},
        204: {"description": "The end was told before; do not come back."},
        **documented(404, 429),
    },
)
async def watch_job(
    watcher: Annotated[Watcher, Depends(_watcher)],
    last_event_id: Annotated[
        str | None,
        Header(max_length=100, description="Id of the last event that the client has seen."),
    ] = None,
) -> Response:
    """A job's events (server-sent): `metrics`, `progress`, and one `end`, which is the last."""
    if watcher.has_nothing_for(last_event_id):
        return Response(status_code=204)
    return StreamingResponse(
        watcher.events(last_event_id),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )
