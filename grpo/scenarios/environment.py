"""What a scenario does to an environment: start states, other physics; and the features it shows.

Instances are played one by one, since a perturbed one is not Gymnasium's own any more. What is
asked for is put in where the environment itself is, inside all wrappers, so that these see it.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.wrappers import TimeLimit

from grpo.envs import EnvironmentSpec, Snapshot, check_environment
from grpo.envs.branching import AttributeState, Brancher, MujocoState, NoBranching, Replay
from grpo.envs.families import family_of, layers_of
from grpo.envs.sync_vec_env import SyncVecEnv
from grpo.envs.verification import resets_afresh
from grpo.errors import (
    ConfigError,
    EnvironmentFaultError,
    GRPOError,
    IncompatibleError,
    did_you_mean,
    in_words,
)
from grpo.registry import Objects
from grpo.scenarios.assertions import Feature
from grpo.scenarios.suite import Scenario, Start, snapshot_from_json

__all__ = [
    "Stage",
    "column_of",
    "feature_names",
    "noise_columns",
    "perturbed",
    "put_state",
    "state_of",
]

Environment = gym.Env[Any, Any]

_STATES: Final[Mapping[str, tuple[str, ...]]] = {
    "cartpole": ("x", "x_dot", "theta", "theta_dot"),
    "acrobot": ("theta1", "theta2", "theta1_dot", "theta2_dot"),
    "mountain_car": ("position", "velocity"),
    "mountain_car_continuous": ("position", "velocity"),
    "pendulum": ("theta", "theta_dot"),
}
"""Classic control's variables, in the order of Gymnasium's `state`."""

_OBSERVED: Final[Mapping[str, tuple[str, ...]]] = {
    **_STATES,
    "acrobot": (
        "cos_theta1", "sin_theta1", "cos_theta2", "sin_theta2", "theta1_dot", "theta2_dot",
    ),
    "pendulum": ("cos_theta", "sin_theta", "theta_dot"),
}  # fmt: skip
"""Names of the observation's numbers, where it is the environment's own."""

_LANDER: Final = (
    "x", "y", "x_dot", "y_dot", "angle", "angle_dot", "left_leg", "right_leg",
)  # fmt: skip

_ROWS: Final = {"cartpole": [0, 2, 1, 3]}
"""Where `ClassicControlVecEnv` keeps its rows in another order than Gymnasium's."""

_SIMULATED: Final = ("damping_scale", "friction_scale", "gravity", "mass_scale")
"""Physics of MuJoCo's model: upward acceleration in m/s², and factors of what the model says."""

_DERIVED: Final = {"length", "masscart", "masspole"}
"""Of CartPole: what its total mass, and its pole's mass times length, follow from."""


def perturbed(
    spec: EnvironmentSpec, scenario: Scenario, place: str, objects: Objects | None = None
) -> EnvironmentSpec:
    """The environment with the scenario's keyword arguments; its spaces must stay as they are.

    Args:
        spec: the environment that the policy was trained in.
        scenario: may have `env_kwargs`.
        place: of the scenario in the suite, for messages.
        objects: environments that were handed in.

    Raises:
        ConfigError: the environment does not take them, or becomes another one by them.
    """
    if not scenario.env_kwargs:
        return spec
    where = f"{place}.perturb.env_kwargs"
    try:
        found = check_environment(
            spec.env_name, {**spec.env_kwargs, **scenario.env_kwargs}, objects
        )
    except ConfigError as error:
        raise IncompatibleError(f"{where}: {error}", field=where) from error
    same = (found.observation, found.action, found.masks) == (
        spec.observation, spec.action, spec.masks,
    )  # fmt: skip
    if not same:
        raise IncompatibleError(
            f"{where}: they change what {spec.env_name} observes or the actions that it takes, so "
            "that the policy does not fit it; leave out those that do.",
            field=where,
        )
    return found


def column_of(spec: EnvironmentSpec, feature: Feature, where: str) -> int:
    """Where a feature is in a flat row of an observation.

    Raises:
        IncompatibleError: the environment shows no such feature.
    """
    names = feature_names(spec)
    if not feature.index and feature.name in names:
        return names.index(feature.name)
    leaves = {leaf.name: (leaf, columns) for leaf, columns in spec.observation.columns()}
    if feature.name not in leaves:
        known = [*names, *leaves]
        listed = ", ".join(names) if names else ", ".join(f"{name}[0]" for name in leaves)
        raise IncompatibleError(
            f"{where}: {spec.env_name} shows no {feature.name!r}. "
            f"{did_you_mean(feature.name, known)}There are: {listed}; or by place, such as "
            f"{next(iter(leaves))}[0].",
            field=where,
        )
    leaf, columns = leaves[feature.name]
    try:
        place = int(_place(feature.index, leaf.shape))
    except (TypeError, ValueError) as error:
        raise IncompatibleError(
            f"{where}: {feature.name} has shape {leaf.shape}; name one number of it, such as "
            f"{feature.name}[{', '.join('0' for _ in leaf.shape)}].",
            field=where,
        ) from error
    return int(columns.start) + place


