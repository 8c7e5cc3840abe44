"""Episodes that are handed on: every space in both formats, and what is in a file plays again."""

import json
import os

import minari
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from grpo import GRPO
from grpo.envs import check_environment
from grpo.spaces import environment_actions
from grpo_platform.cli import app
from grpo_platform.registry import trajectory_files
from tests.algorithm.toy_environments import Mixed, Thermostat, Walk, registered
from tests.service.registry_support import Bench


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    with (
        registered(Mixed, "Mixed-v0", max_episode_steps=20),
        registered(Walk, "Walk-v0", max_episode_steps=9),
        registered(Thermostat, "Thermostat-v0", max_episode_steps=7),
    ):
        yield Bench(tmp_path_factory.mktemp("store"))


@pytest.fixture(autouse=True)
def here(bench, monkeypatch):
    monkeypatch.chdir(os.path.dirname(bench.uri.removeprefix("sqlite:///")))


MODELS = {
    "cartpole": ("CartPole-v1", {}),
    "walk-2x2": ("Walk-v0", {}),
    "scalar": ("Thermostat-v0", {}),
    "choices": ("Mixed-v0", {}),
    "tree": ("Mixed-v0", {"tree": True}),
    "wrapped": ("Pendulum-v1", {"wrappers": ["TimeAwareObservation"]}),
}


def model(bench, name):
    env_name, kwargs = MODELS[name]
    if bench.registry.lookup(name) is None:
        bench.register(name, GRPO(env_name, env_kwargs=kwargs, seed=1, policy="MlpPolicy").policy,
                       env_name=env_name, **kwargs)  # fmt: skip
    return check_environment(env_name, kwargs)


def export(name, target, *more):
    words = ["episodes", "export", name, "--output", str(target), "--episodes", "17", *more]
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["path"] == str(target)
    assert json.loads((target / "metadata.json").read_text()) == {
        key: value for key, value in told.items() if key != "path"
    }
    return told


def play_again(spec, seed, actions):
    """Rewards and observations of an instance of its own, not of this platform's way of playing."""
    env = spec.make()
    observation, _ = env.reset(seed=int(seed))
    rewards, seen = [], [observation]
    for action in actions:
        observation, reward, *_ = env.step(action)
        rewards.append(float(reward))
        seen.append(observation)
    env.close()
    return rewards, seen


@pytest.mark.rotated(12)
@pytest.mark.parametrize("name", MODELS)
def test_a_parquet_file_plays_again(bench, tmp_path, name):
    spec = model(bench, name)
    told = export(name, tmp_path / "out", "--sample", "--seed", "3")
    steps = pd.read_parquet(tmp_path / "out" / "steps")
    episodes = pd.read_parquet(tmp_path / "out" / "episodes.parquet")
    assert len(steps) == told["steps"]
    assert len(episodes) == told["episodes"] == 17
    assert steps[["value", "log_prob"]].notna().all(axis=None)
    assert told["wrappers"] == MODELS[name][1].get("wrappers", [])
    columns = {column["name"]: column for column in told["columns"]}
    for number, one in steps.groupby("episode"):
        row = episodes.loc[number]
        assert one["reward"].sum() == row["return"]
        assert one["step"].tolist() == list(range(row["length"]))
        assert not one["terminated"][:-1].any()
        assert one["terminated"].iloc[-1] == row["terminated"]
        parts = [np.stack(one[c]).reshape(len(one), -1) for c in columns if c.startswith("action")]
        rows = np.concatenate(parts, axis=1).reshape(len(one), *spec.action.shape)
        actions = environment_actions(spec.action_space, rows)
        rewards, seen = play_again(spec, row["seed"], actions)
        assert rewards == one["reward"].tolist()
        for leaf in spec.observation.leaves:
            column = f"observation.{leaf.name}" if leaf.path else "observation"
            kept = [*one[column], row[f"final_{column}"]]
            for then, now in zip(kept, seen, strict=True):
                for key in leaf.path:
                    now = now[key]
                assert np.array_equal(np.asarray(then).ravel(), np.ravel(now)), column
    for name, column in columns.items():
        kept = np.asarray(steps[name].iloc[0])
        assert kept.size == np.prod(column["shape"])
        assert kept.dtype.name == column["dtype"]


