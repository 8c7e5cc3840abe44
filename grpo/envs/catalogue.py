"""Which registered environments there are to train."""

import gymnasium as gym

__all__ = ["registered_names"]

_UNSUITED = (
    "gymnasium.envs.toy_text",  # Discrete or Tuple observations
    "gymnasium.envs.tabular",
    "gymnasium.envs.phys2d",  # JAX
    "gymnasium.envs.box2d.car_racing",  # images
)


def registered_names() -> tuple[str, ...]:
    """Ids that may be trained, judged by their registration alone; sorted.

    Left out are those of Gymnasium's own whose observations the policy cannot read, and names
    kept only to say that they were moved elsewhere.
    """
    return tuple(
        sorted(
            name
            for name, spec in gym.registry.items()
            if isinstance(spec.entry_point, str) and not spec.entry_point.startswith(_UNSUITED)
        )
    )
