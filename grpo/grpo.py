"""What a notebook holds: `GRPO(env).learn(n)`, `predict`, `evaluate`, `save`, `load`.

Who knows Stable-Baselines3 knows this class. It takes objects (environments, rewards, advantages,
policy classes) and gives each a name, so that everything below it, and every file, deals with one
`GRPOConfig` of JSON values and the objects that its names stand for.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Self

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.envs.registration import EnvSpec

from grpo import checkpoint
from grpo.actions import DictActions, choices
from grpo.advantages import AdvantageFunction
from grpo.checkpoint import TrainingState
from grpo.config import AUTO, Device, GRPOConfig, resolve_config
from grpo.envs import VecEnv
from grpo.envs.catalogue import allow_module
from grpo.errors import CheckpointError, IncompatibleError, OutOfRangeError, did_you_mean
from grpo.evaluation import EVALUATION_SEED, Evaluation, evaluate
from grpo.fields import fields_of
from grpo.policies import POLICIES, BasePolicy, name_parts
from grpo.registry import name_of
from grpo.reporting import Reporter, RolloutStats, UpdateStats
from grpo.rewards import RewardDefinition, RewardFunction
from grpo.spaces import environment_actions
from grpo.threads import fitting_threads
from grpo.trainer import Trainer, TrainResult
from grpo.verdict import Verdict

__all__ = ["GRPO", "Callback", "Env"]

Env = str | EnvSpec | Callable[..., gym.Env[Any, Any]] | gym.Env[Any, Any]
"""What environments are made from: a Gymnasium id, its `EnvSpec`, a function that makes one, or an
environment that knows its `spec`, from which more of it are made."""

Callback = Reporter | Callable[[UpdateStats], bool | None]
"""What hears of a training; a function hears of each iteration, and ends training with False."""

_EXTRA_SPEC = "policy_spec"


class GRPO:
    """Group relative policy optimization (DeepSeekMath, arXiv 2402.03300) on an environment.

    Example:
        >>> model = GRPO("CartPole-v1", seed=7)
        >>> model.learn(5_000)
        >>> action, _ = model.predict(observation)

    Args:
        env: a Gymnasium id, its `EnvSpec`, a function that makes an environment, or an environment
            that knows its `spec`.
        policy: a name of `grpo.policies.POLICIES`, or a class below `BasePolicy`.
        policy_kwargs: what the policy is built with: `net_arch`, and for `ActorCriticPolicy`
            `features_extractor_class`, `activation_fn`, `distribution_class` and more.
        reward: a name of `grpo.rewards.REWARDS`, or a function as `grpo.rewards.RewardFunction`,
            of N steps at once; None for the preset's. Evaluation never uses it.
        advantage: a name of `grpo.advantages.ADVANTAGES`, or a function of (returns, alive), both
            of shape (time, groups, members), that gives advantages of that shape.
        callback: hears of every call of `learn`.
        device: `cpu`, `cuda` or `auto`: where the minibatch updates happen.
        seed: of every random generator; equal seeds give equal bits.
        hyperparameters: fields of `GRPOConfig`; what is left out is the environment's preset's,
            or the default.

    Raises:
        ConfigError: something cannot be trained; the message says what would be right.
    """

    def __init__(
        self,
        env: Env,
        *,
        policy: str | type[BasePolicy] = AUTO,
        policy_kwargs: Mapping[str, Any] | None = None,
        reward: str | RewardFunction | RewardDefinition | None = None,
        advantage: str | AdvantageFunction | Callable[..., Any] | None = None,
        callback: Callback | None = None,
        device: Device = "cpu",
        seed: int = 0,
        **hyperparameters: object,
    ) -> None:
        objects: dict[str, Any] = {}
        parts = dict(policy_kwargs or {})
        if "net_arch" in parts:
            hyperparameters.setdefault("net_arch", parts.pop("net_arch"))
        named, classes = name_parts(parts)
        objects |= classes
        _refuse_unknown(hyperparameters)
        chosen = hyperparameters | {
            "env_name": _named(_source(env), objects),
            "policy": _named(policy, objects, {known: name for name, known in POLICIES.items()}),
            "policy_kwargs": named,
            "reward_function_type": None if reward is None else _named(reward, objects),
            "advantage": None if advantage is None else _named(advantage, objects),
            "device": device,
            "seed": seed,
        }
        self._callback = callback
        self._chosen = chosen
        self._start(resolve_config(**chosen), objects)

    def _start(
        self, config: GRPOConfig, objects: Mapping[str, Any], state: TrainingState | None = None
    ) -> None:
        self._objects = dict(objects)
        self._trainer = Trainer(config, objects=objects, state=state)
        self._rng = np.random.default_rng(config.seed)

    # --- training -------------------------------------------------------------------------

    def learn(
        self,
        total_timesteps: int,
        callback: Callback | None = None,
        *,
        progress_bar: bool = False,
        reset_num_timesteps: bool = True,
    ) -> Self:
        """Train for so many timesteps; called again, it goes on with what was learned.

        In an environment without a preset, `learning_rate` and `n_steps` fit the budget where they
        were left out.

        Args:
            total_timesteps: calls of one environment's `step`, branches included. The
                learning-rate schedule runs over them.
            callback: hears of this call, beside the one that the object was made with.
            progress_bar: draw one on stderr.
            reset_num_timesteps: count, and schedule, from 0 again.

        Returns:
            This object.

        Raises:
            OutOfRangeError: `total_timesteps` is below 1 or above a thousand million.
            TrainingDivergedError, EnvironmentFaultError, RewardError, AdvantageError: what went
                wrong while training.
        """
        trainer = self._trainer
        fitting = trainer.config
        if reset_num_timesteps:
            fitting = resolve_config(**self._chosen | {"total_timesteps": total_timesteps})
        trainer.set_budget(total_timesteps, fitting, reset_num_timesteps=reset_num_timesteps)
        heard = [hook for hook in (self._callback, callback) if hook is not None]
        if progress_bar:
            heard.append(_ProgressBar(trainer.config.total_timesteps))
        trainer.reporter = _Callbacks(heard)
        self.result: TrainResult = trainer.train()
        return self

    @property
    def num_timesteps(self) -> int:
        """Timesteps done, since they were counted from 0."""
        return self._trainer.timesteps

    @property
    def config(self) -> GRPOConfig:
        """All hyperparameters, as JSON would have them."""
        return self._trainer.config

    @property
    def policy(self) -> BasePolicy:
        """The policy, as it is now."""
        return self._trainer.policy

    def get_env(self) -> VecEnv:
        """The environments that are trained on, stepped together."""
        return self._trainer.envs

    # --- using what was learned -----------------------------------------------------------

    def predict(
        self,
        observation: object,
        deterministic: bool = False,
        action_masks: Iterable[object] | None = None,
        *,
        state: npt.ArrayLike | None = None,
        episode_start: npt.ArrayLike | None = None,
    ) -> tuple[Any, npt.NDArray[np.float32] | None]:
        """Choose an action for one observation, or for a batch.

        Args:
            observation: as the environment gives it, or N of them: with a first dimension more
                in every array.
            deterministic: take the most probable action, else sample.
            state: of a policy with memory: what the call for the observation before gave; None at
                the start of an episode.
            episode_start: true where an observation begins an episode, so that its state is not
                looked at; of one observation or of each.
            action_masks: which actions may be taken, of one observation or of each, where the
                environment says it in training; None for all.

        Returns:
            The action as the environment takes it, or N of them; and the state for the next call,
            shape (n_state,) or (N, n_state): None of a policy without memory.

        Raises:
            IncompatibleError: another shape, or no finite numbers; a state that is none of these.
        """
        spec = self.policy.spec
        try:
            rows, single = spec.reads.rows(observation, action_masks)
            rows = rows.astype(np.float64)
        except (TypeError, ValueError) as error:
            shape = "" if spec.reads.is_tree else f" of shape {spec.reads.leaves[0].shape}"
            raise IncompatibleError(
                f"Expected an observation{shape}, or a batch of them, but {error}."
            ) from error
        if not np.isfinite(rows).all():
            raise IncompatibleError("The observation holds NaN or infinity.")
        if spec.reads.n_mask:
            ends = np.cumsum(choices(spec.action))[:-1]
            masks = np.split(spec.reads.masks(rows), ends, axis=1)
            if not all(allowed.any(axis=1).all() for allowed in masks):
                raise IncompatibleError("action_mask forbids every action of a choice.")
        after = self._remember(rows, state, episode_start)
        actions: Any = self.policy.predict(rows, deterministic, self._rng).actions
        if isinstance(spec.action, DictActions):
            space = self.get_env().spec.action_space
            actions = environment_actions(space, actions)
        if not spec.reads.n_state:
            return actions[0] if single else actions, None
        return (actions[0], after[0]) if single else (actions, after)

    def _remember(
        self,
        rows: npt.NDArray[np.float64],
        state: npt.ArrayLike | None,
        episode_start: npt.ArrayLike | None,
    ) -> npt.NDArray[np.float32]:
        """What is remembered after rows, which are told what is remembered before."""
        reads, n = self.policy.spec.reads, len(rows)
        if state is not None:
            if not reads.n_state:
                raise IncompatibleError("This policy has no memory: leave state out.")
            try:
                given = np.asarray(state)
                states = reads.state_rows(given[None] if given.ndim == 1 else given, n)
                begins = False if episode_start is None else episode_start
                states[np.broadcast_to(np.asarray(begins, np.bool_), n)] = 0.0
            except ValueError as error:
                raise IncompatibleError(f"state or episode_start: {error}.") from error
            reads.states(rows)[:] = states
        return np.asarray(self.policy.next_states(rows), np.float32)

    def evaluate(
        self,
        n_episodes: int = 100,
        *,
        deterministic: bool = True,
        seed: int = EVALUATION_SEED,
        env: Env | None = None,
    ) -> Evaluation:
        """Play seeded episodes on the environment's own reward, apart from training's seeds.

        Args:
            n_episodes: how many.
            deterministic: take the most probable actions.
            seed: gives the episodes' seeds.
            env: another environment than the one trained on.

        Returns:
            Returns and lengths of the episodes; their mean with its 95 % interval.

        Raises:
            ConfigError: the environment cannot be evaluated, or `n_episodes` is below 1.
            EnvironmentFaultError: it raised.
        """
        objects, config = dict(self._objects), self.config
        with fitting_threads(self.policy.flat.size):
            return evaluate(
                self.policy,
                config.env_name if env is None else _named(_source(env), objects),
                env_kwargs=config.env_kwargs if env is None else {},
                objects=objects,
                n_episodes=n_episodes,
                seed=seed,
                deterministic=deterministic,
                env_workers=config.env_workers,
            )

    def verdict(self, n_episodes: int = 100) -> Verdict:
        """Whether it learned: its evaluation beside random actions and beside what it started from.

        Args:
            n_episodes: of the evaluation; the two others play its first ones, as
                `Trainer.verdict` says.

        Raises:
            ConfigError: the environment cannot be evaluated, or `n_episodes` is below 1.
            EnvironmentFaultError: it raised.
        """
        return self._trainer.verdict(self.evaluate(n_episodes))

    # --- files ----------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to an `.npz` file without pickle: `load` goes on as if never paused.

        What was handed in as an object is named in the file, and asked for by `load`.

        Raises:
            OSError: the file cannot be written; one of that name that was there stays as it is.
        """
        spec = self.policy.spec.to_dict()
        checkpoint.save(path, self._trainer.state(), {_EXTRA_SPEC: spec})

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        env: Env | None = None,
        *,
        policy: type[BasePolicy] | None = None,
        policy_kwargs: Mapping[str, Any] | None = None,
        reward: RewardFunction | RewardDefinition | None = None,
        advantage: Callable[..., Any] | None = None,
        callback: Callback | None = None,
        device: Device | None = None,
    ) -> Self:
        """Read what `save` wrote.

        Args:
            path: the file.
            env: the environment again, where it was handed in as an object.
            policy: likewise.
            policy_kwargs: likewise, those that are classes.
            reward: likewise.
            advantage: likewise.
            callback: hears of every call of `learn`.
            device: where the minibatch updates happen; None for where they did.

        Raises:
            CheckpointError: the file is missing, damaged or foreign.
            IncompatibleError: an object that was handed in is missing; the message says which.
        """
        state, extra = checkpoint.load(path)
        if _EXTRA_SPEC not in extra:
            raise CheckpointError(f"{os.fspath(path)} was not written by GRPO.save.")
        config = state.config if device is None else replace(state.config, device=device)
        given = {
            config.env_name: None if env is None else _source(env),
            config.policy: policy,
            config.reward_function_type: reward,
            config.advantage: advantage,
        }
        objects = {name: thing for name, thing in given.items() if thing is not None}
        for key, value in (policy_kwargs or {}).items():
            if key in config.policy_kwargs:
                objects[config.policy_kwargs[key]] = value
        model = cls.__new__(cls)
        model._callback = callback
        model._chosen = config.to_dict()
        model._start(config, objects, replace(state, config=config))
        return model

    def __repr__(self) -> str:
        """Such as `GRPO(CartPole-v1, MlpPolicy 64×64, 5,000 timesteps)`."""
        config = self.config
        widths = "×".join(map(str, config.net_arch)) or "linear"
        policy = self.policy.spec.policy
        names = [config.env_name, f"{policy} {widths}", config.reward_function_type]
        told = ", ".join(name.strip("<>") for name in names)
        return f"GRPO({told}, {self.num_timesteps:,} timesteps)"


