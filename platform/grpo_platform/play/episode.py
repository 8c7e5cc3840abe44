"""An episode that is played step by step, wound back, disturbed, and gone on with from anywhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from zlib import crc32

import numpy as np
import numpy.typing as npt

from grpo.envs import EnvironmentSpec, Snapshot
from grpo.envs.rendering import make_drawn
from grpo.errors import GRPOError, IncompatibleError, in_words
from grpo.policies import BasePolicy
from grpo.policies.spec import Prediction
from grpo.scenarios.environment import put_state, state_of

__all__ = ["Episode", "Taken"]

Array = npt.NDArray[Any]

_MEMBER: Final = np.array([0])
_MOST_SNAPSHOTS: Final = 512
"""Beyond, every second one goes: a step between two is reached by playing on from the first."""

_MOST_STEPS: Final = 10_000


class Taken(NamedTuple):
    """A step that was taken."""

    action: Array
    """As the environment takes it."""

    by: str
    """`policy` or `human`."""

    reward: float
    gained: float
    """Sum of the rewards from the start to this one."""

    terminated: bool
    truncated: bool


@dataclass(slots=True)
class _State:
    """Where an episode was."""

    snapshot: Snapshot
    memory: npt.NDArray[np.float32]
    """What a policy with memory remembers before it sees this state, shape (1, n_state)."""


class Episode:
    """One episode of one instance.

    Args:
        spec: the environment.
        seed: of the reset.
        number: of the episode, from 1.

    Attributes:
        seed: of the reset.
        number: of the episode.
        step: steps from the start to where it is now.
        taken: steps that are known, also beyond `step` where it was wound back.
        disturbed: steps before which the state was set by hand.

    Raises:
        ConfigError: the environment cannot be made.
        EnvironmentFaultError: it raised.
    """

    def __init__(self, spec: EnvironmentSpec, seed: int = 0, number: int = 1) -> None:
        self.spec = spec
        self.envs = make_drawn(spec)
        self._asked: tuple[object, ...] = ()
        self._answer: Prediction
        self.can_branch = self.envs.branching != "none"
        self.why_not_branched = "" if self.can_branch else self.envs.branching_reason
        self.begin(seed, number)

    def begin(self, seed: int, number: int) -> None:
        """Start anew, with a reset.

        Raises:
            EnvironmentFaultError: the environment raised.
        """
        self.seed, self.number, self.step = seed, number, 0
        self.taken: list[Taken] = []
        self.disturbed: list[int] = []
        self._states: dict[int, _State] = {}
        self._stride = 1
        self._memory = np.zeros((1, 0), np.float32)
        self.envs.reset(_MEMBER, [seed])
        self._keep()

    def close(self) -> None:
        """Let the instance go."""
        self.envs.close()

    @property
    def observation(self) -> Array:
        """What is observed now, shape `observation_shape`."""
        return self.envs.observation_of(0)

    @property
    def is_over(self) -> bool:
        """Whether no step can be taken from here."""
        last = self.taken[self.step - 1] if self.step else None
        ended = last is not None and (last.terminated or last.truncated)
        return ended or self.step >= _MOST_STEPS

    @property
    def state(self) -> dict[str, float | list[float]]:
        """The environment's variables by name; empty where they have none."""
        return state_of(self.envs.envs[0].unwrapped)

    def mark(self, policy: BasePolicy | None) -> str:
        """What the present state is known by among all that were played here.

        A policy's memory is part of it.
        """
        rows = self.observation if policy is None else self._rows(policy)
        return f"{self.number}-{self.seed}-{self.step}-{crc32(rows.tobytes()):08x}"

    def predict(self, policy: BasePolicy, deterministic: bool) -> tuple[Array, Prediction]:
        """What a policy makes of the present state; equal states are answered alike.

        The last answer is kept: a step is shown with what the next one does.

        Returns:
            The observation as the policy reads it, shape (1, *shape), and its answer.
        """
        rows, at = self._rows(policy), [self.seed, self.number, self.step]
        asked = (policy, deterministic, *at, rows.tobytes())
        if asked != self._asked:
            self._answer = policy.predict(rows, deterministic, np.random.default_rng(at))
            self._asked = asked
        return rows, self._answer

    def remembered(self, policy: BasePolicy) -> npt.NDArray[np.float32] | None:
        """What a policy with memory remembers before the present state; None without memory."""
        return self._memory_of(policy)[0] if policy.spec.reads.n_state else None

    def take(self, action: Array, by: str, policy: BasePolicy | None) -> Taken:
        """Take a step; what was known beyond it is forgotten.

        Args:
            action: as the environment takes it.
            by: `policy` or `human`.
            policy: that remembers the state, if it can.

        Raises:
            EnvironmentFaultError: the environment raised.
        """
        del self.taken[self.step :]
        self._states = {step: each for step, each in self._states.items() if step <= self.step}
        self.disturbed = [step for step in self.disturbed if step <= self.step]
        if policy is not None and policy.spec.reads.n_state:
            self._memory = policy.next_states(self._rows(policy))
        self._play(action, by)
        self._keep()
        return self.taken[-1]

    def seek(self, step: int, policy: BasePolicy | None) -> None:
        """Wind to a step that is known, exactly.

        Raises:
            IncompatibleError: it is not known, or the environment cannot be branched.
            EnvironmentFaultError: the environment raised.
        """
        if not 0 <= step <= len(self.taken):
            raise IncompatibleError(
                f"The episode has steps 0 to {len(self.taken)} so far, no {step}.", field="step"
            )
        if step == self.step:
            return
        self.require_branching()
        nearest = max(each for each in self._states if each <= step)
        self._restore(self._states[nearest])
        self.step = nearest
        for taken in self.taken[nearest:step]:
            if policy is not None and policy.spec.reads.n_state:
                self._memory = policy.next_states(self._rows(policy))
            self.envs.step(_MEMBER, np.asarray(taken.action)[None])
            self.step += 1

    def put(self, state: Mapping[str, Any]) -> None:
        """Set variables of the state; what was known beyond is forgotten.

        Raises:
            IncompatibleError: the environment has no such variables, or is wrapped.
        """
        self.require_branching()
        if self.spec.deviations or not self.state:
            why = ", ".join(self.spec.deviations) or "its variables have no names here"
            raise IncompatibleError(
                f"The state of {self.spec.env_name} cannot be set: {why}.", field="state"
            )
        env, before = self.envs.envs[0], self.envs.snapshot(0)
        try:
            row = self.spec.row(env, put_state(env.unwrapped, state), {})
            if not np.isfinite(row).all():
                raise ValueError("it is not finite")
        except GRPOError:
            self.envs.restore(_MEMBER, before)
            raise
        except Exception as error:
            self.envs.restore(_MEMBER, before)
            raise IncompatibleError(
                f"The state cannot be set so: {in_words(error)}.", field="state"
            ) from error
        self.envs.restore(_MEMBER, {**self.envs.snapshot(0), "observation": row})
        del self.taken[self.step :]
        self._states = {step: each for step, each in self._states.items() if step < self.step}
        self.disturbed = [step for step in self.disturbed if step < self.step] + [self.step]
        self._keep(pinned=True)

    def snapshot(self) -> Snapshot:
        """The present state, for another instance.

        Raises:
            IncompatibleError: the environment cannot be branched.
        """
        self.require_branching()
        return self.envs.snapshot(0)

    def fork(self) -> "Episode":
        """Another instance in the present state, with the same past.

        Raises:
            IncompatibleError: the environment cannot be branched.
        """
        snapshot = self.snapshot()
        other = Episode(self.spec, self.seed, self.number)
        other.step, other.taken = self.step, self.taken[: self.step]
        other.disturbed = list(self.disturbed)
        other._states = {step: each for step, each in self._states.items() if step <= self.step}
        other._stride = self._stride
        other._restore(_State(snapshot, self._memory))
        return other

    def require_branching(self) -> None:
        """Refuse what only a state that can be reached again allows.

        Raises:
            IncompatibleError: this one cannot be.
        """
        if not self.can_branch:
            raise IncompatibleError(
                f"{self.spec.env_name} cannot be put into a visited state exactly. "
                f"{self.why_not_branched}"
            )

    def _play(self, action: Array, by: str) -> None:
        result = self.envs.step(_MEMBER, np.asarray(action)[None])
        reward = float(result.rewards[0])
        gained = reward + (self.taken[-1].gained if self.taken else 0.0)
        self.taken.append(
            Taken(
                np.array(action), by, reward, gained, bool(result.terminated[0]),
                bool(result.truncated[0]),
            )
        )  # fmt: skip
        self.step += 1

    def _rows(self, policy: BasePolicy) -> Array:
        rows = self.observation[None].copy()
        if not policy.spec.reads.n_state:
            return rows
        return policy.spec.reads.with_states(rows, self._memory_of(policy))

    def _memory_of(self, policy: BasePolicy) -> npt.NDArray[np.float32]:
        n_state = policy.spec.reads.n_state
        if self._memory.shape[1] != n_state:
            self._memory = np.zeros((1, n_state), np.float32)
        return self._memory

    def _keep(self, *, pinned: bool = False) -> None:
        if not self.can_branch or (self.step % self._stride and not pinned):
            return
        try:
            snapshot = self.envs.snapshot(0)
        except IncompatibleError as error:  # what draws it holds what cannot be copied
            self.can_branch, self.why_not_branched = False, str(error)
            return
        self._states[self.step] = _State(snapshot, self._memory)
        if len(self._states) > _MOST_SNAPSHOTS:
            self._stride *= 2
            self._states = {
                step: each
                for step, each in self._states.items()
                if step % self._stride == 0 or step in self.disturbed
            }

    def _restore(self, state: _State) -> None:
        self.envs.restore(_MEMBER, state.snapshot)
        self._memory = state.memory
