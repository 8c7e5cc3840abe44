"""Calls about experiments: one configuration, trained with several seeds."""

import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TYPE_CHECKING, Any, Unpack, cast

from grpo_platform.client.fields import ExperimentFields, JobFilters, check_fields
from grpo_platform.client.operations import Calls, Iteration, Operation, part
from grpo_platform.client.progress import line_of_experiment
from grpo_platform.client.replies import (
    DeletedExperiment,
    Experiment,
    ExperimentAnswer,
    ExperimentHistory,
    ExperimentReply,
    ExperimentSummary,
)
from grpo_platform.client.waiting import until_ended

if TYPE_CHECKING:
    import pandas

__all__ = ["ExperimentCalls"]


class ExperimentCalls(Calls):
    """Start, watch, stop, resume, retry and delete experiments."""

    @Operation
    async def start_experiment(
        self,
        seeds: int | Sequence[int],
        *,
        idempotency_key: str | None = None,
        **fields: Unpack[ExperimentFields],
    ) -> ExperimentReply:
        """Queue an experiment: a job for each seed.

        Args:
            seeds: how many, counted from `seed`, or which.
            idempotency_key: a second call with the same key gives the same experiment; drawn when
                left out.
            **fields: `register`, and further fields of POST /train; what is left out has the
                environment's defaults.

        Returns:
            `experiment_id`, `message`, `jobs`, and `config` with all values in force.

        Raises:
            UnknownFieldError: POST /train has no such field.
            ApiError: it cannot be trained, or the queue has no room for all seeds.
        """
        check_fields(fields, ExperimentFields)
        body = {**fields, "seeds": seeds if isinstance(seeds, int) else list(seeds)}
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        return await self._transport.call(
            ExperimentReply, "POST", "/train", json=body, headers=headers, repeatable=True
        )

    @Operation
    async def experiment(self, experiment_id: str, *, threshold: float | None = None) -> Experiment:
        """An experiment with its seeds and what they came to together.

        Args:
            experiment_id: of the experiment.
            threshold: return that counts as solved; the environment's own when left out.
        """
        path = f"/experiments/{part(experiment_id)}"
        query = {"threshold": None if threshold is None else repr(float(threshold))}
        return await self._transport.call(Experiment, "GET", path, params=query)

    @Operation
    async def wait_for_experiment(
        self,
        experiment_id: str,
        *,
        on_progress: Callable[[Experiment], object] | None = None,
        progress_bar: bool = False,
        timeout_seconds: float | None = None,
    ) -> Experiment:
        """Wait until an experiment is completed, failed or stopped.

        Raises:
            TimeoutError: it is not, after `timeout_seconds`.
            ApiError: there is no such experiment.
            ConnectionError: as `wait`.
        """
        return await until_ended(
            self._transport,
            lambda: self.experiment(experiment_id),
            f"Experiment {experiment_id}",
            on_progress,
            timeout_seconds,
            line_of_experiment if progress_bar else None,
        )

    @Iteration
    async def iter_experiments(
        self, **filters: Unpack[JobFilters]
    ) -> AsyncGenerator[ExperimentSummary, None]:
        """All experiments, newest first, without their seeds.

        Args:
            **filters: `status`, `env_name`, `model_name`.

        Raises:
            UnknownFieldError: there is no such filter.
        """
        check_fields(filters, JobFilters)
        query = cast(dict[str, str | None], filters)
        async for found in self._transport.pages(
            ExperimentSummary, "/experiments", "experiments", query
        ):
            yield found

    @Operation
    async def experiments(self, **filters: Unpack[JobFilters]) -> "pandas.DataFrame":
        """All experiments as a table, newest first.

        Args:
            **filters: as `iter_experiments`.
        """
        import pandas

        found = [cast(dict[str, Any], one) async for one in self.iter_experiments(**filters)]
        return pandas.json_normalize(found, max_level=1)

    @Operation
    async def experiment_seeds(
        self, experiment_id: str, *, threshold: float | None = None
    ) -> "pandas.DataFrame":
        """What each seed of an experiment came to, as a table with the index `seed`."""
        import pandas

        seeds = (await self.experiment(experiment_id, threshold=threshold))["seeds"]
        rows = cast(list[dict[str, Any]], seeds)
        return pandas.json_normalize(rows, max_level=1).set_index("seed")

    @Operation
    async def experiment_history(
        self, experiment_id: str, key: str = "rollout/ep_rew_mean", points: int = 100
    ) -> "pandas.DataFrame":
        """A metric over all seeds of an experiment, at common steps.

        Returns:
            Columns `iqm`, `ci_low`, `ci_high` and `seeds` (how many reach the step), index `step`.
        """
        import pandas

        query: dict[str, str | int | None] = {"key": key, "points": points}
        path = f"/experiments/{part(experiment_id)}/history"
        found = await self._transport.call(ExperimentHistory, "GET", path, params=query)
        columns = ["step", "iqm", "ci_low", "ci_high", "seeds"]
        return pandas.DataFrame(found["points"], columns=columns).set_index("step")

    @Operation
    async def stop_experiment(self, experiment_id: str) -> ExperimentAnswer:
        """Stop an experiment with its waiting and running seeds; it can be resumed."""
        return await self._transport.call(
            ExperimentAnswer, "POST", f"/experiments/{part(experiment_id)}/stop"
        )

    @Operation
    async def resume_experiment(self, experiment_id: str) -> ExperimentAnswer:
        """Take a stopped experiment up again, with its stopped and failed seeds."""
        return await self._transport.call(
            ExperimentAnswer, "POST", f"/experiments/{part(experiment_id)}/resume"
        )

    @Operation
    async def retry_experiment(self, experiment_id: str) -> ExperimentAnswer:
        """Train the failed seeds of an experiment again."""
        return await self._transport.call(
            ExperimentAnswer, "POST", f"/experiments/{part(experiment_id)}/retry"
        )

    @Operation
    async def delete_experiment(self, experiment_id: str) -> DeletedExperiment:
        """Delete a finished experiment with its seeds' jobs; the models stay."""
        return await self._transport.call(
            DeletedExperiment, "DELETE", f"/experiments/{part(experiment_id)}"
        )
