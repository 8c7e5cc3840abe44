"""Members that are ordinary Gymnasium environments, one instance each, stepped in turn."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from grpo.envs.branching import Brancher
from grpo.envs.members import FloatArray, IntArray, MemberEnvs, Snapshot, StepResult
from grpo.envs.spec import EnvironmentSpec, fault, make_environment
from grpo.errors import EnvironmentFaultError, GRPOError
from grpo.spaces import DiscreteActions

__all__ = ["GymMembers"]


class GymMembers(MemberEnvs):
    """`num_members` instances, and the brancher that puts them into visited states.

    Args:
        spec: the environment.
        num_members: how many.
        brancher: of these members alone.
        afresh: make a new instance for each reset, where a used one does not start as a new one.

    Attributes:
        envs: the instances, by member.
    """

    def __init__(
        self, spec: EnvironmentSpec, num_members: int, brancher: Brancher, *, afresh: bool = False
    ) -> None:
        self.spec = spec
        self.num_members = num_members
        self.branching = brancher.branching
        self.storable_snapshots = brancher.storable
        self.steps_taken = 0
        self._brancher = brancher
        self._afresh = afresh
        self.envs = [make_environment(spec.env_name, spec.env_kwargs) for _ in range(num_members)]
        self._used = [False] * num_members
        action = spec.action
        start = action.start if isinstance(action, DiscreteActions) else 0
        self._action_start = np.array(start, dtype=self.envs[0].action_space.dtype)
        self._action_dtype = self.envs[0].action_space.dtype
        dtype = self.envs[0].observation_space.dtype or np.dtype(np.float64)
        self._observations: FloatArray = np.zeros(
            (num_members, *spec.observation_shape),
            dtype=dtype if np.issubdtype(dtype, np.floating) else np.float64,
        )

    def reset(self, members: IntArray, seeds: Sequence[int] | IntArray) -> FloatArray:
        """See `MemberEnvs.reset`."""
        for member, seed in zip(members.tolist(), seeds, strict=True):
            self.reset_one(member, int(seed))
        return self._observations[members]

    def step(self, members: IntArray, actions: npt.NDArray[Any]) -> StepResult:
        """See `MemberEnvs.step`."""
        n = len(members)
        rewards = np.empty(n)
        terminated = np.empty(n, dtype=np.bool_)
        truncated = np.empty(n, dtype=np.bool_)
        taken = actions.astype(self._action_dtype, copy=False) + self._action_start
        for i, member in enumerate(members.tolist()):
            rewards[i], terminated[i], truncated[i] = self.step_one(member, taken[i])
        observations = self._observations[members]
        if not (np.isfinite(observations).all() and np.isfinite(rewards).all()):
            raise EnvironmentFaultError(
                f"{self.spec.env_name} returned an observation or a reward that is not finite."
            )
        return StepResult(observations, rewards, terminated, truncated)

    def snapshot(self, member: int) -> Snapshot:
        """See `MemberEnvs.snapshot`."""
        with self._faults("a snapshot"):
            state = self._brancher.snapshot(self, member)
        return {**state, "observation": self.observation_of(member).copy()}

    def restore(self, members: IntArray, snapshot: Snapshot) -> FloatArray:
        """See `MemberEnvs.restore`."""
        for member in members.tolist():
            with self._faults("a restore"):
                self._brancher.restore(self, member, snapshot)
            self._observations[member] = snapshot["observation"]
            self._used[member] = True
        return self._observations[members]

    def restore_cost(self, snapshot: Snapshot) -> int:
        """See `MemberEnvs.restore_cost`."""
        return self._brancher.cost(snapshot)

    def close(self) -> None:
        """See `MemberEnvs.close`."""
        while self.envs:
            self.envs.pop().close()

    def reset_one(self, member: int, seed: int) -> None:
        """Start an episode of one member.

        Raises:
            EnvironmentFaultError: the environment raised.
        """
        with self._faults("reset"):
            if self._afresh and self._used[member]:
                self.envs[member].close()
                self.envs[member] = make_environment(self.spec.env_name, self.spec.env_kwargs)
            self._used[member] = True
            observation, _ = self.envs[member].reset(seed=seed)
            self._observe(member, observation)
        self._brancher.on_reset(member, seed)

    def step_one(self, member: int, action: npt.NDArray[Any]) -> tuple[float, bool, bool]:
        """Step one member.

        Returns:
            Reward, terminated, truncated.

        Raises:
            EnvironmentFaultError: the environment raised.
        """
        self.steps_taken += 1
        try:
            observation, reward, terminated, truncated, _ = self.envs[member].step(action)
            self._observe(member, observation)
            result = float(reward), bool(terminated), bool(truncated)
        except Exception as error:
            raise fault(self.spec.env_name, "step", error) from error
        self._brancher.on_step(member, action)
        return result

    def observation_of(self, member: int) -> FloatArray:
        """What a member observed last, shape `observation_shape`; a view."""
        view: FloatArray = self._observations[member]
        return view

    def _observe(self, member: int, observation: npt.ArrayLike) -> None:
        # Explicitly, since an assignment would broadcast.
        if np.shape(observation) != self.spec.observation_shape:
            raise ValueError(
                f"an observation has shape {np.shape(observation)}, not "
                f"{self.spec.observation_shape} as its space says"
            )
        self._observations[member] = observation

    @contextlib.contextmanager
    def _faults(self, where: str) -> Iterator[None]:
        try:
            yield
        except GRPOError:
            raise
        except Exception as error:
            raise fault(self.spec.env_name, where, error) from error
