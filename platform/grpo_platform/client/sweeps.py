"""Calls about sweeps."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from grpo_platform.client.calls import Calls, part, until_ended
from grpo_platform.client.fields import SweepFields, TrainFields, check_fields

if TYPE_CHECKING:
    import pandas

__all__ = ["SweepCalls"]


class SweepCalls(Calls):
    """Start, watch, stop and resume sweeps."""

    def start_sweep(
        self, search_space: Mapping[str, object], n_trials: int = 20, **fields: Unpack[SweepFields]
    ) -> dict[str, Any]:
        """Queue a sweep.

        Args:
            search_space: by field of POST /train, what it varies over.
            n_trials: trials, a job each, or with `seeds` a job a seed.
            **fields: further fields of POST /sweeps; `seeds` is how many, or which.

        Returns:
            `sweep_id`, `message`.

        Raises:
            UnknownFieldError: there is no such field, in the space, in `config` or of a sweep.
            ApiError: the space is impossible, or cannot be trained.
        """
        check_fields(fields, SweepFields)
        for inner in (search_space, fields.get("config", {})):
            check_fields(inner, TrainFields)
        body: dict[str, Any] = {**fields, "search_space": dict(search_space), "n_trials": n_trials}
        if isinstance(seeds := fields.get("seeds"), Sequence):
            body["seeds"] = list(seeds)
        return self._transport.call("POST", "/sweeps", json=body)

    def sweep(self, sweep_id: str) -> dict[str, Any]:
        """A sweep with its trials and the best of them."""
        return self._transport.call("GET", f"/sweeps/{part(sweep_id)}")

    def wait_for_sweep(
        self,
        sweep_id: str,
        *,
        on_progress: Callable[[dict[str, Any]], None] | None = None,
        timeout_seconds: float | None = None,
    ) -> dict[str, Any]:
        """Wait until a sweep is completed, failed or stopped.

        Raises:
            TimeoutError: it is not, after `timeout_seconds`.
            ApiError: there is no such sweep.
            ConnectionError: as `wait`.
        """
        return until_ended(
            lambda: self.sweep(sweep_id), f"Sweep {sweep_id}", on_progress, timeout_seconds
        )

    def iter_sweeps(self) -> Iterator[dict[str, Any]]:
        """All sweeps, newest first, without their trials."""
        return self._transport.pages("/sweeps", "sweeps", {})

    def sweep_trials(self, sweep_id: str) -> "pandas.DataFrame":
        """A sweep's trials as a table; one column `params.<field>` for each searched field."""
        import pandas

        return pandas.json_normalize(self.sweep(sweep_id)["trials"], max_level=1)

    def stop_sweep(self, sweep_id: str) -> dict[str, Any]:
        """Stop a sweep and its running trials; it can be resumed."""
        return self._transport.call("POST", f"/sweeps/{part(sweep_id)}/stop")

    def resume_sweep(self, sweep_id: str) -> dict[str, Any]:
        """Take a stopped or failed sweep up again."""
        return self._transport.call("POST", f"/sweeps/{part(sweep_id)}/resume")