def noise_columns(spec: EnvironmentSpec, scenario: Scenario, place: str) -> npt.NDArray[Any] | None:
    """Standard deviation of the noise in each number of a flat row; None without noise.

    Raises:
        IncompatibleError: there is no such feature, or it is no number that varies continuously.
    """
    if not scenario.observation_noise:
        return None
    where = f"{place}.perturb.observation_noise"
    deviations, continuous = np.zeros(spec.observation.size), np.zeros(spec.observation.size, bool)
    for leaf, columns in spec.observation.columns():
        is_continuous = not (leaf.categories or leaf.low) and np.dtype(leaf.dtype).kind == "f"
        continuous[columns] = is_continuous
    if isinstance(scenario.observation_noise, Mapping):
        for text, deviation in scenario.observation_noise.items():
            try:
                column = column_of(spec, Feature.parse(text), where)
            except ValueError as error:
                if isinstance(error, ConfigError):
                    raise
                raise IncompatibleError(f"{where}: {error}.", field=where) from error
            if not continuous[column]:
                raise _no_noise(spec, where, f"{text} is")
            deviations[column] = deviation
    else:
        if not continuous.any():
            raise _no_noise(spec, where, "its observations are")
        deviations[continuous] = scenario.observation_noise
    return deviations


class Stage:
    """Members that play a scenario's episodes, each from its own start.

    Args:
        spec: the environment, with the scenario's keyword arguments.
        scenario: says what is done to it.
        place: of the scenario in the suite, for messages.
        members: how many are played side by side.

    Raises:
        IncompatibleError: the environment cannot be put into a start state, or has no such physics.
        EnvironmentFaultError: it raised.
    """

    def __init__(self, spec: EnvironmentSpec, scenario: Scenario, place: str, members: int) -> None:
        self._scenario = scenario
        self._place = place
        self._spec = spec
        self._wanted: list[Mapping[str, Any]] = []
        brancher = _brancher_of(scenario, place)
        if scenario.physics:
            probe = spec.make()
            try:
                self._set_physics(probe)
            finally:
                probe.close()
        made = replace(spec, env_kwargs={}, source=self._make)
        self.envs = SyncVecEnv(made, members, brancher, afresh=resets_afresh(spec))

    def begin(self, member: int, number: int, seed: int) -> None:
        """Start episode `number` of the scenario: `envs.observation_of(member)` shows it.

        Args:
            member: that plays it.
            number: of the episode.
            seed: of its reset, where its start names none.

        Raises:
            IncompatibleError: the environment cannot take the start state.
            EnvironmentFaultError: it raised.
        """
        starts = self._scenario.starts
        if not starts:
            self.envs.reset_one(member, seed)
            return
        index = number % len(starts)
        where = f"{self._place}.start[{index}]"
        try:
            self._start(member, starts[index], seed)
        except ConfigError as error:
            raise IncompatibleError(f"{where}: {error}", field=where) from error

    def close(self) -> None:
        """Let the instances go."""
        self.envs.close()

    def _start(self, member: int, start: Start, seed: int) -> None:
        snapshot = None if start.snapshot is None else snapshot_from_json(start.snapshot)
        if snapshot is not None and set(snapshot) != {"state"}:
            self.envs.reset_one(member, seed)
            self._restore(member, snapshot)
            return
        if snapshot is not None:
            self._wanted.append(_classic_state(self.envs.envs[member], snapshot))
        elif start.state is not None:
            self._wanted.append(start.state)
        try:
            self.envs.reset_one(member, seed if start.seed is None else start.seed)
        finally:
            self._wanted.clear()
        if snapshot is not None:
            for layer in layers_of(self.envs.envs[member]):
                if isinstance(layer, TimeLimit):
                    vars(layer)["_elapsed_steps"] = int(snapshot["state"][-1])

    def _restore(self, member: int, snapshot: Snapshot) -> None:
        try:
            observation = np.asarray(snapshot["observation"])
            if observation.shape != self._spec.observation_shape:
                raise ValueError(f"its observation has shape {observation.shape}")
            self.envs.restore(np.array([member]), snapshot)
        except EnvironmentFaultError as error:
            raise IncompatibleError(f"the snapshot is not of this environment: {error}") from error
        except GRPOError:
            raise
        except Exception as error:  # whatever a snapshot of something else leads to
            raise IncompatibleError(
                f"the snapshot is not of this environment: {in_words(error)}."
            ) from error
        if family_of(self.envs.envs[member].unwrapped) != "mujoco":  # whose model is no snapshot's
            self._set_physics(self.envs.envs[member])

    def _make(self) -> Environment:
        env = self._spec.make()
        core = env.unwrapped
        reset = core.reset
        self._set_physics(env)

        def reset_into_state(
            *, seed: int | None = None, options: dict[str, Any] | None = None
        ) -> tuple[Any, dict[str, Any]]:
            observation, info = reset(seed=seed, options=options)
            if self._wanted:
                observation = put_state(core, self._wanted.pop())
            return observation, info

        # on the instance, and no wrapper: a snapshot is of the layers that there are
        vars(core)["reset"] = reset_into_state
        return env

    def _set_physics(self, env: Environment) -> None:
        for name, value in self._scenario.physics.items():
            where = f"{self._place}.perturb.physics.{name}"
            try:
                _set_physics(env.unwrapped, name, value)
            except ValueError as error:
                raise IncompatibleError(f"{where}: {error}.", field=where) from error
        if _DERIVED & self._scenario.physics.keys() and family_of(env.unwrapped) == "cartpole":
            core: Any = env.unwrapped
            core.total_mass = core.masspole + core.masscart
            core.polemass_length = core.masspole * core.length


