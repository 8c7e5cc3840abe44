"""Calls about the worst episodes of a job."""

from collections.abc import Sequence
from typing import Any

from grpo_platform.client.calls import Calls, part

__all__ = ["FailureCalls"]


class FailureCalls(Calls):
    """See where a policy fails."""

    def failures(self, job_id: str) -> dict[str, Any]:
        """The worst episodes of a completed job's evaluation; `notes` say why there are none."""
        return self._transport.call("GET", f"/training/{part(job_id)}/failures")

    def film(self, job_id: str, failure: int | None = None) -> bytes:
        """A film (MP4): greedy episodes of a completed job, or one of its worst.

        Args:
            job_id: the job.
            failure: its number, from 1; None is the film of greedy episodes.

        Raises:
            ApiError: there is no such film.
        """
        of = "" if failure is None else f"/failures/{failure}"
        return self._transport.content(f"/training/{part(job_id)}{of}/film", {})

    def failure_to_scenario(
        self,
        job_id: str,
        number: int,
        *,
        scenario: str | None = None,
        assertions: Sequence[str] = (),
    ) -> dict[str, Any]:
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
        return self._transport.call("POST", path, json=body)
