"""Calls about scenarios."""

from collections.abc import Mapping
from typing import Any, Final

from grpo_platform.client.calls import Calls, part

__all__ = ["SUITE_SECONDS", "ScenarioCalls"]

SUITE_SECONDS: Final = 660.0
"""How long a call that may put a version through a suite is waited for."""


class ScenarioCalls(Calls):
    """What a model's versions must pass, and what they came to."""

    def scenarios(self, name: str) -> dict[str, Any]:
        """A model's suite.

        Raises:
            ApiError: no such model, or it has none.
        """
        return self._transport.call("GET", f"/models/{part(name)}/scenarios")

    def put_scenarios(self, name: str, suite: str | Mapping[str, object]) -> dict[str, Any]:
        """Give a model a suite, in the place of the one before.

        Args:
            name: of the model.
            suite: a text in YAML or JSON, or the values that it holds.

        Raises:
            ApiError: it is no suite, or the model's environment cannot be put through it.
        """
        body = {"suite": suite if isinstance(suite, str) else dict(suite)}
        path = f"/models/{part(name)}/scenarios"
        return self._transport.call("PUT", path, json=body, repeatable=True)

    def delete_scenarios(self, name: str) -> dict[str, Any]:
        """Take a model's suite away; what versions came to stays."""
        return self._transport.call("DELETE", f"/models/{part(name)}/scenarios")

    def run_scenarios(
        self, name: str, *, version: int | None = None, alias: str | None = None
    ) -> dict[str, Any]:
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
        return self._transport.call("POST", path, json=body, timeout_seconds=SUITE_SECONDS)

    def scenario_results(self, name: str, version: int) -> dict[str, Any]:
        """What a version came to: `results`, newest first, and the `latest` with all figures."""
        return self._transport.call("GET", f"/models/{part(name)}/versions/{version}/scenarios")
