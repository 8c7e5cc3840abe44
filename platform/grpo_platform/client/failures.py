"""Calls about the worst episodes of a job."""

from collections.abc import Sequence

from grpo_platform.client.operations import Calls, Operation, part
from grpo_platform.client.replies import FailureList, FailureScenario

__all__ = ["FailureCalls"]


class FailureCalls(Calls):
    """See where a policy fails."""

    @Operation
    async def failures(self, job_id: str) -> FailureList:
        """The worst episodes of a completed job's evaluation; `notes` say why there are none."""
        return await self._transport.call(FailureList, "GET", f"/training/{part(job_id)}/failures")

    @Operation
    async def film(self, job_id: str, failure: int | None = None) -> bytes:
        """A film (MP4): greedy episodes of a completed job, or one of its worst.

        Args:
            job_id: the job.
            failure: its number, from 1; None is the film of greedy episodes.

        Raises:
            ApiError: there is no such film.
        """
        of = "" if failure is None else f"/failures/{failure}"
        return await self._transport.content("GET", f"/training/{part(job_id)}{of}/film")

    @Operation
    async def failure_to_scenario(
        self,
        job_id: str,
        number: int,
        *,
        scenario: str | None = None,
        assertions: Sequence[str] = (),
    ) -> FailureScenario:
        """Test the job's model on one of its failures from now on.

        Args:
            job_id: the job.
            number: of the failure, from 1.
            scenario: that gets the start state, and is made where there is none; one of its own by
                default.
            assertions: what must hold, where the scenario is made; by default, that the return
                from there on is higher than it was.

        Returns:
            `model_name`, `scenario`, and the model's whole `suite`.

        Raises:
            ApiError: there is no such failure, or what comes out is no suite.
        """
        body = {"scenario": scenario, "assertions": list(assertions)}
        path = f"/training/{part(job_id)}/failures/{number}/scenario"
        return await self._transport.call(FailureScenario, "POST", path, json=body)