def _source(env: Env) -> str | EnvSpec | Callable[..., gym.Env[Any, Any]]:
    """What more environments can be made from."""
    if isinstance(env, str) and ":" in env:
        allow_module(env.rpartition(":")[0])  # as `gymnasium.make` would import it
    if not isinstance(env, gym.Env):
        return env
    if env.spec is None:
        raise IncompatibleError(
            f"GRPO steps several environments at once, and this {type(env.unwrapped).__name__} "
            "does not know how to make more of itself (its spec is None): pass its Gymnasium id, "
            "or a function that makes one, such as lambda: MyEnv().",
            field="env_name",
        )
    return env.spec


def _named(
    thing: object,
    objects: dict[str, Any],
    known: Mapping[Any, str] | None = None,
) -> str:
    """The name that stands for a thing; what has none of its own is put into `objects`."""
    if isinstance(thing, str):
        return thing
    if known and thing in known:
        return known[thing]
    if isinstance(thing, EnvSpec):
        if _plain(gym.registry.get(thing.id)) == _plain(thing):
            return thing.id
        name = f"<{thing.id}>"
    elif isinstance(thing, RewardDefinition):
        name = name_of(thing.function)
    else:
        name = name_of(thing)
    while objects.get(name, thing) is not thing:  # two lambdas of one module
        name = f"{name[:-1]}_>"
    objects[name] = thing
    return name


