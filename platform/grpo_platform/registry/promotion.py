"""Which version serves a name: decided by evidence, one decision at a time, all of them kept.

A decision is first won in the name's log (compare-and-set) and then shown by the alias. Whoever
dies in between leaves a log that is one ahead of the alias; the next decider finishes that first.
"""

import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, NamedTuple

from mlflow.entities.model_registry import RegisteredModel

from grpo.errors import GRPOError
from grpo_platform.core.errors import ConflictError, NotFoundError, StoreError, UnsafeModelError
from grpo_platform.registry.card import canonical_json
from grpo_platform.registry.comparison import (
    COMPARISON_SEED,
    Contender,
    Evaluate,
    Evidence,
    Game,
    judge,
    play,
)
from grpo_platform.registry.decisions import DecisionLog, champions
from grpo_platform.registry.gate import Gate, PlaySuite, check_gate
from grpo_platform.registry.models import Registry
from grpo_platform.registry.names import CHAMPION, Tag
from grpo_platform.registry.policy_files import evaluate_files, predictor_from_files
from grpo_platform.registry.records import (
    Comparison,
    Decision,
    ModelVersionRef,
    champion_of,
    environment_tagged,
)
from grpo_platform.tracking.exceptions import error_code, is_missing, retrying

__all__ = ["Promoter"]

_ATTEMPTS: Final = 20  # at a decision that others keep overtaking
_MAX_ACTOR: Final = 200
_JOB_SECONDS: Final = 300.0  # that a job's comparison may go on for; nobody waits for an answer
_HAND_SECONDS: Final = 40.0  # less than clients and proxies wait


class _State(NamedTuple):
    """A name between two decisions."""

    model: RegisteredModel
    champion: int | None
    log: DecisionLog
    decisions: tuple[Decision, ...]


class _Verdict(NamedTuple):
    """What was found, before it is written down."""

    version: int
    wins: bool
    reason: str
    comparison: Comparison | None = None
    verdict: str | None = None
    gate: Gate | None = None


