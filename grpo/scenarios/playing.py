"""Play a suite with a policy, and judge it: greedy, seeded, and repeatable to the last bit.

Episodes are played in lots of `MEMBERS`, episode i always in row i modulo `MEMBERS` of the batch
that the policy answers, since a product's last bits depend on both.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from grpo.envs import EnvironmentSpec, check_environment
from grpo.errors import ConfigError, EnvironmentFaultError, IncompatibleError
from grpo.evaluation import LEAST_STEPS, STEP_LIMIT, Predictor, evaluation_seeds
from grpo.policies import Memory
from grpo.registry import Objects
from grpo.scenarios.assertions import Assertion
from grpo.scenarios.environment import Stage, column_of, noise_columns, perturbed
from grpo.scenarios.results import (
    AssertionResult,
    FailedEpisode,
    Latency,
    ScenarioResult,
    SuiteResult,
    latency_result,
    mean_result,
    share_result,
)
from grpo.scenarios.suite import Scenario, Start, Suite

__all__ = ["MEMBERS", "MOST_FAILURES", "Answer", "check_suite", "play_suite", "replay"]

MEMBERS: Final = 16
"""Episodes that are played side by side."""

MOST_FAILURES: Final = 3
"""Episodes that are kept of an assertion that failed: the first ones."""

_WARM: Final = 50
_TIMED: Final = 1_000
_TIMED_SECONDS: Final = 5.0
_ROWS_TIMED: Final = 64

Answer = Callable[[npt.NDArray[Any]], Callable[[], object]]
"""Given an observation, a row as the environment shows it, what answers it where models are served:
the time of that call is measured."""

Array = npt.NDArray[Any]


@dataclass(slots=True)
class _Episode:
    """One that is played."""

    number: int
    seed: int
    noise: np.random.Generator
    chosen: list[Array] = field(default_factory=list)
    taken: list[Array] = field(default_factory=list)
    features: list[Array] = field(default_factory=list)
    total: float = 0.0
    ended: bool = False
    trace: Any = field(default_factory=hashlib.sha256)

    def observe(self, row: Array, columns: Sequence[int]) -> None:
        self.features.append(row.ravel()[columns].astype(np.float64))
        self.trace.update(row.tobytes())


def check_suite(
    suite: Suite, env_name: str, env_kwargs: dict[str, Any], objects: Objects | None = None
) -> None:
    """Refuse a suite that an environment cannot be put through; every start state is tried.

    Raises:
        ConfigError: it cannot; the field is the place, such as `scenarios[2].assert[0]`.
        EnvironmentFaultError: it raised.
    """
    spec = check_environment(env_name, env_kwargs, objects)
    for i, scenario in enumerate(suite.scenarios):
        place = f"scenarios[{i}]"
        game = _Game(spec, scenario, place, 1, objects)
        try:
            for number in range(max(1, len(scenario.starts))):
                game.stage.begin(0, number, 0)
        finally:
            game.close()


def play_suite(
    policy: Predictor,
    suite: Suite,
    env_name: str,
    env_kwargs: dict[str, Any],
    *,
    answer: Answer | None = None,
    seconds: float = 600.0,
    objects: Objects | None = None,
) -> SuiteResult:
    """Play every scenario, and judge each of its assertions.

    Args:
        policy: what acts.
        suite: what it must pass.
        env_name: the environment that it was trained in.
        env_kwargs: keyword arguments of it.
        answer: what is timed; the policy itself where left out.
        seconds: how long all of it may take.
        objects: environments that were handed in.

    Raises:
        ConfigError: as `check_suite`.
        EnvironmentFaultError: the environment raised, or the time is over.
    """
    begun = time.monotonic()
    spec = check_environment(env_name, env_kwargs, objects)
    results = []
    for i, scenario in enumerate(suite.scenarios):
        members = min(MEMBERS, scenario.episodes)
        game = _Game(spec, scenario, f"scenarios[{i}]", members, objects)
        try:
            results.append(_play(policy, game, answer, begun + seconds))
        except EnvironmentFaultError as error:
            raise EnvironmentFaultError(f"Scenario {scenario.name!r}: {error}") from error
        finally:
            game.close()
    return SuiteResult(
        digest=suite.digest,
        scenarios=tuple(results),
        seconds=round(time.monotonic() - begun, 3),
    )


def replay(
    policy: Predictor,
    suite: Suite,
    name: str,
    number: int,
    env_name: str,
    env_kwargs: dict[str, Any],
    *,
    objects: Objects | None = None,
) -> dict[str, FailedEpisode]:
    """Play one episode of a scenario again.

    Args:
        policy: that played it.
        suite: has the scenario.
        name: of the scenario.
        number: of the episode in it.
        env_name: the environment that the policy was trained in.
        env_kwargs: keyword arguments of it.
        objects: environments that were handed in.

    Returns:
        By the text of each assertion about episodes that does not hold in it, the failure.

    Raises:
        ConfigError: there is no such scenario or episode; or as `check_suite`.
        EnvironmentFaultError: the environment raised.
    """
    found = [(i, each) for i, each in enumerate(suite.scenarios) if each.name == name]
    if not found or not 0 <= number < found[0][1].episodes:
        raise IncompatibleError(f"The suite has no episode {number} of a scenario {name!r}.")
    ((index, scenario),) = found
    spec = check_environment(env_name, env_kwargs, objects)
    game = _Game(spec, scenario, f"scenarios[{index}]", number % MEMBERS + 1, objects)
    try:
        lot = game.lot(number - number % MEMBERS, only=number)
        game.play(policy, lot, float("inf"))
        (episode,) = lot.values()
        failures = {a.text: game.failure(a, episode) for a in game.about_episodes}
        return {text: failure for text, failure in failures.items() if failure is not None}
    finally:
        game.close()


def _play(
    policy: Predictor, game: "_Game", answer: Answer | None, deadline: float
) -> ScenarioResult:
    begun = time.monotonic()
    scenario = game.scenario
    values: dict[str, list[float]] = {"return": [], "length": []}
    misses: dict[str, list[FailedEpisode]] = {a.text: [] for a in game.about_episodes}
    counts = dict.fromkeys(misses, 0)
    for first in range(0, scenario.episodes, MEMBERS):
        lot = game.lot(first)
        game.play(policy, lot, deadline)
        for episode in sorted(lot.values(), key=lambda each: each.number):
            values["return"].append(episode.total)
            values["length"].append(float(len(episode.taken)))
            for assertion in game.about_episodes:
                failure = game.failure(assertion, episode)
                counts[assertion.text] += failure is not None
                kept = misses[assertion.text]
                if failure is not None and len(kept) < MOST_FAILURES:
                    kept.append(failure)
    latency = game.time(answer or game.policy_answer(policy)) if game.is_timed else None
    results: list[AssertionResult] = []
    for assertion in scenario.assertions:
        if assertion.subject == "latency" and latency is not None:
            results.append(latency_result(assertion, latency))
        elif assertion.statistic == "mean":
            figures, failed = values[assertion.subject], misses[assertion.text]
            results.append(mean_result(assertion, figures, failed))
        else:
            held = scenario.episodes - counts[assertion.text]
            results.append(share_result(assertion, held, scenario.episodes, misses[assertion.text]))
    return ScenarioResult(
        name=scenario.name,
        episodes=scenario.episodes,
        mean_return=float(np.mean(values["return"])),
        mean_length=float(np.mean(values["length"])),
        seconds=round(time.monotonic() - begun, 3),
        assertions=tuple(results),
    )


class _Game:
    """A scenario that is played.

    Args:
        spec: the environment that the policy was trained in.
        scenario: what is played.
        place: of it in the suite, for messages.
        members: instances of the environment; a batch has `MEMBERS` rows all the same.
        objects: environments that were handed in.

    Raises:
        ConfigError: the environment cannot be put through it.
    """

    def __init__(
        self,
        spec: EnvironmentSpec,
        scenario: Scenario,
        place: str,
        members: int,
        objects: Objects | None,
    ) -> None:
        self.scenario = scenario
        self.spec = perturbed(spec, scenario, place, objects)
        self._noise = noise_columns(self.spec, scenario, place)
        self._columns: dict[str, int] = {}
        for i, assertion in enumerate(scenario.assertions):
            if assertion.feature is not None:
                column = column_of(self.spec, assertion.feature, f"{place}.assert[{i}]")
                self._columns[assertion.text] = column
        if scenario.action_delay and self.spec.masks != "none":
            where = f"{place}.perturb.action_delay"
            raise IncompatibleError(
                f"{where}: {spec.env_name} says which actions may be taken, and a late one may be "
                "forbidden by then; leave it out.",
                field=where,
            )
        self._seeds = evaluation_seeds(scenario.episodes, scenario.seed)
        limits = (scenario.max_steps, self.spec.max_episode_steps)
        given = [limit for limit in limits if limit is not None]
        self._limit = min([*(given or [LEAST_STEPS]), STEP_LIMIT])
        self._seen: list[Array] = []
        try:
            self.stage = Stage(self.spec, scenario, place, members)
        except ConfigError as error:
            if (error.field or "").startswith(place):
                raise
            raise IncompatibleError(f"{place}: {error}", field=place) from error

    def close(self) -> None:
        self.stage.close()

    @property
    def about_episodes(self) -> list[Assertion]:
        """The assertions that hold in an episode, or do not."""
        return [each for each in self.scenario.assertions if each.subject != "latency"]

    @property
    def is_timed(self) -> bool:
        return any(each.subject == "latency" for each in self.scenario.assertions)

    def lot(self, first: int, only: int | None = None) -> dict[int, _Episode]:
        """Episodes that are played side by side, by the member that plays each."""
        last = min(first + MEMBERS, self.scenario.episodes)
        return {
            number - first: _Episode(
                number,
                int(self._seeds[number]),
                np.random.default_rng([self.scenario.seed, number, 1]),
            )
            for number in range(first, last)
            if only in (None, number)
        }

    def play(self, policy: Predictor, lot: dict[int, _Episode], deadline: float) -> None:
        """Play a lot to the end of each of its episodes."""
        envs, columns = self.stage.envs, [*self._columns.values()]
        for member, episode in lot.items():
            self.stage.begin(member, episode.number, episode.seed)
            start = self._start(episode.number)
            episode.seed = episode.seed if start is None or start.seed is None else start.seed
            episode.observe(envs.observation_of(member), columns)
        memory, everyone = Memory(policy, MEMBERS), np.arange(MEMBERS)
        filler = next(iter(lot))
        while (playing := np.array([m for m, each in lot.items() if not each.ended], int)).size:
            if time.monotonic() > deadline:
                raise EnvironmentFaultError("it did not end in the time that there was for it")
            shown = self._shown(lot, filler)
            actions = np.asarray(policy.act(memory.rows(shown, everyone)))
            taken = np.stack([self._arriving(lot[m], actions[m]) for m in playing.tolist()])
            observations, rewards, terminated, truncated = envs.step(playing, taken)
            for i, member in enumerate(playing.tolist()):
                episode = lot[member]
                episode.taken.append(taken[i])
                episode.total += float(rewards[i])
                episode.observe(observations[i], columns)
                episode.trace.update(rewards[i].tobytes())
                over = len(episode.taken) >= self._limit
                episode.ended = bool(terminated[i] or truncated[i]) or over

    def failure(self, assertion: Assertion, episode: _Episode) -> FailedEpisode | None:
        """Where an assertion does not hold in an episode; None where it does."""
        steps = len(episode.taken)
        if assertion.feature is None:
            value = episode.total if assertion.subject == "return" else float(steps)
            if assertion.holds(value):
                return None
            step = steps
        else:
            column = [*self._columns].index(assertion.text)
            numbers = np.array(episode.features)[:, column]
            numbers = np.abs(numbers) if assertion.feature.absolute else numbers
            wrong = np.flatnonzero(~assertion.holds(numbers))
            if not wrong.size:
                return None
            step = int(wrong[0])
            value = float(numbers[step])
        starts = len(self.scenario.starts)
        return FailedEpisode(
            scenario=self.scenario.name,
            episode=episode.number,
            start=episode.number % starts if starts else None,
            seed=episode.seed,
            step=step,
            value=value,
            steps=steps,
            actions=np.array(episode.taken).tolist(),
            trace_sha256=episode.trace.hexdigest(),
        )

    def time(self, answer: Answer) -> Latency:
        """How long an answer takes, warm, on observations of the first episodes."""
        calls = [answer(row) for row in self._seen]
        for i in range(_WARM):
            calls[i % len(calls)]()
        begun, found = time.monotonic(), list[float]()
        while len(found) < _TIMED and (time.monotonic() - begun < _TIMED_SECONDS or not found):
            call = calls[len(found) % len(calls)]
            start = time.perf_counter()
            call()
            found.append(time.perf_counter() - start)
        median, p99 = np.quantile(found, (0.5, 0.99))
        return Latency(median=float(median), p99=float(p99), answers=len(found))

    def policy_answer(self, policy: Predictor) -> Answer:
        """The policy itself, as what is timed."""
        everyone = np.arange(1)
        return lambda row: lambda: policy.act(Memory(policy, 1).rows(row[None], everyone))

    def _shown(self, lot: dict[int, _Episode], filler: int) -> Array:
        """What the policy sees, a row for each of `MEMBERS`; where none plays, another's."""
        envs = self.stage.envs
        rows = np.stack(
            [envs.observation_of(member if member in lot else filler) for member in range(MEMBERS)]
        )
        if self._noise is not None:
            flat = rows.reshape(MEMBERS, -1)  # a view
            for member, episode in lot.items():
                if not episode.ended:
                    flat[member] += self._noise * episode.noise.standard_normal(flat.shape[1])
        if len(self._seen) < _ROWS_TIMED:
            self._seen += [rows[m].copy() for m, each in lot.items() if not each.ended]
        return rows

    def _arriving(self, episode: _Episode, chosen: Array) -> Array:
        """The action that the environment gets in this step."""
        episode.chosen.append(np.asarray(chosen))
        return episode.chosen[max(0, len(episode.chosen) - 1 - self.scenario.action_delay)]

    def _start(self, number: int) -> Start | None:
        starts = self.scenario.starts
        return starts[number % len(starts)] if starts else None
