"""Calls about scenarios."""

from collections.abc import Mapping
from typing import Final

from grpo_platform.client.operations import Calls, Operation, part
from grpo_platform.client.replies import DeletedSuite, Suite, SuiteResult, VersionResults

__all__ = ["SUITE_SECONDS", "ScenarioCalls"]

SUITE_SECONDS: Final = 660.0
"""How long a call that may put a version through a suite is waited for."""


class ScenarioCalls(Calls):
    """What a model's versions must pass, and what they came to."""

    @Operation
    async def scenarios(self, name: str) -> Suite:
        """A model's suite.

        Raises:
            ApiError: no such model, or it has none.
        """
        return await self._transport.call(Suite, "GET", f"/models/{part(name)}/scenarios")

    @Operation
    async def put_scenarios(self, name: str, suite: str | Mapping[str, object]) -> Suite:
        """Give a model a suite, in the place of the one before.

        Args:
            name: of the model.
            suite: a text in YAML or JSON, or the values that it holds.

        Raises:
            ApiError: it is no suite, or the model's environment cannot be put through it.
        """
        body = {"suite": suite if isinstance(suite, str) else dict(suite)}
        path = f"/models/{part(name)}/scenarios"
        return await self._transport.call(Suite, "PUT", path, json=body, repeatable=True)

    @Operation
    async def delete_scenarios(self, name: str) -> DeletedSuite:
        """Take a model's suite away; what versions came to stays."""
        return await self._transport.call(DeletedSuite, "DELETE", f"/models/{part(name)}/scenarios")

    @Operation
    async def run_scenarios(
        self, name: str, *, version: int | None = None, alias: str | None = None
    ) -> SuiteResult:
        """Put a version through its model's suite.

        Args:
            name: of the model.
            version: number; the version that serves the bare name when left out.
            alias: instead of a version.

        Returns:
            What it came to: `passed`, `reason`, and all figures by scenario and assertion.
        """
        body = {"version": version, "alias": alias}
        path = f"/models/{part(name)}/scenarios/run"
        return await self._transport.call(
            SuiteResult, "POST", path, json=body, timeout_seconds=SUITE_SECONDS
        )

    @Operation
    async def scenario_results(self, name: str, version: int) -> VersionResults:
        """What a version came to: `results`, newest first, and the `latest` with all figures."""
        return await self._transport.call(
            VersionResults, "GET", f"/models/{part(name)}/versions/{version}/scenarios"
        )
