"""The training loop, and nothing but the loop."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np

from grpo.advantages import ADVANTAGES
from grpo.checkpoint import PolicyState, TrainingState
from grpo.config import AUTO, GRPOConfig
from grpo.envs import Branching, EnvironmentSpec, check_environment, make_vec_env
from grpo.errors import IncompatibleError
from grpo.evaluation import Evaluation, evaluate
from grpo.learner import Learner
from grpo.policies import POLICIES, BasePolicy, PolicySpec, default_policy, make_policy
from grpo.registry import Objects
from grpo.reporting import Reporter, RolloutStats
from grpo.rewards import get_reward
from grpo.rng import Streams
from grpo.rollout import RolloutCollector
from grpo.threads import fitting_threads
from grpo.updates import Updater
from grpo.verdict import Verdict, compare_with_baselines

__all__ = ["EndedBy", "TrainResult", "Trainer", "policy_spec", "validate"]

EndedBy = Literal["total_timesteps", "target_return", "should_finish", "should_stop", "callback"]
"""What ended a training: its budget, an evaluation, one of the callers' questions, or a hook that
said False."""

_BASELINE_SHARE = 0.05  # of the training's steps that each baseline may play


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class TrainResult:
    """What a training run came to."""

    policy: BasePolicy
    """The policy after the last iteration."""

    timesteps: int
    """Timesteps done in the run so far, branches and replays included."""

    iterations: int
    """Iterations done in the run so far."""

    ended_by: EndedBy
    """What ended it."""

    evaluation: Evaluation | None
    """Greedy evaluation of `policy` on the environment's own reward; None if stopped."""

    branching: Branching
    """How visited states were reached again."""

    @property
    def stopped(self) -> bool:
        """Whether `should_stop` or a hook of the reporter ended it, in the middle."""
        return self.ended_by in ("should_stop", "callback")