@pytest.mark.parametrize("name", ["cartpole", "scalar", "tree", "wrapped"])
def test_a_minari_dataset_plays_again(bench, tmp_path, monkeypatch, name):
    spec = model(bench, name)
    told = export(name, tmp_path / "out", "--format", "minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "out"))
    dataset = minari.load_dataset(told["dataset_id"])
    assert dataset.total_episodes == 17
    assert dataset.total_steps == told["steps"]
    assert dataset.observation_space == spec.observation_space
    assert dataset.action_space == spec.action_space
    registered_by_class = dataset.env_spec is None  # which no JSON holds
    assert registered_by_class or dataset.env_spec.id == spec.env_name
    assert registered_by_class == (name in ("scalar", "tree"))
    for one in dataset.iterate_episodes():
        n = len(one.rewards)
        assert one.terminations[-1] or one.truncations[-1]
        assert len(one.infos["value"]) == n + 1
        actions = [_at(one.actions, i) for i in range(n)]
        seed = dataset.storage.get_episode_metadata([one.id])
        rewards, seen = play_again(spec, next(iter(seed))["seed"], actions)
        assert rewards == one.rewards.tolist()
        for i, now in enumerate(seen):
            assert _equal(_at(one.observations, i), now)


def _at(tree, i):
    if isinstance(tree, dict):
        return {key: _at(part, i) for key, part in tree.items()}
    return tuple(_at(part, i) for part in tree) if isinstance(tree, tuple) else tree[i, ...]


def _equal(a, b):
    if isinstance(a, dict):
        return all(_equal(a[key], b[key]) for key in a)
    return np.array_equal(a, b)


@pytest.mark.rotated(12)
def test_masks_are_a_column(bench, tmp_path):
    class Choosy(Walk):
        def reset(self, **kwargs):
            return super().reset(**kwargs)[0], {"action_mask": np.array([1, 0], np.int8)}

        def step(self, action):
            *rest, _ = super().step(action)
            return *rest, {"action_mask": np.array([1, 1], np.int8)}

    with registered(Choosy, "Choosy-v0", max_episode_steps=5):
        bench.register("choosy", GRPO("Choosy-v0", seed=1).policy, env_name="Choosy-v0")
        export("choosy", tmp_path / "out")
        steps = pd.read_parquet(tmp_path / "out" / "steps")
    assert steps.groupby("episode")["action_mask"].first().map(list).tolist() == [[1, 0]] * 17
    assert len(steps["observation"].iloc[0]) == 4


def test_what_cannot_be_written_is_a_sentence_and_leaves_nothing(bench, tmp_path, monkeypatch):
    model(bench, "cartpole")
    words = ["episodes", "export", "cartpole", "--output", str(tmp_path / "a" / "out")]
    monkeypatch.setattr(trajectory_files, "find_spec", lambda name: None)
    done = CliRunner().invoke(app, [*words, "--format", "minari"])
    assert done.exit_code == 1
    assert "pip install 'grpo-platform[minari]'" in done.stderr
    assert not (tmp_path / "a").exists()
    missing = CliRunner().invoke(app, [*words[:2], "nothing", *words[3:]])
    assert missing.exit_code == 1
    assert "No model 'nothing'" in missing.stderr
    (tmp_path / "file").write_text("")
    blocked = CliRunner().invoke(app, [*words[:4], str(tmp_path / "file" / "out")])
    assert blocked.exit_code == 1
    assert "cannot be written" in blocked.stderr
    (tmp_path / "there").mkdir()
    taken = CliRunner().invoke(app, [*words[:4], str(tmp_path / "there")])
    assert taken.exit_code == 1
    assert "exists already" in taken.stderr
