"""The trainer as a whole: seeds, budgets, resuming, reports, and that it learns what it should."""

import dataclasses
from itertools import pairwise

import gymnasium
import numpy as np
import pytest

from grpo import (
    ConfigError,
    Reporter,
    Trainer,
    TrainingDivergedError,
    checkpoint,
    resolve_config,
)
from grpo.advantages import ADVANTAGES
from grpo.errors import IncompatibleError, UnknownNameError
from grpo.numpy_updater import NumpyUpdater
from grpo.registry import name_of
from grpo.torch_updater import TorchUpdater
from tests.algorithm.builders import CountingEnv, make_policy, short_config
from tests.algorithm.toy_environments import Thermostat, registered


class Recorder(Reporter):
    """Keeps all that it hears."""

    def __init__(self):
        self.rollouts, self.updates, self.evaluations, self.states = [], [], [], []

    def on_rollout(self, stats):
        self.rollouts.append(stats)

    def on_update(self, stats):
        self.updates.append(stats)

    def on_evaluation(self, timesteps, evaluation):
        self.evaluations.append((timesteps, evaluation.mean))

    def on_checkpoint(self, state):
        self.states.append(state)


def run(**fields):
    recorder = Recorder()
    trainer = Trainer(short_config(**fields), reporter=recorder)
    return trainer.train(), recorder


# --- seeds -------------------------------------------------------------------------------


def test_equal_seeds_give_equal_bits_and_different_ones_do_not():
    (one, first), (two, second), (other, _) = (run(seed=s) for s in (3, 3, 4))
    np.testing.assert_array_equal(one.policy.flat, two.policy.flat)
    assert first.updates == second.updates
    assert not np.array_equal(one.policy.flat, other.policy.flat)


def test_bits_do_not_depend_on_checkpoints_or_reports():
    plain = Trainer(short_config()).train()
    recorder = Recorder()
    watched = Trainer(
        short_config(eval_freq=200), reporter=recorder, checkpoint_seconds=0.0
    ).train()
    np.testing.assert_array_equal(plain.policy.flat, watched.policy.flat)
    assert len(recorder.states) == watched.iterations


def test_a_checkpoint_is_made_when_it_is_asked_for_and_changes_no_bit():
    plain = Trainer(short_config()).train()
    recorder, asked = Recorder(), iter([False, True, False, True])
    watched = Trainer(
        short_config(), reporter=recorder, should_checkpoint=lambda: next(asked, False)
    ).train()
    assert [state.iterations for state in recorder.states] == [2, 4]
    np.testing.assert_array_equal(plain.policy.flat, watched.policy.flat)
    resumed = Trainer(short_config(), state=recorder.states[0]).train()
    np.testing.assert_array_equal(plain.policy.flat, resumed.policy.flat)


# Means over parameters after a short run; they change when the algorithm does, on purpose only.
GOLDEN = {
    "timesteps": 700, "iterations": 17, "n_updates": 52, "entropy": 0.692822, "norm": 11.669375,
}  # fmt: skip


def test_golden_trace():
    result, recorder = run(seed=7)
    last = recorder.updates[-1]
    trace = {
        "timesteps": result.timesteps,
        "iterations": result.iterations,
        "n_updates": last.n_updates,
        "entropy": last.entropy,
        "norm": float(np.linalg.norm(result.policy.policy_parameters.flat)),
    }
    assert trace == pytest.approx(GOLDEN, rel=1e-4)


# --- budget ------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [1, 2, 5, 63, 64, 65, 500])
@pytest.mark.parametrize("fields", [{}, {"num_groups": 3, "group_size": 2}])
def test_the_budget_is_used_to_the_step_and_never_passed(budget, fields):
    result, recorder = run(total_timesteps=budget, **fields)
    assert result.timesteps == budget
    assert recorder.rollouts[-1].timesteps[-1] == budget


