"""The list of environments that can be trained here, with what there is to know of each."""

from typing import Any

from grpo.envs.catalogue import registered_names
from grpo.envs.spec import check_environment
from grpo.errors import ConfigError
from grpo.presets import PRESETS, REWARD_PRESETS

__all__ = ["describe_environments"]

_BRANCHING = {"box2d": "replay", "other": "proved when training starts"}


def describe_environments() -> list[dict[str, Any]]:
    """Every registered environment that can be made here, as JSON values, sorted by name.

    Each has what `EnvironmentSpec.to_dict` gives, `branching` (`exact`, `replay`, or that it is
    found out at start), `preset` (the fields whose defaults differ) and `reward_presets` (those
    that differ from it under a reward). Making them all takes about a second, once in a process.
    """
    found = []
    for name in registered_names():
        try:
            spec = check_environment(name)
        except ConfigError:
            continue  # an engine that is not installed, or spaces that cannot be trained
        found.append(
            spec.to_dict()
            | {
                "branching": _BRANCHING.get(spec.family, "exact"),
                "preset": dict(PRESETS.get(name, {})),
                "reward_presets": {
                    reward: dict(fields) for reward, fields in REWARD_PRESETS.get(name, {}).items()
                },
            }
        )
    return found