def _brancher_of(scenario: Scenario, place: str) -> Brancher:
    """What restores the scenario's snapshots; they are all of one kind."""
    kinds: dict[type[Brancher], int] = {}
    for i, start in enumerate(scenario.starts):
        if start.snapshot is None or set(start.snapshot) == {"state"}:
            continue
        names = start.snapshot.keys()
        if "observation" in names and "mujoco" in names:
            kinds.setdefault(MujocoState, i)
        elif "observation" in names and "attributes" in names:
            kinds.setdefault(AttributeState, i)
        elif {"observation", "seed", "actions"} <= names:
            kinds.setdefault(Replay, i)
        else:
            where = f"{place}.start[{i}].snapshot"
            raise IncompatibleError(f"{where}: it is no snapshot of an environment.", field=where)
    if len(kinds) > 1:
        where = f"{place}.start[{max(kinds.values())}].snapshot"
        raise IncompatibleError(
            f"{where}: it is of another kind of environment than the one before.", field=where
        )
    return next(iter(kinds))() if kinds else NoBranching()


def state_of(core: Environment) -> dict[str, float | list[float]]:
    """The state that an environment is in, by its variables' names; empty where they have none.

    Args:
        core: without its wrappers.
    """
    own: Any = core
    family = family_of(core)
    if family == "mujoco":
        return {"qpos": own.data.qpos.tolist(), "qvel": own.data.qvel.tolist()}
    names = _STATES.get(family, ())
    return dict(zip(names, map(float, own.state), strict=True)) if names else {}


def put_state(core: Environment, state: Mapping[str, Any]) -> Any:  # noqa: ANN401 - an observation
    """Put an environment that was reset into a state, and look.

    Args:
        core: without its wrappers.
        state: by its variables' names; those that are not named stay.

    Returns:
        What it observes there, without its wrappers.

    Raises:
        IncompatibleError: it has no such variables.
    """
    family = family_of(core)
    own: Any = core
    if family == "mujoco":
        _check_names(state, ("qpos", "qvel"), core)
        parts = {"qpos": own.data.qpos.copy(), "qvel": own.data.qvel.copy()}
        for name, numbers in state.items():
            given = np.atleast_1d(np.asarray(numbers, np.float64))
            if given.shape != parts[name].shape:
                raise IncompatibleError(
                    f"{name} of {_name(core)} has {parts[name].size} numbers, not {given.size}."
                )
            parts[name] = given
        own.set_state(parts["qpos"], parts["qvel"])
        return own._get_obs()
    names = _STATES.get(family)
    if names is None:
        raise IncompatibleError(
            f"the variables of {_name(core)} have no names here; give a seed or a snapshot."
        )
    if "all" in state:  # of a snapshot
        own.state = state["all"]
    else:
        _check_names(state, names, core)
        values = np.array(own.state)
        for name, number in state.items():
            if isinstance(number, list):
                raise IncompatibleError(f"{name} is one number.")
            values[names.index(name)] = number
        own.state = values
    if family == "acrobot":
        return own._get_ob()
    if family == "pendulum":
        return own._get_obs()
    return np.array(own.state, dtype=np.float32)