class Trainer:
    """Trains a policy by GRPO (DeepSeekMath, arXiv 2402.03300) on a Gymnasium environment.

    Args:
        config: hyperparameters.
        objects: environments, rewards, advantages and classes that were handed in, by the names
            that `config` has for them.
        reporter: hears of rollouts, updates, evaluations and checkpoints.
        should_stop: asked between two iterations; ends the training as it is, to go on later.
        should_finish: asked between two iterations, from the second on; ends the training early
            but whole, with its evaluation.
        checkpoint_seconds: time between two calls of the reporter's `on_checkpoint`; None for
            none. What is learned does not depend on it.
        should_checkpoint: asked after each iteration; makes one more, likewise.
        state: go on from here; its config may differ only in `total_timesteps`.
        initial_policy: start from a copy of its weights and normaliser.
        updater: makes what does the minibatch updates; by default the one for `config.device`.

    Raises:
        ConfigError: `config` cannot be trained, or does not fit `state` or `initial_policy`.
    """

    def __init__(
        self,
        config: GRPOConfig,
        *,
        objects: Objects | None = None,
        reporter: Reporter | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        should_finish: Callable[[], bool] = lambda: False,
        checkpoint_seconds: float | None = None,
        should_checkpoint: Callable[[], bool] = lambda: False,
        state: TrainingState | None = None,
        initial_policy: BasePolicy | None = None,
        updater: Callable[[BasePolicy, GRPOConfig], Updater] | None = None,
    ) -> None:
        spec = validate(config, objects)
        self.config = config
        self._objects = objects or {}
        self.reporter = Reporter() if reporter is None else reporter
        self._should_stop = should_stop
        self._should_finish = should_finish
        self._checkpoint_seconds = checkpoint_seconds
        self._should_checkpoint = should_checkpoint
        self.policy = make_policy(policy_spec(spec, config, objects), config.seed, objects)
        if initial_policy is not None:
            _copy_policy(initial_policy, self.policy)
        self._start = PolicyState.of(self.policy)
        self._started_elsewhere = initial_policy is not None
        self._streams = Streams.from_seed(config.seed)
        self.envs = make_vec_env(
            config.env_name,
            config.env_kwargs,
            config.num_groups * config.group_size,
            objects=objects,
            branching=config.start_states != "reset",
            env_workers=config.env_workers,
        )
        self._learner = Learner(
            self.policy, config, self._streams, updater and updater(self.policy, config), objects
        )
        self._collector = RolloutCollector(
            self.policy,
            self.envs,
            get_reward(config.reward_function_type, spec, objects),
            config,
            self._streams,
        )
        if state is not None:
            self._load(state)

    @property
    def timesteps(self) -> int:
        """Environment steps of the run so far, replays included."""
        return self._collector.timesteps

    @property
    def resumes_exactly(self) -> bool:
        """Whether a run that goes on from a `state` equals one that never paused, bit for bit."""
        return self._stores_states or not self._collector.goes_on

    @property
    def _stores_states(self) -> bool:
        return self.envs.storable_snapshots and self.envs.branching != "none"

    @property
    def branching(self) -> tuple[Branching, str]:
        """How visited states are reached again, and in a sentence why so."""
        if self.config.start_states == "reset":
            return "none", "start_states is 'reset': every group starts at a seeded reset."
        if self.config.start_states == "continue":
            return "none", "start_states is 'continue': every member goes on with its own episode."
        return self.envs.branching, self.envs.branching_reason

    def train(self) -> TrainResult:
        """Collect and learn until the budget is used, `target_return` reached, or the end asked.

        It may be called again, after a stop or with a new budget, and goes on.

        Raises:
            TrainingDivergedError: weights or losses became NaN or infinite.
            EnvironmentFaultError: the environment raised.
            RewardError, AdvantageError: that function did, or returned what is none.
        """
        with fitting_threads(self.policy.flat.size):
            return self._train()

    def _train(self) -> TrainResult:
        checkpoint_due = _Timer(self._checkpoint_seconds)
        evaluation = None
        while (remaining := self.config.total_timesteps - self.timesteps) > 0:
            if self._should_stop():
                return self._result("should_stop")
            if self.timesteps > 0 and self._should_finish():
                return self._result("should_finish", evaluation or self._evaluate())
            before = self.timesteps
            goes_on = self._iterate(remaining)
            evaluation = self._evaluate_if_due(before)
            is_asked_for = self._should_checkpoint()
            if checkpoint_due() or is_asked_for:
                self.reporter.on_checkpoint(self.state())
            if evaluation is not None and self._reached(evaluation):
                return self._result("target_return", evaluation)
            if not goes_on:
                return self._result("callback")
        return self._result("total_timesteps", self._evaluate())

    def verdict(self, evaluation: Evaluation) -> Verdict:
        """Compare an evaluation of the policy with random actions, and with what it started from.

        Each plays the first episodes of the evaluation, at least `LEAST_EPISODES`, and at most a
        twentieth of the timesteps that were trained. An untrained start reads observations
        standardised as the trained policy does, since it has seen none. Nothing is drawn from the
        training's random streams, and the policy is as it was.

        Args:
            evaluation: greedy, of the policy as it is.

        Raises:
            EnvironmentFaultError: the environment raised.
        """
        config, now, start = self.config, PolicyState.of(self.policy), self._start
        if not self._started_elsewhere:
            start = replace(start, buffers=now.buffers)
        start.load_into(self.policy)
        try:
            with fitting_threads(self.policy.flat.size):
                return compare_with_baselines(
                    evaluation,
                    self.policy,
                    env_kwargs=config.env_kwargs,
                    objects=self._objects,
                    env_workers=config.env_workers,
                    most_steps=int(self.timesteps * _BASELINE_SHARE),
                )
        finally:
            now.load_into(self.policy)

    def set_budget(
        self,
        total_timesteps: int,
        fitting: GRPOConfig,
        *,
        reset_num_timesteps: bool,
    ) -> None:
        """Give the next `train` so many timesteps, with a learning-rate schedule over them.

        Args:
            total_timesteps: how many.
            fitting: has the learning rates, segments and clip range from now on, which may go with
                the budget.
            reset_num_timesteps: count from 0 again; else on from those that were done, and the
                schedule goes on where so many of all of them leave it.

        Raises:
            OutOfRangeError: fewer than one.
        """
        config = replace(
            self.config,
            total_timesteps=total_timesteps,
            learning_rate=fitting.learning_rate,
            log_std_rate=fitting.log_std_rate,
            n_steps=fitting.n_steps,
            clip_range=fitting.clip_range,
        )
        if reset_num_timesteps:
            self._collector.timesteps = 0
        else:
            config = replace(config, total_timesteps=total_timesteps + self.timesteps)
        learner = self._learner
        self.config = learner.config = learner.updater.config = self._collector.config = config

    def close(self) -> None:
        """Let the environments go."""
        self.envs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _iterate(self, remaining: int) -> bool:
        """One iteration; returns whether no hook said False."""
        rollout = self._collector.collect(remaining)
        comparison = self._learner.compare(rollout)
        stats = RolloutStats(
            timesteps=rollout.timesteps,
            rewards=rollout.mean_rewards(),
            episodes=rollout.episodes,
            degenerate_fraction=comparison.advantages.degenerate_fraction,
            sibling_fraction=rollout.sibling_fraction,
            shared_variance=comparison.shared_variance,
        )
        goes_on = self.reporter.on_rollout(stats) is not False
        update = self._learner.learn(rollout, comparison)
        return self.reporter.on_update(update) is not False and goes_on

    def _evaluate_if_due(self, before: int) -> Evaluation | None:
        """Evaluate when a multiple of `eval_freq` was passed since `before`, short of the end."""
        frequency, now = self.config.eval_freq, self.timesteps
        passed = frequency > 0 and now // frequency > before // frequency
        return self._evaluate() if passed and now < self.config.total_timesteps else None

    def _evaluate(self) -> Evaluation:
        config = self.config
        evaluation = evaluate(
            self.policy,
            config.env_name,
            env_kwargs=config.env_kwargs,
            objects=self._objects,
            n_episodes=config.n_eval_episodes,
            env_workers=config.env_workers,
        )
        self.reporter.on_evaluation(self.timesteps, evaluation)
        return evaluation

    def _reached(self, evaluation: Evaluation) -> bool:
        target = self.config.target_return
        return target is not None and evaluation.mean >= target

    def _result(self, ended_by: EndedBy, evaluation: Evaluation | None = None) -> TrainResult:
        return TrainResult(
            policy=self.policy,
            timesteps=self.timesteps,
            iterations=self._learner.iterations,
            ended_by=ended_by,
            evaluation=evaluation,
            branching=self.branching[0],
        )

    def state(self) -> TrainingState:
        """A copy of everything that the rest of the run depends on."""
        learner, storable = self._learner, self._stores_states
        policy = PolicyState.of(self.policy)
        starts = self._collector.next_starts
        members = self._collector.members() if storable else ()
        return TrainingState(
            config=self.config,
            weights=policy.weights,
            buffers=policy.buffers,
            optimizer=learner.updater.state(),
            reference=None if learner.reference is None else learner.reference.copy(),
            streams=self._streams.state(),
            next_starts=tuple(starts) if storable else (None,) * len(starts),
            members=members,
            timesteps=self.timesteps,
            iterations=learner.iterations,
            n_updates=learner.n_updates,
            start=self._start if self._started_elsewhere else None,
        )

    def _load(self, state: TrainingState) -> None:
        allowed = {"total_timesteps": self.config.total_timesteps}
        if state.config.to_dict() | allowed != self.config.to_dict():
            raise IncompatibleError("The state to go on from belongs to another config.")
        state.policy.load_into(self.policy)
        if state.start is not None:
            self._start, self._started_elsewhere = state.start, True
        learner = self._learner
        learner.updater.load(state.optimizer)
        learner.reference = None if state.reference is None else state.reference.copy()
        learner.iterations, learner.n_updates = state.iterations, state.n_updates
        self._streams.load(state.streams)
        self._collector.resume(state.next_starts, state.members, state.timesteps)


