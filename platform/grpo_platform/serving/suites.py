"""A version put through a suite: played as it is evaluated, and timed as it is served."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from grpo.scenarios import playing
from grpo.scenarios.results import FailedEpisode, SuiteResult
from grpo.scenarios.suite import Suite
from grpo_platform.registry.integrity import PolicyFiles
from grpo_platform.registry.policy_files import policy_from_files
from grpo_platform.registry.records import ModelVersionRef
from grpo_platform.serving.model import LoadedModel

__all__ = ["play_suite_files", "replay_files"]


def play_suite_files(
    files: PolicyFiles,
    name: str,
    env_name: str,
    /,
    *,
    env_kwargs: Mapping[str, Any],
    suite: Suite,
    seconds: float,
) -> SuiteResult:
    """As `grpo.scenarios.playing.play_suite`, of a policy in its files.

    Args:
        files: that were verified.
        name: the version, for messages.
        env_name: the environment that the policy was trained in.
        env_kwargs: keyword arguments of it.
        suite: what it must pass.
        seconds: how long that may take.

    Raises:
        UnsafeModelError: the files hold no policy.
        grpo.GRPOError: the policy cannot be rebuilt here, or as `play_suite`.
    """
    return playing.play_suite(
        policy_from_files(files, name),
        suite,
        env_name,
        dict(env_kwargs),
        answer=_served(files, name),
        seconds=seconds,
    )


def replay_files(
    files: PolicyFiles,
    name: str,
    env_name: str,
    /,
    *,
    env_kwargs: Mapping[str, Any],
    suite: Suite,
    scenario: str,
    episode: int,
) -> dict[str, FailedEpisode]:
    """As `grpo.scenarios.playing.replay`, of a policy in its files; raises what that does."""
    policy = policy_from_files(files, name)
    return playing.replay(policy, suite, scenario, episode, env_name, dict(env_kwargs))


def _served(files: PolicyFiles, name: str) -> playing.Answer:
    """What answers POST /inference, given the numbers of an observation as its JSON has them."""
    ref = ModelVersionRef(name.partition("/")[0], 0, "", "", {})
    model = LoadedModel(ref, files)
    size = model.example.size

    def asked(row: npt.NDArray[Any]) -> Callable[[], object]:
        numbers = np.ravel(row).tolist()
        observed, mask = numbers[:size], numbers[size:] or None
        return lambda: model.predict_one(observed, action_mask=mask)

    return asked
