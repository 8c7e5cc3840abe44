"""Every hyperparameter of a training run, documented and validated in one place."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from grpo.advantages import ADVANTAGES
from grpo.errors import IncompatibleError, OutOfRangeError
from grpo.fields import Bound, OneOf, check_fields, fields_of
from grpo.policies import POLICIES

__all__ = ["BOUNDS", "DEVICES", "LEARNING_RATE_SCHEDULES", "START_STATES", "GRPOConfig"]

LEARNING_RATE_SCHEDULES = ("constant", "cooldown", "linear")
START_STATES = ("branch", "branch_worst", "reset")
DEVICES = ("auto", "cpu", "cuda")

_SHAPED_REWARDS = {"CartPole-v1": "optimized_cartpole"}
_MAX_LAYERS = 8
_MAX_WIDTH = 4_096


@dataclass(frozen=True, kw_only=True, slots=True)
class GRPOConfig:
    """What a run is trained with: the JSON front of `grpo.GRPO`. The defaults are CartPole's.

    For another environment `grpo.resolve_config` fills in its preset. A name like
    `<my_module.my_reward>` stands for an object that was handed in (`grpo.registry`).

    Raises:
        OutOfRangeError: a value of the wrong type or outside its range.
        UnknownNameError: an unknown `advantage`, `learning_rate_schedule`, `start_states` or
            `device`.
        IncompatibleError: values that do not go together.
    """

    env_name: str = "CartPole-v1"
    """Gymnasium id of the environment."""

    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of `gymnasium.make`; JSON values only."""

    reward_function_type: str = ""
    """Name of the reward that is trained on; evaluation always uses the environment's own. Left
    empty it becomes `optimized_cartpole` on CartPole-v1, `environment` elsewhere."""

    total_timesteps: Annotated[int, Bound(1, 1_000_000_000)] = 10_000
    """Budget in environment steps, branches included; never exceeded."""

    learning_rate: Annotated[float, Bound(0.0, 1.0, exclusive_low=True)] = 3e-4
    """Adam's step size, of the policy and of the value head."""

    learning_rate_schedule: Annotated[str, OneOf(LEARNING_RATE_SCHEDULES)] = "cooldown"
    """`linear` lowers the step size to 0 as the budget is used up, as RL Zoo's `lin_` does;
    `cooldown` only over the last three tenths of it (Hägele et al., arXiv 2405.18392)."""

    n_steps: Annotated[int, Bound(1, 1_000_000)] = 32
    """Longest segment, in steps, that a member runs in one iteration."""

    batch_size: Annotated[int, Bound(1, 1_000_000)] = 64
    """Minibatch size, in transitions."""

    n_epochs: Annotated[int, Bound(1, 1_000)] = 10
    """Passes over the transitions of an iteration."""

    seed: Annotated[int, Bound(0, 2**32 - 1)] = 0
    """Seeds every random generator of the run; equal seeds give equal bits."""

    gamma: Annotated[float, Bound(0.0, 1.0)] = 0.99
    """Discount per step."""

    num_groups: Annotated[int, Bound(1, 4_096)] = 1
    """Groups, each with a start state of its own, collected per iteration."""

    group_size: Annotated[int, Bound(2, 4_096)] = 2
    """Members that start from the same state and are compared with each other."""

    clip_range: Annotated[float, Bound(0.0, 10.0, exclusive_low=True)] = 0.3
    """ε of the clipped surrogate (PPO, arXiv 1707.06347)."""

    clip_range_high: Annotated[float | None, Bound(0.0, 10.0, exclusive_low=True)] = None
    """Upper ε where it differs from the lower one (clip-higher; DAPO, arXiv 2503.14476)."""

    ent_coef: Annotated[float, Bound(0.0, 100.0)] = 0.0
    """Weight of the entropy bonus."""

    kl_coef: Annotated[float, Bound(0.0, 100.0)] = 0.0
    """Weight of the k3 estimate of the divergence from the reference policy."""

    reference_iterations: Annotated[int, Bound(1, 1_000_000_000)] = 8
    """Iterations after which the present policy becomes the reference of the KL term."""

    max_grad_norm: Annotated[float, Bound(0.0, 1_000.0, exclusive_low=True)] = 0.5
    """Largest norm of the policy's gradient; longer ones are scaled down."""

    advantage: str = "loo_time"
    """Named group-relative advantage, one of `grpo.advantages.ADVANTAGES`."""

    policy: str = "MlpPolicy"
    """Name of the policy's class, one of `grpo.policies.POLICIES`."""

    policy_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """What the policy is built with beside `net_arch`; JSON values, classes by name."""

    start_states: Annotated[str, OneOf(START_STATES)] = "branch"
    """Where groups start: `branch` goes on from where a random survivor came to, `branch_worst`
    from where the one with the lowest return did, `reset` starts at a seeded reset."""

    branch_probability: Annotated[float, Bound(0.0, 1.0)] = 0.9
    """When branching: chance that a group goes on from a survivor's last state."""

    bootstrap: bool = False
    """Add γ^k V(s_end) to the return of a segment that was cut or truncated."""

    normalize_observations: bool = True
    """Standardise observations by their running mean and variance."""

    net_arch: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers, of the policy and of the value head."""

    eval_freq: Annotated[int, Bound(0, 1_000_000_000)] = 0
    """Evaluate each time this many timesteps have passed; 0 evaluates only at the end."""

    n_eval_episodes: Annotated[int, Bound(1, 10_000)] = 100
    """Episodes of an evaluation."""

    target_return: Annotated[float | None, Bound(-1e9, 1e9)] = None
    """Stop early once an evaluation's mean return reaches this; needs `eval_freq`."""

    device: Annotated[str, OneOf(DEVICES)] = "cpu"
    """`cpu`, `cuda`, or `auto` (CUDA where there is one)."""

    def __post_init__(self) -> None:
        """Validate every field, then those that depend on each other."""
        object.__setattr__(self, "env_kwargs", dict(self.env_kwargs))
        object.__setattr__(self, "policy_kwargs", dict(self.policy_kwargs))
        object.__setattr__(self, "net_arch", tuple(self.net_arch))
        check_fields(self)
        if not self.reward_function_type:
            reward = _SHAPED_REWARDS.get(self.env_name, "environment")
            object.__setattr__(self, "reward_function_type", reward)
        ADVANTAGES.check(self.advantage)
        POLICIES.check(self.policy)
        self._check_net_arch()
        if self.target_return is not None and self.eval_freq == 0:
            raise IncompatibleError(
                "target_return stops training when an evaluation reaches it: set eval_freq too.",
                field="target_return",
            )

    @property
    def clip_high(self) -> float:
        """Upper ε in force."""
        return self.clip_range if self.clip_range_high is None else self.clip_range_high

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON values; `GRPOConfig(**d)` gives the same config back."""
        values = {spec.name: getattr(self, spec.name) for spec in dataclasses.fields(self)}
        return values | {
            "env_kwargs": dict(self.env_kwargs),
            "policy_kwargs": dict(self.policy_kwargs),
            "net_arch": list(self.net_arch),
        }

    def _check_net_arch(self) -> None:
        widths = self.net_arch
        ok = len(widths) <= _MAX_LAYERS and all(
            isinstance(w, int) and not isinstance(w, bool) and 1 <= w <= _MAX_WIDTH for w in widths
        )
        if not ok:
            raise OutOfRangeError(
                f"net_arch must be at most {_MAX_LAYERS} widths from 1 to {_MAX_WIDTH}, "
                f"not {list(widths)!r}.",
                field="net_arch",
            )


BOUNDS: Mapping[str, Bound] = {
    name: found.bound for name, found in fields_of(GRPOConfig).items() if found.bound is not None
}
"""Range of each numeric field of `GRPOConfig`."""
