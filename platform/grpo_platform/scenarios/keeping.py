"""The suite of a model's name: put, shown, taken away; run by a version, and its results."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from grpo.scenarios.results import FailedEpisode, SuiteResult
from grpo.scenarios.suite import Suite
from grpo_platform.core.errors import NotFoundError
from grpo_platform.registry.comparison import Contender
from grpo_platform.registry.gate import SUITE_SECONDS, PlaySuite, keep_result
from grpo_platform.registry.models import Registry
from grpo_platform.registry.records import environment_tagged
from grpo_platform.registry.suites import ResultRecord, SuiteLog, SuiteRecord
from grpo_platform.scenarios.files import dump_suite, parse_text
from grpo_platform.scenarios.grammar import parse_suite
from grpo_platform.serving.suites import replay_files

__all__ = ["CheckSuite", "KeptSuite", "Replayed", "Scenarios", "VersionResult", "replay_failures"]

CheckSuite = Callable[[Suite, str, Mapping[str, Any]], None]
"""What `grpo.scenarios.playing.check_suite` does, wherever."""


class KeptSuite(NamedTuple):
    """A suite that a name has."""

    record: SuiteRecord
    suite: Suite
    source: str
    """The text that it was written as."""


class VersionResult(NamedTuple):
    """What a version came to."""

    record: ResultRecord
    result: SuiteResult


class Replayed(NamedTuple):
    """A failed episode, and what it is when it is played again."""

    assertion: str
    then: FailedEpisode
    now: FailedEpisode | None
    """None where the assertion holds this time."""

    @property
    def is_same(self) -> bool:
        """Whether every observation, reward and action is equal to the last bit."""
        return self.then == self.now


class Scenarios:
    """What is done with suites, for every face. Safe to call from several threads.

    Args:
        registry: has the models.
        check: tries a suite on an environment; a server's own does so elsewhere than in itself.
        play: puts a policy through a suite, likewise.
    """

    def __init__(self, registry: Registry, check: CheckSuite, play: PlaySuite) -> None:
        self._registry = registry
        self._check = check
        self._play = play

    def put(self, name: str, given: str | Mapping[str, Any], actor: str) -> KeptSuite:
        """Make a suite the name's, in the place of the one before.

        Args:
            name: of the model.
            given: YAML or JSON text, or the values that it holds.
            actor: who does it.

        Raises:
            UnknownModelError: no such model.
            InvalidRequestError: it is no suite.
            grpo.ConfigError: the model's environment cannot be put through it.
            grpo.EnvironmentFaultError: the environment raised.
        """
        model = self._registry.model(name)
        is_text = isinstance(given, str)
        suite = parse_text(given) if isinstance(given, str) else parse_suite(dict(given))
        environment = environment_tagged(model)
        self._check(suite, environment.env_name, environment.env_kwargs)
        source = str(given) if is_text else dump_suite(suite)
        return KeptSuite(self._log(name).put(suite, source, actor), suite, source)

    def show(self, name: str) -> KeptSuite:
        """The name's suite.

        Raises:
            UnknownModelError: no such model.
            NotFoundError: it has none.
            StoreError: it cannot be read, or was changed.
        """
        log = self._log(name)
        record = log.present()
        if record is None:
            raise _no_suite(name)
        return KeptSuite(record, *log.read(record))

    def remove(self, name: str, actor: str) -> None:
        """Take the name's suite away; results stay.

        Raises:
            UnknownModelError: no such model.
            NotFoundError: it has no suite.
        """
        log = self._log(name)
        if log.present() is None:
            raise _no_suite(name)
        log.remove(actor)

    def run(self, reference: str, actor: str) -> VersionResult:
        """Put a version through its name's suite, and keep what comes out.

        Args:
            reference: `name`, `name@alias` or `name/version`.
            actor: for whom.

        Raises:
            UnknownModelError: no such version.
            NotFoundError: the name has no suite.
            UnsafeModelError: the version's files are not what was registered.
            grpo.GRPOError: it cannot be played.
        """
        ref = self._registry.resolve(reference)
        suite = self.show(ref.name).suite
        candidate = Contender(self._registry, ref.name, ref.version)
        found = self._play(
            candidate.files,
            ref.label,
            candidate.card.env_name,
            env_kwargs=candidate.card.env_kwargs,
            suite=suite,
            seconds=SUITE_SECONDS,
        )
        record = keep_result(self._registry, self._log(ref.name), candidate, found, actor)
        return VersionResult(record, found)

    def results(self, name: str, version: int) -> tuple[ResultRecord, ...]:
        """Of a version, oldest first.

        Raises:
            UnknownModelError: no such model or version.
        """
        log = self._log(name)
        self._registry.version(name, version)
        return log.results(version)

    def result(self, name: str, record: ResultRecord) -> VersionResult:
        """All figures of a result.

        Raises:
            UnknownModelError: no such model.
            StoreError: they are gone, or damaged.
        """
        return VersionResult(record, self._log(name).result(record))

    def _log(self, name: str) -> SuiteLog:
        return self._registry.suites(self._registry.model(name))


def replay_failures(
    registry: Registry, reference: str, scenario: str | None = None, episode: int | None = None
) -> list[Replayed]:
    """Play what failed in a version's latest result again, in this process.

    Args:
        registry: has the version.
        reference: `name`, `name@alias` or `name/version`.
        scenario: only of this one.
        episode: only this one of it.

    Raises:
        UnknownModelError: no such version.
        NotFoundError: it has no result, or none of its failures is that.
        StoreError: the result, or its suite, cannot be read.
        UnsafeModelError: the version's files are not what was registered.
        grpo.GRPOError: it cannot be played.
    """
    ref = registry.resolve(reference)
    log = registry.suites(registry.model(ref.name))
    results = log.results(ref.version)
    if not results:
        raise NotFoundError(
            f"{ref.label} has not been put through a suite; `grpo-platform scenarios run "
            f"{ref.label}` does."
        )
    if results[-1].passed:
        raise NotFoundError(f"Nothing failed in the latest result of {ref.label}.")
    puts = [each for each in log.history() if each.digest == results[-1].digest]
    if not puts:
        raise NotFoundError(f"The suite of the latest result of {ref.label} is not kept.")
    suite, _ = log.read(puts[-1])
    failures = [
        (assertion.text, failure)
        for result in log.result(results[-1]).scenarios
        for assertion in result.assertions
        for failure in assertion.failures
        if scenario in (None, failure.scenario) and episode in (None, failure.episode)
    ]
    if not failures:
        raise NotFoundError(f"No such episode failed in the latest result of {ref.label}.")
    candidate = Contender(registry, ref.name, ref.version)
    again: dict[tuple[str, int], dict[str, FailedEpisode]] = {}
    for _, failure in failures:
        key = (failure.scenario, failure.episode)
        if key not in again:
            again[key] = replay_files(
                candidate.files,
                ref.label,
                candidate.card.env_name,
                env_kwargs=candidate.card.env_kwargs,
                suite=suite,
                scenario=failure.scenario,
                episode=failure.episode,
            )
    return [
        Replayed(text, then, again[then.scenario, then.episode].get(text))
        for text, then in failures
    ]


def _no_suite(name: str) -> NotFoundError:
    return NotFoundError(
        f"The model {name!r} has no suite of scenarios; PUT /models/{name}/scenarios gives it one."
    )
