"""Which environments are registered: Gymnasium's own, and those that plug-ins bring.

Their modules, and the physics engines behind them, are imported here, with their noises off.
"""

import functools
import importlib
import logging
import sys
import warnings
from importlib.metadata import EntryPoint, entry_points

import gymnasium as gym
from gymnasium.envs import registration
from gymnasium.envs.registration import EnvSpec

from grpo.errors import UnsupportedEnvironmentError, in_words

__all__ = [
    "ENTRY_POINT_GROUP",
    "HOW_TO_ADD",
    "import_environment",
    "load_plug_ins",
    "registered_names",
]

ENTRY_POINT_GROUP = "gymnasium.envs"
"""Distributions add environments by an entry point of this group that names a function which
calls `gymnasium.register`; the entry point's name is the namespace of the ids, `__root__` none.
Gymnasium itself looked there until 1.0; since then whoever runs environments has to."""

HOW_TO_ADD = (
    "An environment of your own is added by a distribution that registers it, as examples/plugin "
    f"does by its entry point of the group {ENTRY_POINT_GROUP}."
)
"""What whoever misses an environment can do."""

_log = logging.getLogger(__name__)

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
    load_plug_ins()
    return tuple(sorted(name for name, spec in gym.registry.items() if _is_suited(spec)))


@functools.cache
def load_plug_ins() -> None:
    """Register what installed distributions bring; one that fails is left out and logged."""
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        try:
            _register(entry)
        except UnsupportedEnvironmentError as error:
            _log.warning("%s", error, exc_info=True)


def _register(entry: EntryPoint) -> None:
    try:
        register = entry.load()
        if entry.name == "__root__":
            register()
        else:
            with registration.namespace(entry.name):
                register()
    except (Exception, SystemExit) as error:
        registration.current_namespace = None  # which Gymnasium leaves set
        raise UnsupportedEnvironmentError(
            f"The environments of {entry.value} are left out: {in_words(error)}."
        ) from error


def _is_suited(spec: EnvSpec) -> bool:
    if isinstance(spec.entry_point, str):
        return not spec.entry_point.startswith(_UNSUITED)
    return not getattr(spec.entry_point, "__module__", "").startswith("gymnasium.")


def import_environment(registered: EnvSpec) -> None:
    """Import the module of an environment, so that making it imports nothing.

    Raises:
        Exception: whatever the module raises.
    """
    if not isinstance(registered.entry_point, str):
        return
    module = registered.entry_point.partition(":")[0]
    if module in sys.modules:
        return
    with warnings.catch_warnings():
        # Box2D's SWIG types warn while they are made, and crash the process where that raises.
        warnings.filterwarnings("ignore", "builtin type .* has no __module__", DeprecationWarning)
        importlib.import_module(module)
    _redirect_mujoco_warnings()


def _redirect_mujoco_warnings() -> None:
    # MuJoCo's default writes each warning to a file in the working directory.
    mujoco = sys.modules.get("mujoco")
    if mujoco is not None and mujoco.get_mju_user_warning() is None:
        mujoco.set_mju_user_warning(_warn_once)


@functools.cache
def _warn_once(message: str) -> None:
    _log.warning("MuJoCo: %s", message)