def _plain(spec: EnvSpec | None) -> dict[str, Any]:
    """What sets a registration apart; making an instance notes how it is to be rendered."""
    if spec is None:
        return {}
    kept = {k: v for k, v in spec.kwargs.items() if k != "render_mode" or v is not None}
    return vars(spec) | {"kwargs": kept}


def _refuse_unknown(hyperparameters: Mapping[str, Any]) -> None:
    known = set(fields_of(GRPOConfig)) - {"env_name", "reward_function_type"}
    for name in hyperparameters:
        if name not in known:
            raise OutOfRangeError(
                f"GRPO has no hyperparameter {name!r}. {did_you_mean(name, known)}"
                f"There are: {', '.join(sorted(known))}.",
                field=name,
            )


class _Callbacks(Reporter):
    """Several callbacks as one; one that says False ends training."""

    def __init__(self, callbacks: list[Callback]) -> None:
        self._reporters = [hook for hook in callbacks if isinstance(hook, Reporter)]
        self._functions = [hook for hook in callbacks if not isinstance(hook, Reporter)]

    def on_rollout(self, stats: RolloutStats) -> bool:
        """Pass it on."""
        said = [reporter.on_rollout(stats) for reporter in self._reporters]
        return not any(answer is False for answer in said)

    def on_update(self, stats: UpdateStats) -> bool:
        """Pass it on."""
        said = [reporter.on_update(stats) for reporter in self._reporters]
        said += [function(stats) for function in self._functions]
        return not any(answer is False for answer in said)

    def on_evaluation(self, timesteps: int, evaluation: Evaluation) -> None:
        """Pass it on."""
        for reporter in self._reporters:
            reporter.on_evaluation(timesteps, evaluation)

    def on_checkpoint(self, state: TrainingState) -> None:
        """Pass it on."""
        for reporter in self._reporters:
            reporter.on_checkpoint(state)


class _ProgressBar(Reporter):
    """One line on stderr, which also a notebook draws over itself."""

    _WIDTH = 30
    _EVERY_SECONDS = 0.1

    def __init__(self, total_timesteps: int) -> None:
        self._total = total_timesteps
        self._began = time.monotonic()
        self._due = 0.0
        self._return = float("nan")

    def on_rollout(self, stats: RolloutStats) -> None:
        """Remember the newest return."""
        if stats.episodes:
            self._return = stats.episodes[-1].episode_return

    def on_update(self, stats: UpdateStats) -> None:
        """Draw."""
        now, done = time.monotonic(), stats.timesteps >= self._total
        if now < self._due and not done:
            return
        self._due = now + self._EVERY_SECONDS
        share = min(1.0, stats.timesteps / self._total)
        bar = "#" * int(share * self._WIDTH)
        rate = stats.timesteps / max(now - self._began, 1e-9)
        sys.stderr.write(
            f"\r[{bar:<{self._WIDTH}}] {share:4.0%} {stats.timesteps:,}/{self._total:,} "
            f"{rate:,.0f} steps/s, return {self._return:.1f}{chr(10) if done else ''}"
        )
        sys.stderr.flush()
