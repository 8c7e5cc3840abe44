"""Calls about sweeps."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack, cast

from grpo_platform.client.fields import SweepFields, TrainFields, check_fields
from grpo_platform.client.operations import Calls, Iteration, Operation, part
from grpo_platform.client.progress import line_of_sweep
from grpo_platform.client.replies import Sweep, SweepAnswer, SweepSummary
from grpo_platform.client.waiting import until_ended

if TYPE_CHECKING:
    import pandas

__all__ = ["SweepCalls"]


class SweepCalls(Calls):
    """Start, watch, stop and resume sweeps."""

    @Operation
    async def start_sweep(
        self, search_space: Mapping[str, object], n_trials: int = 20, **fields: Unpack[SweepFields]
    ) -> SweepAnswer:
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
        return await self._transport.call(SweepAnswer, "POST", "/sweeps", json=body)

    @Operation
    async def sweep(self, sweep_id: str) -> Sweep:
        """A sweep with its trials and the best of them."""
        return await self._transport.call(Sweep, "GET", f"/sweeps/{part(sweep_id)}")

    @Operation
    async def wait_for_sweep(
        self,
        sweep_id: str,
        *,
        on_progress: Callable[[Sweep], object] | None = None,
        progress_bar: bool = False,
        timeout_seconds: float | None = None,
    ) -> Sweep:
        """Wait until a sweep is completed, failed or stopped.

        Raises:
            TimeoutError: it is not, after `timeout_seconds`.
            ApiError: there is no such sweep.
            ConnectionError: as `wait`.
        """
        return await until_ended(
            self._transport,
            lambda: self.sweep(sweep_id),
            f"Sweep {sweep_id}",
            on_progress,
            timeout_seconds,
            line_of_sweep if progress_bar else None,
        )

    @Iteration
    async def iter_sweeps(self) -> AsyncGenerator[SweepSummary, None]:
        """All sweeps, newest first, without their trials."""
        async for found in self._transport.pages(SweepSummary, "/sweeps", "sweeps", {}):
            yield found

    @Operation
    async def sweep_trials(self, sweep_id: str) -> "pandas.DataFrame":
        """A sweep's trials as a table; one column `params.<field>` for each searched field."""
        import pandas

        trials = (await self.sweep(sweep_id))["trials"]
        return pandas.json_normalize(cast(list[dict[str, Any]], trials), max_level=1)

    @Operation
    async def stop_sweep(self, sweep_id: str) -> SweepAnswer:
        """Stop a sweep and its running trials; it can be resumed."""
        return await self._transport.call(SweepAnswer, "POST", f"/sweeps/{part(sweep_id)}/stop")

    @Operation
    async def resume_sweep(self, sweep_id: str) -> SweepAnswer:
        """Take a stopped or failed sweep up again."""
        return await self._transport.call(SweepAnswer, "POST", f"/sweeps/{part(sweep_id)}/resume")
