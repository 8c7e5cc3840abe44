"""Members that are ordinary Gymnasium environments, one instance each, stepped in turn."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from grpo.envs.branching import Brancher
from grpo.envs.members import FloatArray, IntArray, MemberEnvs, Snapshot, StepResult
from grpo.envs.spec import EnvironmentSpec, fault, make_environment
from grpo.errors import GRPOError

__all__ = ["GymMembers"]


class GymMembers(MemberEnvs):
    """`num_members` instances, and the brancher that puts them into visited states."""

    def __init__(self, spec: EnvironmentSpec, num_members: int, brancher: Brancher) -> None:
        self.spec = spec
        self.num_members = num_members
        self.branching = brancher.branching
        self.storable_snapshots = brancher.storable
        self.steps_taken = 0
        self._brancher = brancher
        self._envs = [make_environment(spec.env_name, spec.env_kwargs) for _ in range(num_members)]
        self._action_dtype = self._envs[0].action_space.dtype
        self._dtype = self._envs[0].observation_space.dtype
        if not np.issubdtype(self._dtype, np.floating):
            self._dtype = np.dtype(np.float64)
        self._observations = np.zeros((num_members, *spec.observation_shape), dtype=self._dtype)

    def reset(self, members: IntArray, seeds: Sequence[int] | IntArray) -> FloatArray:
        """See `MemberEnvs.reset`."""
        for member, seed in zip(members.tolist(), seeds, strict=True):
            self._reset_one(member, int(seed))
        return self._observations[members]

    def step(self, members: IntArray, actions: npt.NDArray[Any]) -> StepResult:
        """See `MemberEnvs.step`."""
        n = len(members)
        rewards = np.empty(n)
        terminated = np.empty(n, dtype=np.bool_)
        truncated = np.empty(n, dtype=np.bool_)
        taken = actions.astype(self._action_dtype, copy=False)
        for i, member in enumerate(members.tolist()):
            rewards[i], terminated[i], truncated[i] = self._step_one(member, taken[i])
        return StepResult(self._observations[members], rewards, terminated, truncated)

    def snapshot(self, member: int) -> Snapshot:
        """See `MemberEnvs.snapshot`."""
        state = self._brancher.snapshot(self._envs[member], member)
        return {**state, "observation": self._observations[member].copy()}

    def restore(self, members: IntArray, snapshot: Snapshot) -> FloatArray:
        """See `MemberEnvs.restore`."""
        for member in members.tolist():
            try:
                steps = self._brancher.restore(self._envs[member], member, snapshot)
            except GRPOError:
                raise
            except Exception as error:
                raise fault(self.spec.env_name, "a restore", error) from error
            self.steps_taken += steps
            self._observations[member] = snapshot["observation"]
        return self._observations[members]

    def restore_cost(self, snapshot: Snapshot) -> int:
        """See `MemberEnvs.restore_cost`."""
        return self._brancher.cost(snapshot)

    def close(self) -> None:
        """See `MemberEnvs.close`."""
        while self._envs:
            self._envs.pop().close()

    def _reset_one(self, member: int, seed: int) -> None:
        env: gym.Env[Any, Any] = self._envs[member]
        try:
            observation, _ = env.reset(seed=seed)
            self._observations[member] = observation
        except Exception as error:
            raise fault(self.spec.env_name, "reset", error) from error
        self._brancher.on_reset(member, seed)

    def _step_one(self, member: int, action: npt.NDArray[Any]) -> tuple[float, bool, bool]:
        self.steps_taken += 1
        try:
            observation, reward, terminated, truncated, _ = self._envs[member].step(action)
            self._observations[member] = observation
            result = float(reward), bool(terminated), bool(truncated)
        except Exception as error:
            raise fault(self.spec.env_name, "step", error) from error
        self._brancher.on_step(member, action)
        return result
