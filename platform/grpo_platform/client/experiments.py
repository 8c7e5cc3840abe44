"""Calls about experiments: one configuration, trained with several seeds."""

import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Unpack, cast

from grpo_platform.client.calls import Calls, part, until_ended
from grpo_platform.client.fields import ExperimentFields, check_fields
from grpo_platform.client.replies import JobFilters

if TYPE_CHECKING:
    import pandas

__all__ = ["ExperimentCalls"]


class ExperimentCalls(Calls):
    """Start, watch, stop, resume, retry and delete experiments."""

    def start_experiment(
        self,
        seeds: int | Sequence[int],
        *,
        idempotency_key: str | None = None,
        **fields: Unpack[ExperimentFields],
    ) -> dict[str, Any]:
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
        return self._transport.call("POST", "/train", json=body, headers=headers, repeatable=True)

    def experiment(self, experiment_id: str, *, threshold: float | None = None) -> dict[str, Any]:
        """An experiment with its seeds and what they came to together.

        Args:
            experiment_id: of the experiment.
            threshold: return that counts as solved; the environment's own when left out.
        """
        path = f"/experiments/{part(experiment_id)}"
        query = {"threshold": None if threshold is None else repr(float(threshold))}
        return self._transport.call("GET", path, params=query)

    def wait_for_experiment(
        self,
        experiment_id: str,
        *,
        on_progress: Callable[[dict[str, Any]], None] | None = None,
        timeout_seconds: float | None = None,
    ) -> dict[str, Any]:
        """Wait until an experiment is completed, failed or stopped.

        Raises:
            TimeoutError: it is not, after `timeout_seconds`.
            ApiError: there is no such experiment.
            ConnectionError: as `wait`.
        """
        return until_ended(
            lambda: self.experiment(experiment_id),
            f"Experiment {experiment_id}",
            on_progress,
            timeout_seconds,
        )

    def iter_experiments(self, **filters: Unpack[JobFilters]) -> Iterator[dict[str, Any]]:
        """All experiments, newest first, without their seeds.

        Args:
            **filters: `status`, `env_name`, `model_name`.

        Raises:
            UnknownFieldError: there is no such filter.
        """
        check_fields(filters, JobFilters)
        query = cast(dict[str, str | None], filters)
        return self._transport.pages("/experiments", "experiments", query)

    def experiments(self, **filters: Unpack[JobFilters]) -> "pandas.DataFrame":
        """All experiments as a table, newest first.

        Args:
            **filters: as `iter_experiments`.
        """
        import pandas

        return pandas.json_normalize(list(self.iter_experiments(**filters)), max_level=1)

    def experiment_seeds(
        self, experiment_id: str, *, threshold: float | None = None
    ) -> "pandas.DataFrame":
        """What each seed of an experiment came to, as a table with the index `seed`."""
        import pandas

        seeds = self.experiment(experiment_id, threshold=threshold)["seeds"]
        return pandas.json_normalize(seeds, max_level=1).set_index("seed")

    def experiment_history(
        self, experiment_id: str, key: str = "rollout/ep_rew_mean", points: int = 100
    ) -> "pandas.DataFrame":
        """A metric over all seeds of an experiment, at common steps.

        Returns:
            Columns `iqm`, `ci_low`, `ci_high` and `seeds` (how many reach the step), index `step`.
        """
        import pandas

        query: dict[str, str | int | None] = {"key": key, "points": points}
        path = f"/experiments/{part(experiment_id)}/history"
        found = self._transport.call("GET", path, params=query)["points"]
        columns = ["step", "iqm", "ci_low", "ci_high", "seeds"]
        return pandas.DataFrame(found, columns=columns).set_index("step")

    def stop_experiment(self, experiment_id: str) -> dict[str, Any]:
        """Stop an experiment with its waiting and running seeds; it can be resumed."""
        return self._transport.call("POST", f"/experiments/{part(experiment_id)}/stop")

    def resume_experiment(self, experiment_id: str) -> dict[str, Any]:
        """Take a stopped experiment up again, with its stopped and failed seeds."""
        return self._transport.call("POST", f"/experiments/{part(experiment_id)}/resume")

    def retry_experiment(self, experiment_id: str) -> dict[str, Any]:
        """Train the failed seeds of an experiment again."""
        return self._transport.call("POST", f"/experiments/{part(experiment_id)}/retry")

    def delete_experiment(self, experiment_id: str) -> dict[str, Any]:
        """Delete a finished experiment with its seeds' jobs; the models stay."""
        return self._transport.call("DELETE", f"/experiments/{part(experiment_id)}")