def validate(config: GRPOConfig, objects: Objects | None = None) -> EnvironmentSpec:
    """Check everything about a config that can be known before training starts.

    The environment is made and reset once. Whether the device exists is for the machine that
    trains, which may be another one.

    Args:
        config: hyperparameters.
        objects: environments, rewards, advantages and classes that were handed in, by the names
            that `config` has for them.

    Returns:
        The environment, as a policy sees it.

    Raises:
        ConfigError: what is wrong, and what would be right.
    """
    spec = check_environment(config.env_name, config.env_kwargs, objects)
    get_reward(config.reward_function_type, spec, objects)
    ADVANTAGES.get(config.advantage, objects)
    fitting = policy_spec(spec, config, objects)
    if fitting.policy != "MlpPolicy" or config.policy_kwargs:
        # the MLP alone always fits, and a large one takes minutes to draw
        make_policy(fitting, config.seed, objects)
    return spec


def policy_spec(
    environment: EnvironmentSpec, config: GRPOConfig, objects: Objects | None = None
) -> PolicySpec:
    """The policy that fits an environment.

    Raises:
        UnknownNameError: there is none of that name.
        IncompatibleError: it was handed in and is not in `objects`.
    """
    reads = environment.observation
    policy = default_policy(reads) if config.policy == AUTO else config.policy
    n_state = POLICIES.get(policy, objects).state_size(config.policy_kwargs)
    reads = replace(reads, n_state=n_state)
    return PolicySpec(
        observation_shape=reads.shape,
        observation=None if reads.is_plain else reads,
        action=environment.action,
        net_arch=config.net_arch,
        normalize_observations=config.normalize_observations,
        policy=policy,
        policy_kwargs=config.policy_kwargs,
    )


def _copy_policy(source: BasePolicy, target: BasePolicy) -> None:
    if source.spec != target.spec:
        raise IncompatibleError(
            "The policy to start from is of another make: use the environment, policy, "
            "policy_kwargs, net_arch and normalize_observations that it was trained with.",
            field="policy" if source.spec.policy != target.spec.policy else "net_arch",
        )
    target.load_state_dict(source.state_dict())


class _Timer:
    """True once each time that so many seconds have passed; never without seconds."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = np.inf if seconds is None else seconds
        self._last = time.monotonic()

    def __call__(self) -> bool:
        now = time.monotonic()
        if now - self._last < self._seconds:
            return False
        self._last = now
        return True
