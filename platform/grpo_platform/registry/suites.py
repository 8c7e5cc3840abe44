"""Which suite a name's versions must pass, and what came of it: kept in the run of its decisions.

`scenarios.suite.<n>` says that a suite was put, or taken away; the suite itself is an artifact,
written before. `scenarios.result.<version>.<n>` says what a version came to; all figures, and the
episodes that failed, are an artifact too.
"""

import dataclasses
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from grpo.scenarios.results import SuiteResult
from grpo.scenarios.suite import Suite
from grpo_platform.core.errors import ConflictError, StoreError
from grpo_platform.registry.card import canonical_json
from grpo_platform.registry.ledger import RunLedger

__all__ = ["ResultRecord", "SuiteLog", "SuiteRecord"]

_SUITE: Final = "scenarios.suite."
_RESULT: Final = "scenarios.result."
_FOLDER: Final = "scenarios"
_ATTEMPTS: Final = 20
_MOST_NAMED: Final = 20
_MOST_ACTOR: Final = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class SuiteRecord:
    """One change of a name's suite."""

    number: int
    """Position in the history, from 1."""

    action: Literal["put", "delete"]
    """Whether there is a suite since."""

    digest: str
    """SHA-256 of the suite; empty where it was taken away."""

    scenarios: int
    """How many it has."""

    actor: str
    """Who did it."""

    put_at: str
    """ISO 8601, UTC."""

    artifact: str
    """Where the suite lies."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultRecord:
    """What a version came to in a suite."""

    number: int
    """Position among the version's results, from 1."""

    version: int
    """That was played."""

    digest: str
    """Of the suite."""

    passed: bool
    """Whether all scenarios passed."""

    failed: tuple[str, ...]
    """Names of the scenarios that did not, the first ones."""

    reason: str
    """A sentence with the figures of what failed."""

    seconds: float
    """That it took."""

    actor: str
    """Who had it played."""

    run_at: str
    """ISO 8601, UTC."""

    artifact: str
    """Where all figures and the failed episodes lie."""


class SuiteLog(RunLedger):
    """The suites of one name, and its versions' results."""

    def history(self) -> tuple[SuiteRecord, ...]:
        """All changes, oldest first."""
        return _suites(self.params())

    def present(self) -> SuiteRecord | None:
        """The suite that there is now."""
        return _present(self.history())

    def put(self, suite: Suite, source: str, actor: str) -> SuiteRecord:
        """Make a suite the name's; the same one again changes nothing but its source.

        Args:
            suite: that was checked.
            source: the text that it was written as.
            actor: who does it.

        Raises:
            ConflictError: others keep changing it.
        """
        name = f"suite-{suite.digest[:12]}-{uuid.uuid4().hex[:8]}.json"
        content: dict[str, object] = {"suite": suite.to_dict(), "source": source}
        path = self.store(name, content, _FOLDER)
        return self._append("put", suite.digest, len(suite.scenarios), actor, path)

    def remove(self, actor: str) -> SuiteRecord:
        """Take the suite away; it stays in the history.

        Raises:
            ConflictError: others keep changing it.
        """
        return self._append("delete", "", 0, actor, "")

    def read(self, record: SuiteRecord) -> tuple[Suite, str]:
        """A suite, and the text that it was written as.

        Raises:
            StoreError: it is gone, or is not what was put.
        """
        content = self.fetch(record.artifact)
        try:
            assert isinstance(content, dict)
            suite, source = Suite.from_dict(content["suite"]), str(content["source"])
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            raise StoreError(f"The suite in {record.artifact} is damaged; put it anew.") from error
        if suite.digest != record.digest:
            raise StoreError(f"The suite in {record.artifact} was changed; put it anew.")
        return suite, source

    def results(self, version: int) -> tuple[ResultRecord, ...]:
        """Of a version, oldest first."""
        return _results(self.params(), version)

    def look(self, version: int) -> tuple[SuiteRecord | None, ResultRecord | None]:
        """The suite that there is now, and the version's latest result in it, in one reading."""
        params = self.params()
        suite = _present(_suites(params))
        if suite is None:
            return None, None
        known = [each for each in _results(params, version) if each.digest == suite.digest]
        return suite, known[-1] if known else None

    def latest(self) -> dict[int, ResultRecord]:
        """By version, its latest result in the suite that there is now; empty without one."""
        params = self.params()
        suite = _present(_suites(params))
        if suite is None:
            return {}
        found = sorted(_stored(params, _RESULT), key=lambda each: each.number)
        return {each.version: each for each in found if each.digest == suite.digest}

    def add_result(self, version: int, result: SuiteResult, actor: str) -> ResultRecord:
        """Keep what a version came to.

        Raises:
            ConflictError: others keep adding.
        """
        name = f"version-{version}-{result.digest[:12]}-{uuid.uuid4().hex[:8]}.json"
        path = self.store(name, result.to_dict(), f"{_FOLDER}/results")
        for _ in range(_ATTEMPTS):
            record = ResultRecord(
                number=len(self.results(version)) + 1,
                version=version,
                digest=result.digest,
                passed=result.passed,
                failed=result.failed[:_MOST_NAMED],
                reason=result.in_words()[:1000],
                seconds=result.seconds,
                actor=actor[:_MOST_ACTOR],
                run_at=_now(),
                artifact=path,
            )
            if self.write(f"{_RESULT}{version}.{record.number:06d}", _text(record)):
                return record
        raise ConflictError("Others keep playing this version; try again.")

    def result(self, record: ResultRecord) -> SuiteResult:
        """All figures of a result.

        Raises:
            StoreError: they are gone, or damaged.
        """
        content: Any = self.fetch(record.artifact)
        try:
            return SuiteResult.from_dict(content)
        except (KeyError, TypeError) as error:
            raise StoreError(f"The result in {record.artifact} is damaged.") from error

    def _append(
        self, action: Literal["put", "delete"], digest: str, scenarios: int, actor: str, path: str
    ) -> SuiteRecord:
        for _ in range(_ATTEMPTS):
            record = SuiteRecord(
                number=len(self.history()) + 1,
                action=action,
                digest=digest,
                scenarios=scenarios,
                actor=actor[:_MOST_ACTOR],
                put_at=_now(),
                artifact=path,
            )
            if self.write(f"{_SUITE}{record.number:06d}", _text(record)):
                return record
        raise ConflictError("Others keep changing this suite; try again.")


def _suites(params: Mapping[str, str]) -> tuple[SuiteRecord, ...]:
    keys = sorted(key for key in params if key.startswith(_SUITE))
    return tuple(SuiteRecord(**json.loads(params[key])) for key in keys)


def _present(history: tuple[SuiteRecord, ...]) -> SuiteRecord | None:
    return history[-1] if history and history[-1].action == "put" else None


def _results(params: Mapping[str, str], version: int) -> tuple[ResultRecord, ...]:
    return _stored(params, f"{_RESULT}{version}.")


def _stored(params: Mapping[str, str], prefix: str) -> tuple[ResultRecord, ...]:
    keys = sorted(key for key in params if key.startswith(prefix))
    found = (json.loads(params[key]) for key in keys)
    return tuple(ResultRecord(**{**each, "failed": tuple(each["failed"])}) for each in found)


def _text(record: SuiteRecord | ResultRecord) -> str:
    return canonical_json(dataclasses.asdict(record))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