def test_the_counter_equals_an_instrumented_environments():
    # LunarLander is branched by replaying its episode, and the replayed steps count
    gymnasium.register(
        "Counted-v0", lambda **kwargs: CountingEnv(gymnasium.make("LunarLander-v3", **kwargs))
    )
    counts = []

    class Counter(Reporter):
        def on_rollout(self, stats):
            counts.append((int(stats.timesteps[-1]), CountingEnv.steps - at_start))
            collected.append(len(stats.timesteps))

    collected = []
    try:
        config = short_config(
            env_name="Counted-v0", reward_function_type="environment", n_eval_episodes=1,
            group_size=2, branch_probability=1.0,
        )  # fmt: skip
        trainer = Trainer(config, reporter=Counter())
        at_start = CountingEnv.steps
        result = trainer.train()
    finally:
        del gymnasium.registry["Counted-v0"]
    assert result.branching == "replay"
    assert all(reported == counted for reported, counted in counts)
    assert counts[-1][0] == 700 > 2 * sum(collected)  # replays were among them


@pytest.mark.parametrize(
    ("fields", "branching", "reason"),
    [
        ({}, "exact", "one array"),
        ({"start_states": "reset"}, "none", "start_states is 'reset'"),
        ({"env_name": "Hopper-v5"}, "exact", "the simulation's whole state is copied"),
        ({"env_name": "LunarLander-v3"}, "replay", "episodes are played again, whose steps count"),
    ],
)
def test_how_visited_states_are_reached_again_is_said_with_the_reason(fields, branching, reason):
    trainer = Trainer(short_config(reward_function_type="environment", **fields))
    assert trainer.branching[0] == branching
    assert reason in trainer.branching[1]


@pytest.mark.parametrize("whole", [False, True])
def test_scalars_and_whole_numbers_are_trained(whole):
    with registered(lambda: Thermostat(whole=whole), max_episode_steps=30) as env_name:
        config = short_config(env_name=env_name, reward_function_type="environment")
        result = Trainer(config).train()
    assert result.timesteps == 700
    actions = result.policy.predict(np.zeros(3)).actions
    assert actions.shape == ((3, 2) if whole else (3,))
    if whole:
        assert np.array_equal(actions, np.rint(actions))


# --- resume ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"num_groups": 2, "kl_coef": 0.1, "reference_iterations": 3, "bootstrap": True},
        {"env_name": "Pendulum-v1", "reward_function_type": "environment"},
        {"learning_rate_schedule": "linear"},
        {"env_name": "Acrobot-v1", "reward_function_type": "environment", "start_states": "reset"},
    ],
)
def test_resuming_is_bit_identical(tmp_path, fields):
    whole, all_of_it = run(**fields)
    asked = iter([False] * 4 + [True] * 100)
    first = Recorder()
    trainer = Trainer(short_config(**fields), reporter=first, should_stop=lambda: next(asked))
    assert trainer.train().stopped
    checkpoint.save(tmp_path / "c.npz", trainer.state(), {})
    state, _ = checkpoint.load(tmp_path / "c.npz")
    second = Recorder()
    resumed = Trainer(short_config(**fields), reporter=second, state=state).train()
    np.testing.assert_array_equal(resumed.policy.flat, whole.policy.flat)
    assert first.updates + second.updates == all_of_it.updates
    for here, there in zip(first.rollouts + second.rollouts, all_of_it.rollouts, strict=True):
        np.testing.assert_array_equal(here.rewards, there.rewards)
        np.testing.assert_array_equal(here.timesteps, there.timesteps)
    assert second.evaluations == all_of_it.evaluations


def test_a_state_is_a_copy_that_later_steps_do_not_change():
    recorder = Recorder()
    Trainer(short_config(), reporter=recorder, checkpoint_seconds=0.0).train()
    resumed = Trainer(short_config(), state=recorder.states[2]).train()
    np.testing.assert_array_equal(resumed.policy.flat, recorder.states[-1].weights)


def test_a_longer_budget_goes_on_from_a_finished_run():
    trainer = Trainer(short_config(total_timesteps=128))
    trainer.train()
    result = Trainer(short_config(total_timesteps=300), state=trainer.state()).train()
    assert result.timesteps == 300


