"""Wrappers by name, modules by leave: the same environment everywhere, and no other code."""

import sys
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from grpo import GRPO, GRPOConfig, evaluate
from grpo.envs import catalogue, check_environment
from grpo.errors import ConfigError, IncompatibleError, UnknownNameError

STACK = [{"name": "FrameStackObservation", "kwargs": {"stack_size": 3}}, "FlattenObservation"]


def test_an_environment_is_trained_and_evaluated_in_its_wrappers():
    model = GRPO("CartPole-v1", env_kwargs={"wrappers": STACK}, seed=1, n_steps=16)
    spec = model.get_env().spec
    assert spec.observation_shape == (12,)
    assert spec.deviations[:2] == (
        "it is wrapped in FlattenObservation", "it is wrapped in FrameStackObservation"
    )  # fmt: skip
    model.learn(200)
    found = model.evaluate(3)
    again = evaluate(model.policy, "CartPole-v1", env_kwargs=model.config.env_kwargs, n_episodes=3)
    assert found.returns.tolist() == again.returns.tolist()
    assert GRPOConfig(**model.config.to_dict()) == model.config


def test_wrappers_are_put_on_in_their_order():
    first = check_environment(
        "Pendulum-v1", {"wrappers": ["FlattenObservation", {"name": "TimeAwareObservation"}]}
    )
    assert first.observation_shape == (4,)
    limited = {"wrappers": [{"name": "TimeLimit", "kwargs": {"max_episode_steps": 7}}]}
    assert check_environment("Pendulum-v1", limited).max_episode_steps == 7
    assert check_environment("Pendulum-v1", limited).to_dict() != (
        check_environment("Pendulum-v1").to_dict()
    )


@pytest.mark.parametrize(
    ("wrappers", "error", "says"),
    [
        (["FrameStackObservatio"], UnknownNameError, "FrameStackObservation"),
        (["RecordVideo"], UnknownNameError, "RecordVideo"),
        (["NormalizeReward"], UnknownNameError, "NormalizeReward"),
        (["os.system"], UnknownNameError, "os.system"),
        (["GrayscaleObservation"], IncompatibleError, "GrayscaleObservation cannot be put around"),
        ([{"name": "TimeLimit", "kwargs": {"steps": 3}}], IncompatibleError, "steps"),
        ("ClipAction", IncompatibleError, "list"),
        ([3], IncompatibleError, "names"),
        ([{"kwargs": {}}], IncompatibleError, "names"),
        ([{"name": "ClipAction", "args": []}], IncompatibleError, "kwargs"),
        ([{"name": "ClipAction", "kwargs": [1]}], IncompatibleError, "kwargs"),
        (["FlattenObservation"] * 17, IncompatibleError, "at most 16"),
    ],
)
def test_wrappers_that_cannot_be_are_refused_by_name(wrappers, error, says):
    with pytest.raises(error, match=says) as caught:
        check_environment("CartPole-v1", {"wrappers": wrappers})
    assert caught.value.field == "wrappers"


MODULE = """
import gymnasium
from gymnasium import spaces

class Mine(gymnasium.Env):
    observation_space = spaces.Discrete(3)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return int(self.np_random.integers(3)), {}

    def step(self, action):
        self.time += 1
        return int(self.np_random.integers(3)), float(action), self.time > 5, False, {}

gymnasium.register("NAME-v0", Mine)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a module into the working directory; it is forgotten in the end."""
    made = []

    def write(name: str, text: str) -> str:
        (tmp_path / f"{name}.py").write_text(text)
        made.append(name)
        return name

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(catalogue, "_allowed", set())
    yield write
    for name in made:
        sys.modules.pop(name, None)
        gymnasium.registry.pop(f"{name}-v0", None)
    catalogue.load_plug_ins.cache_clear()


def test_a_file_of_the_working_directory_is_imported_where_it_is_allowed(module, monkeypatch):
    name = module("mine_allowed", MODULE.replace("NAME", "mine_allowed"))
    monkeypatch.setenv("GRPO_ENV_MODULES", f" {name} ,")
    catalogue.load_plug_ins.cache_clear()
    for env_name in (f"{name}:{name}-v0", f"{name}-v0"):
        assert check_environment(env_name).observation_shape == ()
    model = GRPO(f"{name}:{name}-v0", seed=0)
    model.learn(100)
    assert model.evaluate(2).lengths.tolist() == [6, 6]


def test_no_module_is_imported_that_is_not_allowed(module, monkeypatch):
    name = module("mine_refused", MODULE.replace("NAME", "mine_refused"))
    monkeypatch.setenv("GRPO_ENV_MODULES", "another")
    for env_name in (f"{name}:{name}-v0", f"{name}.x:y", "os:system", ":x", "a:b:c"):
        with pytest.raises(ConfigError, match=r"GRPO_ENV_MODULES|Unknown"):
            check_environment(env_name)
    assert name not in sys.modules


def test_the_library_imports_what_its_user_names(module):
    name = module("mine_named", MODULE.replace("NAME", "mine_named"))
    assert GRPO(f"{name}:{name}-v0", seed=0).config.env_name == f"{name}:{name}-v0"


def test_a_module_that_breaks_is_said_to(module, monkeypatch):
    name = module("mine_broken", "raise SystemExit('no licence')")
    monkeypatch.setenv("GRPO_ENV_MODULES", name)
    with pytest.raises(IncompatibleError, match="no licence"):
        check_environment(f"{name}:x-v0")
    catalogue.load_plug_ins.cache_clear()
    assert check_environment("CartPole-v1").env_name == "CartPole-v1"
