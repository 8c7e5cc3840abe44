"""Calls about training jobs."""

import time
import uuid
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Any, Final, Unpack, cast

from grpo_platform.client.events import Event, event_of
from grpo_platform.client.fields import (
    JobFilters,
    TrainFields,
    TrainSettings,
    check_fields,
)
from grpo_platform.client.operations import Calls, Iteration, Operation, part
from grpo_platform.client.progress import line_of_job
from grpo_platform.client.replies import (
    DeletedJob,
    Job,
    JobConfig,
    JobLogs,
    MetricHistory,
    ResumedJob,
    StoppedJob,
    TrainReply,
)
from grpo_platform.client.transport import ApiError, ServerTimeoutError
from grpo_platform.client.waiting import AWAY_SECONDS, UNAVAILABLE, until_ended

if TYPE_CHECKING:
    import pandas

__all__ = ["TrainingCalls"]

_DEFAULT_TIMESTEPS: Final = 5000
_COME_BACK_SECONDS: Final = 1.0


class TrainingCalls(Calls):
    """Start, watch, stop, resume and delete jobs."""

    @Operation
    async def start_training(
        self, *, idempotency_key: str | None = None, **fields: Unpack[TrainFields]
    ) -> TrainReply:
        """Queue a job.

        Args:
            idempotency_key: a second call with the same key gives the same job; drawn when left
                out.
            **fields: of POST /train; what is left out has the environment's defaults.

        Returns:
            `job_id`, `message`, and `config` with all values in force.

        Raises:
            UnknownFieldError: POST /train has no such field.
            ApiError: it cannot be trained.
        """
        check_fields(fields, TrainFields)
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        return await self._transport.call(
            TrainReply, "POST", "/train", json=fields, headers=headers, repeatable=True
        )

    @Operation
    async def train_model(
        self,
        model_name: str,
        env_name: str = "CartPole-v1",
        timesteps: int | None = None,
        *,
        on_progress: Callable[[Job], object] | None = None,
        progress_bar: bool = False,
        **fields: Unpack[TrainSettings],
    ) -> Job:
        """Train to the end.

        Args:
            model_name: receives the version.
            env_name: Gymnasium id of the environment.
            timesteps: budget in environment steps, 5,000 when left out; or say
                `total_timesteps`, as the API does.
            on_progress: called with the status, twice a second.
            progress_bar: draw one on stderr, or in the notebook.
            **fields: further fields of POST /train.

        Returns:
            The job's last status; look at its `status`.

        Raises:
            TypeError: the budget is given under both names.
            UnknownFieldError: POST /train has no such field.
            ApiError: it cannot be trained.
        """
        if timesteps is not None and "total_timesteps" in fields:
            raise TypeError("Give the budget as timesteps or as total_timesteps, not as both.")
        budget = _DEFAULT_TIMESTEPS if timesteps is None else timesteps
        settings: TrainSettings = {"total_timesteps": budget, **fields}
        accepted = await self.start_training(model_name=model_name, env_name=env_name, **settings)
        return await self.wait(
            accepted["job_id"], on_progress=on_progress, progress_bar=progress_bar
        )

    @Operation
    async def wait(
        self,
        job_id: str,
        *,
        on_progress: Callable[[Job], object] | None = None,
        progress_bar: bool = False,
        timeout_seconds: float | None = None,
    ) -> Job:
        """Wait until a job is completed, failed or stopped.

        Args:
            job_id: of the job.
            on_progress: called with the status, twice a second.
            progress_bar: draw one on stderr, or in the notebook.
            timeout_seconds: how long to wait; None has no limit.

        Raises:
            TimeoutError: it is not, after `timeout_seconds`.
            ApiError: there is no such job.
            ConnectionError: no server answers; a restart of it, up to a minute, is waited for.
        """
        return await until_ended(
            self._transport,
            lambda: self.job(job_id),
            f"Job {job_id}",
            on_progress,
            timeout_seconds,
            line_of_job if progress_bar else None,
        )

    @Operation
    async def job(self, job_id: str) -> Job:
        """A job's status."""
        return await self._transport.call(Job, "GET", f"/training/{part(job_id)}/status")

    @Operation
    async def config(self, job_id: str) -> JobConfig:
        """What a job trains with.

        Returns:
            `config` with all values in force; `preset`, what the environment's preset gives, where
            that differs; and `threshold`, the return that counts as solved.
        """
        return await self._transport.call(JobConfig, "GET", f"/training/{part(job_id)}/config")

    @Iteration
    async def iter_jobs(self, **filters: Unpack[JobFilters]) -> AsyncGenerator[Job, None]:
        """All jobs, newest first.

        Args:
            **filters: `status`, `env_name`, `model_name`.

        Raises:
            UnknownFieldError: there is no such filter.
        """
        check_fields(filters, JobFilters)
        query = cast(dict[str, str | None], filters)
        async for job in self._transport.pages(Job, "/training/jobs", "jobs", query):
            yield job

    @Operation
    async def jobs(self, **filters: Unpack[JobFilters]) -> "pandas.DataFrame":
        """All jobs as a table, newest first; one column `metrics.<key>` for each metric.

        Args:
            **filters: as `iter_jobs`.
        """
        import pandas

        rows = [cast(dict[str, Any], job) async for job in self.iter_jobs(**filters)]
        return pandas.json_normalize(rows, max_level=1)

    @Iteration
    async def events(self, job_id: str) -> AsyncGenerator[Event, None]:
        """What a job does, as it happens, from its start on; the last event is its `end`.

        Each has its name as `event`, and as `data` what docs/api.md says of GET
        /training/{job_id}/events: `metrics` has a `step` and its metrics, `progress` and `end` have
        the job's status. A connection that breaks is made anew, and nothing is told twice.

        Raises:
            ApiError: there is no such job.
            ConnectionError: no server answers; a restart of it, up to a minute, is waited for.
        """
        path, seen, answered = f"/training/{part(job_id)}/events", None, None
        while True:
            try:
                async for told in self._transport.events(path, seen):
                    answered = time.monotonic()
                    seen = told.id or seen
                    if (event := event_of(told)) is not None:
                        yield event
                        if event["event"] == "end":
                            return
            except (ApiError, ConnectionError, ServerTimeoutError) as error:
                refused = isinstance(error, ApiError) and error.status != UNAVAILABLE
                if refused or answered is None or time.monotonic() - answered > AWAY_SECONDS:
                    raise
            await self._transport.sleep(_COME_BACK_SECONDS)

    @Operation
    async def stop(self, job_id: str) -> StoppedJob:
        """Stop a job; its checkpoint is kept."""
        return await self._transport.call(StoppedJob, "POST", f"/training/{part(job_id)}/stop")

    @Operation
    async def resume(self, job_id: str) -> ResumedJob:
        """Take a stopped or failed job up again."""
        return await self._transport.call(ResumedJob, "POST", f"/training/{part(job_id)}/resume")

    @Operation
    async def delete_job(self, job_id: str) -> DeletedJob:
        """Delete a finished job; its model stays."""
        return await self._transport.call(DeletedJob, "DELETE", f"/training/{part(job_id)}")

    @Operation
    async def history(
        self, job_id: str, key: str = "rollout/ep_rew_mean", max_points: int = 1000
    ) -> "pandas.DataFrame":
        """History of a metric: columns `value` and `timestamp`, index `step`.

        `client.history(job_id)["value"].plot()` draws it.
        """
        import pandas

        query: dict[str, str | int | None] = {"key": key, "max_points": max_points}
        path = f"/training/{part(job_id)}/metrics"
        found = await self._transport.call(MetricHistory, "GET", path, params=query)
        table = pandas.DataFrame(found["points"], columns=["step", "value", "timestamp"])
        table = table.set_index("step")
        table["timestamp"] = pandas.to_datetime(table["timestamp"], utc=True, format="ISO8601")
        return table

    @Operation
    async def logs(self, job_id: str, tail: int = 200) -> list[str]:
        """The last lines of a job's log."""
        path = f"/training/{part(job_id)}/logs"
        reply = await self._transport.call(JobLogs, "GET", path, params={"tail": tail})
        return reply["lines"]