def test_a_state_of_another_config_is_refused():
    trainer = Trainer(short_config(total_timesteps=64))
    with pytest.raises(IncompatibleError):
        Trainer(short_config(gamma=0.9), state=trainer.state())


# --- stop, evaluation, reports -----------------------------------------------------------


def test_should_stop_ends_between_two_iterations():
    answers = iter([False, False, True])
    result = Trainer(short_config(), should_stop=lambda: next(answers)).train()
    assert result.stopped
    assert result.iterations == 2
    assert result.evaluation is None


def test_should_finish_ends_whole_and_evaluates_once():
    config = short_config(total_timesteps=5_000, eval_freq=1)
    recorder = Recorder()
    answers = iter([False, True])
    result = Trainer(config, reporter=recorder, should_finish=lambda: next(answers)).train()
    assert (result.ended_by, result.stopped, result.iterations) == ("should_finish", False, 2)
    assert result.evaluation.mean == recorder.evaluations[-1][1]
    assert len(recorder.evaluations) == 2


def test_evaluations_come_at_their_frequency_and_at_the_end():
    _, recorder = run(total_timesteps=500, eval_freq=150)
    times = [timesteps for timesteps, _ in recorder.evaluations]
    assert [t // 150 for t in times] == [1, 2, 3, 3]
    assert times[-1] == 500


def test_training_ends_once_the_target_is_reached():
    result, recorder = run(total_timesteps=5_000, eval_freq=100, target_return=5.0)
    assert (result.ended_by, result.stopped) == ("target_return", False)
    assert 100 <= result.timesteps < 200
    assert len(recorder.evaluations) == 1
    assert result.evaluation.mean == recorder.evaluations[0][1] >= 5.0


def test_reports_add_up():
    result, recorder = run()
    updates = recorder.updates
    assert [u.iteration for u in updates] == list(range(1, result.iterations + 1))
    assert all(one.n_updates <= two.n_updates for one, two in pairwise(updates))
    assert [u.timesteps for u in updates] == [r.timesteps[-1] for r in recorder.rollouts]
    steps = np.concatenate([r.timesteps for r in recorder.rollouts])
    assert (np.diff(steps) > 0).all()
    for update in updates:
        assert update.approx_kl >= 0.0
        assert 0.0 <= update.clip_fraction <= 1.0
        assert update.explained_variance <= 1.0
        assert all(np.isfinite(v) for v in dataclasses.asdict(update).values())


def test_the_value_head_learns_what_returns_are():
    # its error on all transitions of an iteration, against that of their mean
    _, recorder = run(
        total_timesteps=6_000, n_epochs=10, learning_rate=1e-3, n_steps=64, num_groups=4,
        start_states="reset", gamma=0.9, bootstrap=True,
    )  # fmt: skip
    late = [u.explained_variance for u in recorder.updates[-10:]]
    assert np.mean(late) > 0.3


# --- starting points ---------------------------------------------------------------------


def test_initial_policy_is_started_from_and_left_alone():
    first = Trainer(short_config()).train().policy
    before = first.flat.copy()
    trainer = Trainer(short_config(seed=9), initial_policy=first)
    np.testing.assert_array_equal(trainer.policy.flat, before)
    assert float(trainer.policy.observation_count) == float(first.observation_count) > 0
    trainer.train()
    np.testing.assert_array_equal(first.flat, before)


def test_an_initial_policy_of_other_shapes_is_refused():
    with pytest.raises(IncompatibleError, match="net_arch"):
        Trainer(short_config(), initial_policy=make_policy())


# --- what cannot be trained ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "error", "field"),
    [
        ({"env_name": "Nowhere-v0"}, UnknownNameError, "env_name"),
        ({"reward_function_type": "nothing"}, UnknownNameError, "reward_function_type"),
        ({"env_name": "Pendulum-v1"}, IncompatibleError, "reward_function_type"),
    ],
)
def test_bad_configs_are_refused_before_a_step(fields, error, field):
    with pytest.raises(error) as caught:
        Trainer(short_config(**fields))
    assert isinstance(caught.value, ConfigError)
    assert caught.value.field == field