class Promoter:
    """Decides which version of a name is champion. Safe to call from several threads.

    Args:
        registry: has the versions.
        evaluate: plays those that are compared; a server's own does so elsewhere than in itself.
        play_suite: puts those through their name's suite; without it, a name with a suite keeps its
            champion.

    Attributes:
        registry: has the versions.
        evaluate: plays a policy.
    """

    def __init__(
        self,
        registry: Registry,
        evaluate: Evaluate = evaluate_files,
        play_suite: PlaySuite | None = None,
    ) -> None:
        self.registry = registry
        self.evaluate = evaluate
        self._play_suite = play_suite
        self._client = registry.client
        self._guard = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}

    def decide_after_training(
        self, ref: ModelVersionRef, rule: str, actor: str, note: str = "", asker: str = "job"
    ) -> Decision:
        """Whether a job's new version becomes champion; asked again, the same answer.

        Args:
            ref: the new version.
            rule: `if_better`, `always` or `never`.
            actor: who decides, such as the job's id.
            note: told before the reason, such as how the version was chosen.
            asker: what the rule was given to: a job, or an experiment.

        Raises:
            UnknownModelError: no such version.
        """
        version = ref.version
        candidate = Contender(self.registry, ref.name, version)

        def judge_new(state: _State, played: "_Games") -> _Verdict:
            if rule == "never":
                return _Verdict(version, False, f"The {asker} asked for no promotion.")
            if state.champion == version:
                return _Verdict(version, True, "It was champion already.")
            gate = check_gate(self._play_suite, state.model, candidate, actor)
            if state.champion is None:
                found = _first(candidate, forced=rule == "always")
            elif rule == "always":
                asked = f"The {asker} asked for promotion whatever its result."
                found = _Verdict(version, True, asked)
            elif gate.lets_pass:
                found = self._try_to_compare(state, candidate, state.champion, played, _JOB_SECONDS)
            else:
                found = _Verdict(version, False, "")
            return _gated(found, gate, forced=rule == "always")

        return self._decide(ref.name, "train", rule, actor, judge_new, once=version, note=note)

    def promote(self, name: str, version: int, force: bool, actor: str, note: str = "") -> Decision:
        """Compare a version with the champion and promote it if it is better, or if forced.

        Args:
            name: of the model.
            version: that shall serve.
            force: promote it whatever the comparison says.
            actor: who decides.
            note: why, in the actor's words; told before the reason.

        Raises:
            UnknownModelError: no such version.
            ConflictError: it is champion already, or belongs to another environment.
            UnsafeModelError: its files are not what was registered.
            GRPOError: the environment cannot be evaluated here, and `force` was not given.
        """
        candidate = Contender(self.registry, name, version)

        def judge_by_hand(state: _State, played: "_Games") -> _Verdict:
            candidate.check_environment(environment_tagged(state.model))
            predictor_from_files(candidate.files, f"{name}/{version}")  # it must be servable
            if state.champion == version:
                raise ConflictError(f"Version {version} of {name!r} is the champion already.")
            gate = check_gate(self._play_suite, state.model, candidate, actor)
            if state.champion is None:
                found = _first(candidate, forced=force)
            elif force:
                found = self._try_to_compare(
                    state, candidate, state.champion, played, _HAND_SECONDS
                )
                found = found._replace(wins=True, reason=f"Forced. {found.reason}")
            elif gate.lets_pass:
                found = self._compare(state, candidate, state.champion, played, _HAND_SECONDS)
            else:
                found = _Verdict(version, False, "")
            return _gated(found, gate, forced=force)

        rule = "always" if force else "if_better"
        return self._decide(name, "promote", rule, actor, judge_by_hand, forced=force, note=note)

    def rollback(self, name: str, actor: str, note: str = "") -> Decision:
        """Give the name back to the champion before the present one.

        No suite is asked for: it was champion before, and what goes wrong now is worse. `note` says
        why, in the actor's words; it is told before the reason.

        Raises:
            UnknownModelError: no such model.
            ConflictError: there was none before, or its version was deleted.
        """

        def look_back(state: _State, played: "_Games") -> _Verdict:
            line = champions(state.decisions)
            if line and line[-1] == state.champion:
                line.pop()
            existing = {int(v.version) for v in self.registry.versions(name)}
            target = next((v for v in reversed(line) if v in existing), None)
            if target is None or state.champion is None:
                raise ConflictError(
                    f"{name!r} has no earlier champion to go back to. GET /models/{name} lists "
                    "its versions; promote one of them instead."
                )
            reason = f"Rolled back from version {state.champion} to version {target}."
            return _Verdict(target, True, reason, verdict="rolled_back")

        return self._decide(name, "rollback", "rollback", actor, look_back, note=note)

    def _decide(
        self,
        name: str,
        action: str,
        rule: str,
        actor: str,
        find: Callable[[_State, "_Games"], _Verdict],
        *,
        forced: bool = False,
        once: int | None = None,
        note: str = "",
    ) -> Decision:
        """Find a verdict and write it down, again and again until nobody was faster.

        `once`: the version that this action is decided about only once. `note`: told first.
        """
        played: _Games = {}
        self.registry.model(name)  # names that do not exist get no lock, which would stay
        with self._lock(name):
            for _ in range(_ATTEMPTS):
                state = self._settled(name)
                for earlier in state.decisions:
                    if once is not None and (earlier.action, earlier.version) == (action, once):
                        self.registry.changed(name)  # it may have been finished just now
                        return earlier
                found = find(state, played)
                decision = Decision(
                    number=len(state.decisions) + 1,
                    action=action,
                    version=found.version,
                    rule=rule,
                    verdict=found.verdict or ("promoted" if found.wins else "kept"),
                    reason=f"{note} {found.reason}".strip()[:1000],
                    note=note[:1000],
                    champion_before=state.champion,
                    champion_after=found.version if found.wins else state.champion,
                    forced=forced,
                    actor=actor[:_MAX_ACTOR],
                    decided_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
                    comparison=found.comparison,
                    suite_digest=found.gate and found.gate.digest,
                    suite_passed=found.gate and found.gate.passed,
                )
                if state.log.append(decision):
                    for evidence in played.values():
                        state.log.attach(decision.number, evidence.episodes)
                    self._settled(name)
                    self.registry.changed(name)
                    return decision
        raise ConflictError(f"Others keep deciding about {name!r}; try again.")

    def _lock(self, name: str) -> threading.Lock:
        with self._guard:
            return self._locks.setdefault(name, threading.Lock())

    def _settled(self, name: str) -> _State:
        """The name, once the alias shows the outcome of the last decision in the log.

        Two deciders may apply different decisions at once, and the older one may write last:
        so whoever wrote looks again, until what it sees is what was decided last.
        """
        wrote = False
        for _ in range(_ATTEMPTS):
            model = self.registry.model(name)
            log = self.registry.log(model)
            decisions = log.read()
            applied = _applied(model)
            ahead = bool(decisions) and decisions[-1].number > applied
            if not ahead and not (wrote and _contradicts(model, decisions)):
                return _State(model, champion_of(model), log, decisions)
            self._apply(model, decisions, applied)
            log.describe(decisions)
            wrote = True
        raise ConflictError(f"Others keep changing {name!r}; try again.")

    def _apply(self, model: RegisteredModel, decisions: tuple[Decision, ...], applied: int) -> None:
        """Set alias and tags; two deciders may do this at once, and it may be done twice."""
        last = decisions[-1]
        for decision in decisions:
            if decision.number > applied:
                self._tag_version(model.name, decision)
        if last.champion_after is not None and _contradicts(model, decisions):
            self._set_champion(model.name, last.champion_after)
        _writing(
            lambda: self._client.set_registered_model_tag(model.name, Tag.APPLIED, str(last.number))
        )

    def _set_champion(self, name: str, version: int) -> None:
        try:
            found = self.registry.version(name, version)
        except NotFoundError:  # deleted in the MLflow UI just now: nothing to show
            return
        card = canonical_json({"version": version, "mean": found.tags.get(Tag.EVAL_MEAN)})
        _writing(lambda: self._client.set_registered_model_alias(name, CHAMPION, str(version)))
        _writing(lambda: self._client.set_registered_model_tag(name, Tag.CHAMPION_CARD, card))

    def _tag_version(self, name: str, decision: Decision) -> None:
        verdict = f"{decision.verdict} (forced)" if decision.forced else decision.verdict
        number = str(decision.version)
        try:
            _writing(lambda: self._client.set_model_version_tag(name, number, Tag.VERDICT, verdict))
        except StoreError as error:
            if not is_missing(error):
                raise

    def _try_to_compare(
        self, state: _State, candidate: Contender, champion: int, played: "_Games", seconds: float
    ) -> _Verdict:
        try:
            return self._compare(state, candidate, champion, played, seconds)
        except (GRPOError, UnsafeModelError, NotFoundError) as error:
            reason = f"It could not be compared with version {champion}: {error}"
            return _Verdict(candidate.number, False, reason)

    def _compare(
        self, state: _State, candidate: Contender, champion: int, played: "_Games", seconds: float
    ) -> _Verdict:
        comparison = _known(state.decisions, candidate.number, champion)
        if comparison is None:
            if champion not in played:
                played.clear()
                incumbent = Contender(self.registry, candidate.name, champion)
                game = Game(COMPARISON_SEED + len(state.decisions) + 1, seconds, self.evaluate)
                played[champion] = play(candidate, incumbent, game)
            comparison = played[champion].comparison
        wins, reason = judge(comparison)
        return _Verdict(candidate.number, wins, reason, comparison)


