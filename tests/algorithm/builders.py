"""Policies, batches and environments that several tests build."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from grpo import GRPO, GRPOConfig
from grpo.actions import (
    ActionSpec,
    BoxActions,
    DictActions,
    DiscreteActions,
    MultiDiscreteActions,
)
from grpo.network import Parameters
from grpo.policies import MlpPolicy, PolicySpec
from grpo.updates import Batch

DISCRETE = DiscreteActions(n=3)
BOX = BoxActions(shape=(2,), low=(-1.0, -2.0), high=(1.0, np.inf))
MULTI = MultiDiscreteActions(shape=(3,), nvec=(3, 2, 2), start=(0, 5, -1))
NESTED = DictActions(
    (
        (("gear",), DiscreteActions(n=3, start=-1)),
        (("arm", "force"), BOX),
        (("arm", "count"), BoxActions(shape=(1,), low=(0.0,), high=(9.0,), integer=True)),
        (("lights",), MultiDiscreteActions(shape=(2,), nvec=(2, 2), start=(0, 0))),
    )
)
CHOICES = DictActions(
    ((("a", 0), DiscreteActions(n=2, start=3)), (("a", 1), DiscreteActions(n=3)), (("b",), MULTI))
)
ACTIONS: dict[str, ActionSpec] = {
    "discrete": DISCRETE, "box": BOX, "multi": MULTI, "nested": NESTED, "choices": CHOICES
}  # fmt: skip


def make_policy(
    action: ActionSpec = DISCRETE,
    *,
    net_arch: tuple[int, ...] = (8, 5),
    seed: int = 0,
    dtype: npt.DTypeLike = np.float64,
) -> MlpPolicy:
    spec = PolicySpec(observation_shape=(4,), action=action, net_arch=net_arch)
    policy = MlpPolicy(spec, seed, dtype)
    # far from the near-uniform start, so that no term vanishes
    policy.flat += 0.3 * np.random.default_rng(seed).standard_normal(policy.flat.shape).astype(
        dtype
    )
    return policy


def make_batch(
    policy: MlpPolicy, n: int = 50, *, seed: int = 0, kl: bool = False, silent: float = 0.0
) -> Batch:
    """Transitions of a policy slightly different from `policy`, so that ratios differ from 1."""
    rng = np.random.default_rng(seed)
    dtype = policy.flat.dtype
    inputs = np.ones((5, n), dtype)
    inputs[:-1] = rng.standard_normal((4, n))
    actions = policy.head.sample(
        policy.forward_columns(inputs), policy.policy_parameters.log_std, rng
    )
    log_prob = policy.outputs(inputs).log_prob(actions)
    return Batch(
        inputs=inputs,
        actions=actions,
        log_prob_old=log_prob + 0.2 * rng.standard_normal(n).astype(dtype),
        log_prob_reference=log_prob + 0.3 * rng.standard_normal(n).astype(dtype) if kl else None,
        advantages=rng.standard_normal(n).astype(dtype),
        informative=rng.random(n) >= silent,
        alive=np.ones((n, 1), bool),
        targets=rng.standard_normal(n).astype(dtype),
    )


def assert_goes_on_as_if_never_paused(
    folder: Path, env: Any, again: Any = None, **fields: Any
) -> GRPO:
    """Train half, save, load and train the other half: bit for bit what one run does.

    Args:
        folder: for the file.
        env: of both runs.
        again: what `load` is given, where it is not the same.
        **fields: of both runs.

    Returns:
        The one that went on.
    """
    half = fields["total_timesteps"] // 2
    whole, halved = GRPO(env, **fields), GRPO(env, **fields)
    whole.learn(half)
    whole.learn(half, reset_num_timesteps=False)
    halved.learn(half)
    halved.save(folder / "half.npz")
    went_on = GRPO.load(folder / "half.npz", env if again is None else again)
    went_on.learn(half, reset_num_timesteps=False)
    np.testing.assert_array_equal(went_on.policy.flat, whole.policy.flat)
    return went_on


def short_config(**fields: Any) -> GRPOConfig:
    """CartPole, trained for a moment."""
    defaults = {
        "reward_function_type": "optimized_cartpole", "total_timesteps": 700, "n_steps": 16,
        "batch_size": 32, "n_epochs": 2, "n_eval_episodes": 2, "group_size": 4, "clip_range": 0.2,
    }  # fmt: skip
    return GRPOConfig(**{**defaults, **fields})


def copy_of(parameters: Parameters) -> Parameters:
    return Parameters(parameters.layout, parameters.flat.copy())


class CountingEnv(gymnasium.Wrapper):
    """Counts the calls of `step`, over all instances."""

    steps = 0

    def step(self, action: Any) -> Any:
        CountingEnv.steps += 1
        return super().step(action)