def test_weights_that_are_not_finite_end_the_training():
    policy = Trainer(short_config()).policy
    policy.value_parameters.flat[:] = np.nan
    with pytest.raises(TrainingDivergedError):
        Trainer(short_config(), initial_policy=policy).train()


# --- paths and variants --------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["constant", "cooldown", "linear"])
def test_the_learning_rate_follows_its_schedule(schedule):
    rates = []

    class Noting(NumpyUpdater):
        def set_learning_rate(self, learning_rate):
            rates.append(learning_rate)
            super().set_learning_rate(learning_rate)

    recorder = Recorder()
    config = short_config(learning_rate_schedule=schedule)
    Trainer(config, reporter=recorder, updater=Noting).train()
    left = [1.0 - stats.timesteps[0] / config.total_timesteps for stats in recorder.rollouts]
    shares = {
        "constant": [1.0] * len(left),
        "cooldown": [1.0 if share > 0.3 else share / 0.3 for share in left],
        "linear": left,
    }
    assert rates == [config.learning_rate * share for share in shares[schedule]]
    assert len(rates) > 3
    assert min(left) < 0.3


@pytest.mark.rotated(7)
def test_the_autograd_path_trains_the_same_policy():
    closed = Trainer(short_config(total_timesteps=300)).train()
    plain = Trainer(short_config(total_timesteps=300), updater=TorchUpdater).train()
    np.testing.assert_allclose(closed.policy.flat, plain.policy.flat, atol=1e-4)


@pytest.mark.parametrize("advantage", ADVANTAGES.names())
@pytest.mark.parametrize("start_states", ["branch", "branch_worst", "reset"])
def test_every_variant_trains(advantage, start_states):
    result, recorder = run(
        advantage=advantage, start_states=start_states, bootstrap=True, kl_coef=0.01,
        ent_coef=0.01, clip_range_high=0.3, total_timesteps=300,
    )  # fmt: skip
    assert result.timesteps == 300
    assert recorder.updates[-1].n_updates > 0


def test_bootstrap_changes_returns_and_its_absence_keeps_the_value_head_out():
    with_v, _ = run(bootstrap=True)
    without, _ = run()
    assert not np.array_equal(
        with_v.policy.policy_parameters.flat, without.policy.policy_parameters.flat
    )
    trainer = Trainer(short_config())
    trainer.policy.value_parameters.flat[:] = 5.0
    np.testing.assert_array_equal(
        trainer.train().policy.policy_parameters.flat, without.policy.policy_parameters.flat
    )


def test_one_step_does_not_tell_actions_apart_on_cartpole_but_two_do():
    # explicit Euler: position and angle after one step do not depend on the action
    one, first = run(n_steps=1, start_states="reset", group_size=8)
    two, second = run(n_steps=2, start_states="reset", group_size=8)
    assert all(r.degenerate_fraction == 1.0 for r in first.rollouts)
    assert all(u.n_updates == 0 for u in first.updates)
    np.testing.assert_array_equal(
        one.policy.policy_parameters.flat, Trainer(short_config()).policy.policy_parameters.flat
    )
    assert any(r.degenerate_fraction < 1.0 for r in second.rollouts)
    assert not np.array_equal(one.policy.policy_parameters.flat, two.policy.policy_parameters.flat)


@pytest.mark.slow
def test_cartpole_is_learned_and_shuffled_advantages_learn_nothing():
    config = resolve_config(total_timesteps=5_000, seed=42, n_eval_episodes=30)
    assert Trainer(config).train().evaluation.mean > 400

    def shuffled(returns, alive):
        values, degenerate = ADVANTAGES.get("z_time")(returns, alive)
        rng = np.random.default_rng(len(returns))
        mixed = np.array(values)
        mixed[alive] = rng.permutation(values[alive])
        return mixed, degenerate

    name = name_of(shuffled)
    control = Trainer(dataclasses.replace(config, advantage=name), objects={name: shuffled}).train()
    assert control.evaluation.mean < 150