def _first(candidate: Contender, *, forced: bool) -> _Verdict:
    """The verdict on a version of a name without champion: it must have learned something."""
    baselines = candidate.card.baselines
    if forced or baselines is None or baselines.better:
        return _Verdict(candidate.number, True, "The name had no champion.")
    reason = (
        f"{baselines.sentence} So it does not become the name's first champion; the name serves "
        "its latest version meanwhile. Try more total_timesteps, another learning_rate or "
        "reward_function_type, or promote it by force."
    )
    return _Verdict(candidate.number, False, reason)


def _gated(found: _Verdict, gate: Gate, *, forced: bool) -> _Verdict:
    """The verdict of who must pass a suite first, unless promoted whatever happens."""
    if gate.digest is None:
        return found
    is_overruled = forced and not gate.passed and not found.reason.startswith("Forced")
    reason = f"{gate.reason} {'Forced. ' * is_overruled}{found.reason}".strip()
    return found._replace(wins=found.wins and (gate.passed or forced), reason=reason, gate=gate)


_Games = dict[int, Evidence]
"""What was played for the decision at hand, by the champion's version."""


def _applied(model: RegisteredModel) -> int:
    """Number of the last decision that the alias shows; 0, all are applied again, if unreadable."""
    text = model.tags.get(Tag.APPLIED, "")
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else 0


def _contradicts(model: RegisteredModel, decisions: tuple[Decision, ...]) -> bool:
    """Whether the last decision moved the champion elsewhere than where the alias is."""
    last = decisions[-1]
    moved = last.champion_after not in (None, last.champion_before)
    return moved and champion_of(model) != last.champion_after


def _writing(call: Callable[[], object]) -> None:
    """Set an alias or a tag. Two deciders who insert the same one at once: one is refused."""
    for attempt in range(_ATTEMPTS):
        try:
            retrying(call)
            return
        except StoreError as error:
            if error_code(error) != "BAD_REQUEST" or attempt == _ATTEMPTS - 1:
                raise


def _known(decisions: tuple[Decision, ...], version: int, champion: int) -> Comparison | None:
    """What was found when the same two were compared before.

    They are not compared again: whoever asks often enough would be promoted by chance.
    """
    for decision in decisions:
        known = decision.comparison
        if known and known.ended and (decision.version, known.champion) == (version, champion):
            return known
    return None
