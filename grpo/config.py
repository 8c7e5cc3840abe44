"""Every hyperparameter of a training run, documented and validated in one place."""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from grpo.advantages import ADVANTAGES
from grpo.errors import IncompatibleError
from grpo.fields import Bound, Items, check_fields, fields_of
from grpo.policies import POLICIES

__all__ = [
    "AUTO",
    "PRESETS",
    "REWARD_PRESETS",
    "Device",
    "GRPOConfig",
    "general_preset",
    "resolve_config",
]

AUTO: Final = "auto"
"""As a policy's name: the one that fits what is observed."""

Device = Literal["auto", "cpu", "cuda"]

_SHAPED_REWARDS = {"CartPole-v1": "optimized_cartpole"}
_TIMESTEPS: Final = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class GRPOConfig:
    """What a run is trained with: the JSON front of `grpo.GRPO`. The defaults are CartPole's.

    For another environment `grpo.resolve_config` fills in its preset. A name like
    `<my_module.my_reward>` stands for an object that was handed in (`grpo.registry`).

    Raises:
        OutOfRangeError: a value of the wrong type or outside its range.
        UnknownNameError: an unknown `advantage`, `policy`, `learning_rate_schedule`,
            `start_states` or `device`.
        IncompatibleError: values that do not go together.
    """

    env_name: str = "CartPole-v1"
    """Gymnasium id of the environment."""

    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the environment, as `gymnasium.make` takes them; JSON values only.
    `wrappers` among them is a list of wrappers around it, each a name, or an object of `name` and
    `kwargs`, the first one innermost (`grpo.envs.wrapping`)."""

    reward_function_type: str = ""
    """Name of the reward that is trained on; evaluation always uses the environment's own. Left
    out it is `optimized_cartpole` on CartPole-v1, `environment` elsewhere."""

    total_timesteps: Annotated[int, Bound(1, 1_000_000_000)] = _TIMESTEPS
    """Budget in environment steps, branches included; never exceeded."""

    learning_rate: Annotated[float, Bound(0.0, 1.0, exclusive_low=True)] = 3e-4
    """Adam's step size, of the policy and of the value head."""

    learning_rate_schedule: Literal["constant", "cooldown", "linear"] = "cooldown"
    """`linear` lowers the step size to 0 as the budget is used up, as RL Zoo's `lin_` does;
    `cooldown` only over the last three tenths of it (Hägele et al., arXiv 2405.18392)."""

    log_std_rate: Annotated[float, Bound(0.0, 10.0)] = 1.0
    """Step size of log σ of continuous actions, as a multiple of `learning_rate`: less goes on
    exploring for longer, and 0 leaves σ as it is at first."""

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

    group_size: Annotated[int, Bound(1, 4_096)] = 2
    """Members that start from the same state and are compared with each other; 1 with the baseline
    `critic`, which compares nobody."""

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
    """Name of the group-relative advantage: how the members of a group are compared, where the
    baseline is `group`."""

    baseline: Literal["group", "critic", "both", "shrinkage"] = "group"
    """What a step is judged against: `group` compares returns with the siblings' by `advantage`;
    `critic` takes the value head's GAE(λ), as PPO does; `both` subtracts the siblings' mean GAE
    from that, and `shrinkage` as much of it as the other groups show to pay. Those three always
    bootstrap."""

    gae_lambda: Annotated[float, Bound(0.0, 1.0)] = 0.95
    """λ of GAE (arXiv 1506.02438), where the critic is in the baseline: 1 is not biased by it, 0
    trusts it after one step."""

    normalize_advantage: bool = False
    """Standardise the advantages of an iteration."""

    policy: str = AUTO
    """Class of the policy, by its registered name; `auto` takes the one that fits what is observed:
    `CnnPolicy` for images, `MultiInputPolicy` where there are some in a Dict or Tuple, else
    `MlpPolicy`."""

    policy_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """What the policy is built with beside `net_arch`: JSON values, classes by registered name."""

    start_states: Literal["branch", "branch_worst", "reset", "continue", "mixed"] = "branch"
    """Where groups start: `branch` goes on from where a random survivor came to, `branch_worst`
    from where the one with the lowest return did, `reset` starts at a seeded reset. With `continue`
    each member goes on with its own episode. So it does with `mixed`, but for segments in which a
    group's members leave their episodes to be compared from where one of them is."""

    branch_probability: Annotated[float, Bound(0.0, 1.0)] = 0.9
    """When branching: chance that a group goes on from a survivor's last state; with `mixed`, that
    its members are compared from where one of them is."""

    bootstrap: bool = False
    """Add the value of the last state, γ^k V(s_end), to the return of a segment that was cut or
    truncated, where the baseline is `group`."""

    normalize_observations: bool = True
    """Standardise observations by their running mean and variance."""

    normalize_rewards: bool = False
    """Divide the returns that members are compared by through their running standard deviation, so
    that learning does not depend on the unit of the reward; left out it is true for environments
    without a preset. What is logged and evaluated stays in the reward's own unit."""

    net_arch: Annotated[tuple[int, ...], Items(8, Bound(1, 4_096))] = (64, 64)
    """Widths of the hidden layers, of the policy and of the value head."""

    eval_freq: Annotated[int, Bound(0, 1_000_000_000)] = 0
    """Evaluate each time this many timesteps have passed; 0 evaluates only at the end."""

    n_eval_episodes: Annotated[int, Bound(1, 10_000)] = 100
    """Episodes of an evaluation."""

    target_return: Annotated[float | None, Bound(-1e9, 1e9)] = None
    """Stop early once an evaluation's mean return reaches this; needs `eval_freq`."""

    env_workers: Annotated[int | Literal["auto"], Bound(0, 1_024)] = 0
    """Processes that step the members side by side, for environments that are slow; 0 steps them in
    the one that trains, `auto` takes as many as pay. Equal seeds give equal bits with any number of
    workers."""

    device: Device = "cpu"
    """`cpu`, `cuda`, or `auto` (CUDA where there is one)."""

    def __post_init__(self) -> None:
        """Validate every field, then those that depend on each other."""
        object.__setattr__(self, "env_kwargs", dict(self.env_kwargs))
        object.__setattr__(self, "policy_kwargs", dict(self.policy_kwargs))
        object.__setattr__(self, "net_arch", tuple(self.net_arch))
        check_fields(self)
        if not self.reward_function_type:
            # a shaped reward reads components by their place, which wrappers may change
            own = "environment" if "wrappers" in self.env_kwargs else self.env_name
            reward = _SHAPED_REWARDS.get(own, "environment")
            object.__setattr__(self, "reward_function_type", reward)
        ADVANTAGES.check(self.advantage)
        if self.policy != AUTO:
            POLICIES.check(self.policy)
        self._check_baseline()
        members = self.num_groups * self.group_size
        if self.env_workers != "auto" and self.env_workers > members:
            raise IncompatibleError(
                f"There are {members} members (num_groups x group_size), and {self.env_workers} "
                "workers: use no more workers than members.",
                field="env_workers",
            )
        if self.target_return is not None and self.eval_freq == 0:
            raise IncompatibleError(
                "target_return stops training when an evaluation reaches it: set eval_freq too.",
                field="target_return",
            )

    def _check_baseline(self) -> None:
        """Who is compared needs siblings that started where it did."""
        baseline, size = self.baseline, self.group_size
        if baseline != "critic" and size == 1:
            raise IncompatibleError(
                f"A group of one has no siblings to compare with, as the baseline {baseline!r} "
                "does: use a group_size of at least 2, or baseline='critic'.",
                field="group_size",
            )
        if self.start_states == "continue" and baseline != "critic":
            raise IncompatibleError(
                "With start_states='continue' members share no start state, so that the baseline "
                f"{baseline!r} has nothing to compare: use baseline='critic', or "
                "start_states='mixed'.",
                field="baseline",
            )
        if self.start_states == "mixed" and baseline == "group":
            raise IncompatibleError(
                "With start_states='mixed' some members have no siblings, which the baseline "
                "'group' cannot judge: use baseline='shrinkage', 'both' or 'critic'.",
                field="baseline",
            )
        if baseline == "shrinkage" and self.num_groups == 1:
            raise IncompatibleError(
                "The baseline 'shrinkage' weighs a group's siblings by what the other groups show: "
                "use a num_groups of at least 2, or baseline='both'.",
                field="num_groups",
            )

    @property
    def clip_high(self) -> float:
        """Upper ε in force."""
        return self.clip_range if self.clip_range_high is None else self.clip_range_high

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON values; `GRPOConfig(**d)` gives the same config back."""
        return {spec.name: _plain(getattr(self, spec.name)) for spec in dataclasses.fields(self)}


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value


PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "CartPole-v1": {"reward_function_type": "optimized_cartpole"},
        "Acrobot-v1": {
            "learning_rate": 1e-3, "learning_rate_schedule": "linear", "n_steps": 32,
            "n_epochs": 4, "gamma": 0.995, "group_size": 8, "advantage": "blend",
            "bootstrap": True, "start_states": "branch_worst", "branch_probability": 0.5,
        },
        "MountainCarContinuous-v0": {
            "learning_rate_schedule": "constant", "n_steps": 100, "batch_size": 512,
            "n_epochs": 4, "num_groups": 2, "group_size": 8, "clip_range": 0.2,
            "advantage": "global", "ent_coef": 0.003, "bootstrap": True, "start_states": "reset",
        },
        # a pole falls within a few steps: short segments, judged by the value of where they end
        "InvertedDoublePendulum-v5": {
            "learning_rate": 1e-3, "learning_rate_schedule": "linear", "n_steps": 8,
            "n_epochs": 4, "gamma": 0.98, "num_groups": 4, "group_size": 4, "clip_range": 0.2,
            "advantage": "dr", "bootstrap": True, "branch_probability": 0.95,
        },
        "LunarLander-v3": {
            "learning_rate": 6e-4, "learning_rate_schedule": "constant", "n_steps": 256,
            "batch_size": 512, "n_epochs": 4, "gamma": 0.999, "group_size": 16,
            "advantage": "loo_time", "ent_coef": 0.01, "start_states": "reset",
        },
    }
)  # fmt: skip
"""By environment id: the fields that differ from the defaults of `GRPOConfig`."""

REWARD_PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        # one a step says nothing until a pole falls: whole episodes, many of them
        "CartPole-v1": {
            "environment": {
                "learning_rate_schedule": "constant", "num_groups": 4, "group_size": 12,
                "n_steps": 500, "n_epochs": 4, "gamma": 0.98, "advantage": "dr",
                "bootstrap": True, "ent_coef": 0.01,
            },
        },
    }
)  # fmt: skip
"""By environment id and reward: the fields that differ from `PRESETS` under that reward."""

_COMPARED = frozenset({"advantage", "baseline", "branch_probability", "group_size", "start_states"})
"""Fields that say how members are compared."""


def general_preset(total_timesteps: int = _TIMESTEPS, given: Iterable[str] = ()) -> dict[str, Any]:
    """What an environment without a preset is trained with: nobody has looked at it.

    Members go on with their own episodes and are judged by the critic, which needs nothing of the
    environment and holds where horizons are long. The budget is spent in 150 iterations; with it
    the rate falls, to which log σ comes up, and the range widens in which an update is trusted.
    Tuned on tasks at 10,000 to 300,000 timesteps (`docs/algorithm.md`, "The general preset").

    Args:
        total_timesteps: the budget.
        given: fields that were chosen; with one that says how members are compared, the defaults of
            `GRPOConfig` stay, which compare siblings.
    """
    if not _COMPARED.isdisjoint(given):
        return {"normalize_rewards": True}
    transitions = min(max(total_timesteps / 150, 256.0), 4_096.0)
    members = 8
    return {
        "learning_rate": min(max(100 / max(1, total_timesteps), 1e-4), 1.5e-3),
        "log_std_rate": min(max(total_timesteps / 300_000, 0.1), 1.0),
        "n_steps": round(transitions / members), "num_groups": members, "group_size": 1,
        "clip_range": min(max(total_timesteps / 1_500_000, 0.1), 0.2), "baseline": "critic",
        "normalize_advantage": True, "start_states": "continue", "normalize_rewards": True,
    }  # fmt: skip


def _preset_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """What differs from the defaults of `GRPOConfig` in an environment, under a reward.

    Args:
        given: the fields that were chosen, `env_name` among them.
    """
    env_name, budget = given["env_name"], given.get("total_timesteps")
    if env_name not in PRESETS:
        preset = general_preset(budget if isinstance(budget, int) else _TIMESTEPS, given)
    else:
        preset = dict(PRESETS[env_name])
    reward = given.get("reward_function_type") or preset.get("reward_function_type", "environment")
    return preset | dict(REWARD_PRESETS.get(env_name, {}).get(reward, {}))


def resolve_config(**fields: object) -> GRPOConfig:
    """A config from the given fields, the environment's preset, and the defaults, in this order.

    An environment without a preset of its own has `general_preset`.

    Args:
        **fields: of `GRPOConfig`; one that is None counts as left out.

    Raises:
        ConfigError: the values cannot be trained.
        TypeError: there is no such field.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    default = fields_of(GRPOConfig)["env_name"].default
    reward = given.get("reward_function_type")
    kwargs = given.get("env_kwargs")
    if reward is None and isinstance(kwargs, Mapping) and "wrappers" in kwargs:
        reward = given["reward_function_type"] = "environment"
    names = given.setdefault("env_name", default), reward
    preset = _preset_of(given) if all(isinstance(n, str | None) for n in names) else {}
    return GRPOConfig(**{**preset, **given})
