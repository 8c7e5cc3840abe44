"""Which environments are registered: Gymnasium's own, and those that plug-ins bring.

Their modules, and the physics engines behind them, are imported here, with their noises off.
"""

import functools
import importlib
import importlib.util
import logging
import os
import sys
import warnings
from importlib.metadata import EntryPoint, entry_points

import gymnasium as gym
from gymnasium.envs import registration
from gymnasium.envs.registration import EnvSpec

from grpo.errors import IncompatibleError, UnsupportedEnvironmentError, in_words

__all__ = [
    "ENTRY_POINT_GROUP",
    "HOW_TO_ADD",
    "MODULES_VARIABLE",
    "allow_module",
    "allowed_modules",
    "how_to_install",
    "how_to_register",
    "import_environment",
    "load_plug_ins",
    "registered_names",
    "require_module",
]

ENTRY_POINT_GROUP = "gymnasium.envs"
"""Distributions add environments by an entry point of this group that names a function which
calls `gymnasium.register`; the entry point's name is the namespace of the ids, `__root__` none.
Gymnasium itself looked there until 1.0; since then whoever runs environments has to."""

MODULES_VARIABLE = "GRPO_ENV_MODULES"
"""Environment variable with the modules, separated by commas, that register environments when they
are imported; of installed packages, or files in the working directory. No other is imported."""

HOW_TO_ADD = (
    f"Whoever runs this may name modules that register environments in {MODULES_VARIABLE}; or "
    f"install a distribution with an entry point of the group {ENTRY_POINT_GROUP}, as "
    "examples/plugin has one."
)
"""What whoever misses an environment can do."""

_EXTRAS = {"Box2D": "box2d", "mujoco": "mujoco"}
"""Packages that Gymnasium's own environments import, and the extra that brings each."""

_OTHERS = {
    "ALE/": "ale_py",
    "FlappyBird-": "flappy_bird_gymnasium",
    "MiniGrid-": "minigrid",
    "PointMaze_": "gymnasium_robotics",
    "highway-": "highway_env",
    "mobile-": "mobile_env",
}
"""How ids of other packages begin, which the extra `environments` brings."""

_log = logging.getLogger(__name__)

_UNSUITED = (
    "gymnasium.envs.tabular",
    "gymnasium.envs.phys2d",  # JAX
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
    """Register what distributions and allowed modules bring; one that fails is logged."""
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        try:
            _register(entry)
        except UnsupportedEnvironmentError as error:
            _log.warning("%s", error, exc_info=True)
    for module in allowed_modules():
        try:
            require_module(module)
        except IncompatibleError as error:
            _log.warning("%s", error, exc_info=True)


_allowed: set[str] = set()


def allow_module(module: str) -> None:
    """Let this process import a module for its environments; for whoever runs the process."""
    _allowed.add(module)


def allowed_modules() -> tuple[str, ...]:
    """Modules that may be imported for their environments, sorted."""
    # in whatever case, as a server's other settings
    texts = [text for name, text in os.environ.items() if name.upper() == MODULES_VARIABLE]
    given = ",".join(texts).split(",")
    return tuple(sorted(_allowed | {name.strip() for name in given if name.strip()}))


def require_module(module: str) -> None:
    """Import a module that registers environments.

    Raises:
        IncompatibleError: it is not allowed, or does not load.
    """
    if module not in allowed_modules():
        raise IncompatibleError(
            f"The module {module!r} is not imported for its environments here, unless whoever runs "
            f"this allows it: {MODULES_VARIABLE}={module}.",
            field="env_name",
        )
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise IncompatibleError(
            f"The module {module!r} does not load: {in_words(error)}.", field="env_name"
        ) from error


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


def how_to_install(error: BaseException) -> str | None:
    """What is missing and the extra that brings it, where that is why an environment is not made.

    Args:
        error: that making it raised.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ModuleNotFoundError) and (extra := _EXTRAS.get(cause.name or "")):
            return f"needs {cause.name}, which is not installed: {_pip_install(extra)}"
        cause = cause.__cause__
    return None


def how_to_register(env_name: str) -> str:
    """What whoever misses an environment can do: install its package, or bring one of their own."""
    for start, package in _OTHERS.items():
        if env_name.startswith(start) and importlib.util.find_spec(package) is None:
            return f"It is of {package}, which is not installed: {_pip_install('environments')}."
    return HOW_TO_ADD


def _pip_install(extra: str) -> str:
    return f"pip install 'grpo-platform[{extra}]'"


def _redirect_mujoco_warnings() -> None:
    # MuJoCo's default writes each warning to a file in the working directory.
    mujoco = sys.modules.get("mujoco")
    if mujoco is not None and mujoco.get_mju_user_warning() is None:
        mujoco.set_mju_user_warning(_warn_once)


@functools.cache
def _warn_once(message: str) -> None:
    _log.warning("MuJoCo: %s", message)
