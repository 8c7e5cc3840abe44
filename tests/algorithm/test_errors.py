"""A misspelled name is answered with the one that was meant."""

import re
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from grpo.config import GRPOConfig
from grpo.envs import check_environment
from grpo.errors import ConfigError, UnknownNameError, did_you_mean, in_words, nearest
from grpo.registry import Registry
from grpo.rewards import get_reward

KNOWN = ("CartPole-v1", "LunarLander-v3", "learning_rate", "n_steps", "loo_time")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("lerning_rate", "learning_rate"),
        ("LEARNING_RATE", "learning_rate"),
        ("cartpole-v1", "CartPole-v1"),
        ("LunarLander-v2", "LunarLander-v3"),
        ("steps", "n_steps"),
        ("zzz", None),
        ("", None),
        (None, None),
        (7, None),
        ("x" * 100_000, None),
    ],
)
def test_the_nearest_name(given, meant):
    assert nearest(given, KNOWN) == meant
    assert did_you_mean(given, KNOWN) == (f"Did you mean {meant!r}? " if meant else "")


def test_among_versions_equally_near_the_newest_is_meant():
    assert nearest("Walker-v1", [f"Walker-v{n}" for n in (2, 5, 3)]) == "Walker-v5"


def test_a_long_list_is_shortened_and_the_nearest_is_told_all_the_same():
    error = UnknownNameError("env_name", "Room-7x7-v", [f"Room-{n}x{n}-v0" for n in range(3_000)])
    assert "Did you mean 'Room-7x7-v0'? Use one of: " in str(error)
    assert str(error).endswith("and 2940 more.")
    assert len(error.allowed) == 3_000


def test_an_exception_that_says_nothing_is_told_by_the_line_that_raised_it():
    with pytest.raises(AssertionError) as caught:
        raise AssertionError  # as a package's bare assertion does
    told = r"AssertionError in reset: line \d+ of test_errors.py, `raise AssertionError.*`"
    assert re.fullmatch(told, in_words(caught.value, "reset"))
    assert in_words(KeyError("x"), "reset") == "KeyError in reset: 'x'"
    assert in_words(AssertionError()) == "AssertionError"  # never raised


def unknown_environment():
    check_environment("LunarLander-v2")


def unknown_reward():
    get_reward("optimised_cartpole", check_environment("CartPole-v1"))


def unknown_advantage():
    GRPOConfig(advantage="loo-time")


@pytest.mark.parametrize(
    ("raises", "meant"),
    [
        (unknown_environment, "LunarLander-v3"),
        (unknown_reward, "optimized_cartpole"),
        (unknown_advantage, "loo_time"),
    ],
)
def test_every_name_of_a_config_is_answered_so(raises, meant):
    with pytest.raises(ConfigError, match=f"Did you mean '{meant}'"):
        raises()


def test_a_name_is_checked_without_an_import(monkeypatch):
    entries = EntryPoints([EntryPoint("theirs", "antigravity.nowhere:thing", "grpo.things")])
    monkeypatch.setattr("grpo.registry.entry_points", lambda *, group: entries)
    things = Registry("thing", "grpo.things", {"ours": 1}, int)
    monkeypatch.setattr(EntryPoint, "load", lambda _: pytest.fail("it was imported"))
    things.check("ours")
    things.check("theirs")
    assert things.get("ours") == 1
    with pytest.raises(UnknownNameError, match="Did you mean 'theirs'"):
        things.check("their")
