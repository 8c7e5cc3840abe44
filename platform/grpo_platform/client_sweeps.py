"""The sweep calls of the Python client."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from grpo_platform.transport import Transport
from grpo_platform.waiting import until_ended

if TYPE_CHECKING:
    import pandas

__all__ = ["SweepCalls"]


class SweepCalls:
    """Sweeps: start, watch, stop, resume."""

    _transport: Transport

    def start_sweep(
        self, search_space: Mapping[str, object], n_trials: int = 20, **fields: object
    ) -> dict[str, Any]:
        """Queue a sweep.

        Args:
            search_space: by field of POST /train, what it varies over.
            n_trials: jobs that are tried.
            **fields: further fields of POST /sweeps.

        Returns:
            `sweep_id`, `message`.

        Raises:
            ApiError: the space is impossible, or cannot be trained.
        """
        body = {**fields, "search_space": dict(search_space), "n_trials": n_trials}
        return self._transport.call("POST", "/sweeps", json=body)

    def sweep(self, sweep_id: str) -> dict[str, Any]:
        """A sweep with its trials and the best of them."""
        return self._transport.call("GET", f"/sweeps/{quote(sweep_id, safe='')}")

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
        return self._transport.call("POST", f"/sweeps/{quote(sweep_id, safe='')}/stop")

    def resume_sweep(self, sweep_id: str) -> dict[str, Any]:
        """Take a stopped or failed sweep up again."""
        return self._transport.call("POST", f"/sweeps/{quote(sweep_id, safe='')}/resume")
