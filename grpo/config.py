"""Every hyperparameter of a training run, documented and validated in one place."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from grpo.errors import IncompatibleError, OutOfRangeError, UnknownNameError

__all__ = [
    "ADVANTAGES",
    "BOUNDS",
    "DEVICES",
    "LEARNING_RATE_SCHEDULES",
    "START_STATES",
    "Bound",
    "GRPOConfig",
]

ADVANTAGES = ("blend", "dr", "global", "loo_time", "outcome", "z_time")
LEARNING_RATE_SCHEDULES = ("constant", "cooldown", "linear")
START_STATES = ("branch", "branch_worst", "reset")
DEVICES = ("auto", "cpu", "cuda")


class Bound(NamedTuple):
    """Inclusive range of a numeric field; `exclusive_low` excludes the lower end."""

    low: float
    high: float
    exclusive_low: bool = False


BOUNDS: Mapping[str, Bound] = {
    "total_timesteps": Bound(1, 1_000_000_000),
    "learning_rate": Bound(0.0, 1.0, exclusive_low=True),
    "n_steps": Bound(1, 1_000_000),
    "batch_size": Bound(1, 1_000_000),
    "n_epochs": Bound(1, 1_000),
    "seed": Bound(0, 2**32 - 1),
    "gamma": Bound(0.0, 1.0),
    "num_groups": Bound(1, 4_096),
    "group_size": Bound(2, 4_096),
    "clip_range": Bound(0.0, 10.0, exclusive_low=True),
    "clip_range_high": Bound(0.0, 10.0, exclusive_low=True),
    "ent_coef": Bound(0.0, 100.0),
    "kl_coef": Bound(0.0, 100.0),
    "reference_iterations": Bound(1, 1_000_000_000),
    "max_grad_norm": Bound(0.0, 1_000.0, exclusive_low=True),
    "branch_probability": Bound(0.0, 1.0),
    "eval_freq": Bound(0, 1_000_000_000),
    "n_eval_episodes": Bound(1, 10_000),
    "target_return": Bound(-1e9, 1e9),
}
"""Range of each numeric field of `GRPOConfig`; the HTTP schema is built from the same table."""

_MAX_LAYERS = 8
_MAX_WIDTH = 4_096


@dataclass(frozen=True, kw_only=True, slots=True)
class GRPOConfig:
    """What a run is trained with. The defaults are CartPole's preset.

    Raises:
        OutOfRangeError: a value of the wrong type or outside `BOUNDS`.
        UnknownNameError: an unknown `advantage`, `learning_rate_schedule`, `start_states` or
            `device`.
        IncompatibleError: values that do not go together.
    """

    env_name: str = "CartPole-v1"
    """Gymnasium id of the environment."""

    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of `gymnasium.make`; JSON values only."""

    reward_function_type: str = "environment"
    """Name of the reward that is trained on; evaluation always uses the environment's own."""

    total_timesteps: int = 10_000
    """Budget in environment steps, branches included; never exceeded."""

    learning_rate: float = 3e-4
    """Adam's step size, of the policy and of the value head."""

    learning_rate_schedule: str = "cooldown"
    """`linear` lowers the step size to 0 as the budget is used up, as RL Zoo's `lin_` does;
    `cooldown` only over the last three tenths of it (Hägele et al., arXiv 2405.18392)."""

    n_steps: int = 32
    """Longest segment, in steps, that a member runs in one iteration."""

    batch_size: int = 64
    """Minibatch size, in transitions."""

    n_epochs: int = 10
    """Passes over the transitions of an iteration."""

    seed: int = 0
    """Seeds every random generator of the run; equal seeds give equal bits."""

    gamma: float = 0.99
    """Discount per step."""

    num_groups: int = 1
    """Groups, each with a start state of its own, collected per iteration."""

    group_size: int = 2
    """Members that start from the same state and are compared with each other."""

    clip_range: float = 0.3
    """ε of the clipped surrogate (PPO, arXiv 1707.06347)."""

    clip_range_high: float | None = None
    """Upper ε where it differs from the lower one (clip-higher; DAPO, arXiv 2503.14476)."""

    ent_coef: float = 0.0
    """Weight of the entropy bonus."""

    kl_coef: float = 0.0
    """Weight of the k3 estimate of the divergence from the reference policy."""

    reference_iterations: int = 8
    """Iterations after which the present policy becomes the reference of the KL term."""

    max_grad_norm: float = 0.5
    """Largest norm of the policy's gradient; longer ones are scaled down."""

    advantage: str = "loo_time"
    """Named group-relative advantage, one of `ADVANTAGES`."""

    start_states: str = "branch"
    """Where groups start: `branch` goes on from where a random survivor came to, `branch_worst`
    from where the one with the lowest return did, `reset` starts at a seeded reset."""

    branch_probability: float = 0.9
    """When branching: chance that a group goes on from a survivor's last state."""

    bootstrap: bool = False
    """Add γ^k V(s_end) to the return of a segment that was cut or truncated."""

    normalize_observations: bool = True
    """Standardise observations by their running mean and variance."""

    net_arch: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers, of the policy and of the value head."""

    eval_freq: int = 0
    """Evaluate each time this many timesteps have passed; 0 evaluates only at the end."""

    n_eval_episodes: int = 100
    """Episodes of an evaluation."""

    target_return: float | None = None
    """Stop early once an evaluation's mean return reaches this; needs `eval_freq`."""

    device: str = "cpu"
    """`cpu`, `cuda`, or `auto` (CUDA where there is one)."""

    def __post_init__(self) -> None:
        """Validate every field, then those that depend on each other."""
        object.__setattr__(self, "env_kwargs", dict(self.env_kwargs))
        object.__setattr__(self, "net_arch", tuple(self.net_arch))
        for spec in dataclasses.fields(self):
            self._check_type(spec.name, str(spec.type))
        for name, bound in BOUNDS.items():
            self._check_bound(name, bound)
        for name, allowed in (
            ("advantage", ADVANTAGES),
            ("learning_rate_schedule", LEARNING_RATE_SCHEDULES),
            ("start_states", START_STATES),
            ("device", DEVICES),
        ):
            if getattr(self, name) not in allowed:
                raise UnknownNameError(name, getattr(self, name), allowed)
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
        return values | {"env_kwargs": dict(self.env_kwargs), "net_arch": list(self.net_arch)}

    def _check_type(self, name: str, kind: str) -> None:
        value = getattr(self, name)
        if value is None and "None" in kind:
            return
        kinds: dict[str, tuple[type, ...]] = {
            "int": (int,), "float": (int, float), "str": (str,), "bool": (bool,),
        }  # fmt: skip
        expected = kinds.get(kind.replace("<class '", "").replace("'>", "").split(" |")[0])
        if expected is None:
            return
        if not isinstance(value, expected) or (isinstance(value, bool) and bool not in expected):
            raise OutOfRangeError(
                f"{name} must be of type {expected[-1].__name__}, not {type(value).__name__}.",
                field=name,
            )

    def _check_bound(self, name: str, bound: Bound) -> None:
        value = getattr(self, name)
        if value is None:
            return
        too_low = value <= bound.low if bound.exclusive_low else value < bound.low
        if not math.isfinite(value) or too_low or value > bound.high:
            low = f"above {bound.low:g}" if bound.exclusive_low else f"at least {bound.low:g}"
            raise OutOfRangeError(
                f"{name} must be {low} and at most {bound.high:g}, not {value!r}.", field=name
            )

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
