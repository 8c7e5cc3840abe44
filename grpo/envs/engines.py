"""Import of environment modules and of the physics engines behind them, with their noises off."""

import functools
import importlib
import logging
import sys
import warnings

from gymnasium.envs.registration import EnvSpec

__all__ = ["import_environment"]

_log = logging.getLogger(__name__)


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