def _classic_state(env: Environment, snapshot: Snapshot) -> Mapping[str, Any]:
    """A column of a `ClassicControlVecEnv`, as Gymnasium's environment has it in that step."""
    family = family_of(env.unwrapped)
    names, column = _STATES.get(family), np.asarray(snapshot["state"])
    if names is None or column.shape != (len(names) + 1,):
        raise IncompatibleError(f"the snapshot is not of {_name(env)}.")
    fresh = column[-1] == 0
    # Gymnasium rounds Acrobot's first states to single precision, and this car's all but the first
    single = (family == "acrobot" and fresh) or (family == "mountain_car_continuous" and not fresh)
    values = column[_ROWS.get(family, list(range(len(names))))]
    return {"all": values.astype(np.float32 if single else np.float64)}


def _set_physics(core: Environment, name: str, value: float | list[float]) -> None:
    """Give one attribute another value; raises ValueError where there is none to give."""
    own: Any = core
    if family_of(core) == "mujoco":
        known: Iterable[str] = _SIMULATED
        if name in _SIMULATED:
            _simulate(own, name, value)
            return
    else:
        known = _numeric_attributes(core)
        if name in known:
            if isinstance(value, list):
                raise ValueError("it is one number")
            setattr(own, name, value)
            return
    there_are = f"There are: {', '.join(known)}" if known else "It has no such numbers"
    raise ValueError(f"{_name(core)} has no {name!r}. {did_you_mean(name, known)}{there_are}")


def _simulate(own: Any, name: str, value: float | list[float]) -> None:  # noqa: ANN401
    """Change the model of a new instance; factors are of what the model's file says."""
    if name == "gravity":
        numbers = [0.0, 0.0, value] if not isinstance(value, list) else value
        if len(numbers) != 3:
            raise ValueError("it is one number, or three: x, y, z")
        own.model.opt.gravity[:] = numbers
        return
    if isinstance(value, list) or value < 0.0:
        raise ValueError("it is a factor, not negative")
    fields = {
        "mass_scale": ("body_mass", "body_inertia"),
        "friction_scale": ("geom_friction",),
        "damping_scale": ("dof_damping",),
    }
    for field in fields[name]:
        getattr(own.model, field)[:] *= value


def _numeric_attributes(core: Environment) -> list[str]:
    """Public attributes, of the instance or of its class, that hold a number."""
    found = dict[str, object]()
    for kind in reversed(type(core).__mro__):
        found.update(vars(kind))
    found.update(vars(core))
    numbers = (int, float, np.number)
    return sorted(
        name
        for name, value in found.items()
        if isinstance(value, numbers) and not isinstance(value, bool) and not name.startswith("_")
    )


def _check_names(state: Mapping[str, Any], names: tuple[str, ...], core: Environment) -> None:
    for name in state:
        if name not in names:
            raise IncompatibleError(
                f"{_name(core)} has no state variable {name!r}. {did_you_mean(name, names)}"
                f"There are: {', '.join(names)}."
            )


def feature_names(spec: EnvironmentSpec) -> tuple[str, ...]:
    """What the numbers of an observation are called, in order; empty where they have no names."""
    own_lander = spec.family == "box2d" and not spec.deviations
    if own_lander and str(getattr(spec.source, "entry_point", "")).endswith(":LunarLander"):
        return _LANDER
    return _OBSERVED.get(spec.family, ())


def _place(index: tuple[int, ...], shape: tuple[int, ...]) -> int:
    """Number of an element in C order."""
    if not index and math.prod(shape) == 1:
        return 0
    if len(index) == 1 and index[0] < math.prod(shape):
        return index[0]
    return int(np.ravel_multi_index(index, shape))


def _no_noise(spec: EnvironmentSpec, where: str, what: str) -> IncompatibleError:
    return IncompatibleError(
        f"{where}: of {spec.env_name}, {what} no number that varies continuously; noise is added "
        "to such ones only.",
        field=where,
    )


def _name(env: Environment) -> str:
    return type(env.unwrapped).__name__ if env.spec is None else env.spec.id
