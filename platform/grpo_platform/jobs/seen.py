"""What an environment looks like, and what a policy sees and does in it; for helper processes."""

import base64
import io
from typing import Any, Final

import gymnasium
import numpy as np
from PIL import Image

from grpo.envs import check_environment
from grpo.envs.rendering import prepare_to_draw
from grpo.errors import UnsupportedEnvironmentError, in_words
from grpo.evaluation import EVALUATION_SEED, evaluation_seeds
from grpo.trajectories import play
from grpo_platform.registry.integrity import PolicyFiles
from grpo_platform.registry.policy_files import policy_from_files

__all__ = ["observed", "picture"]

_EPISODES: Final = 10
_STEPS: Final = 1000
"""Rows that are handed on, evenly taken from all steps."""

_EPISODE_STEPS: Final = 2000
_PIXELS: Final = 240
_DRAWN_AFTER: Final = 20
_SEED: Final = 7


def observed(
    files: PolicyFiles, name: str, env_name: str, *, env_kwargs: dict[str, Any], most_numbers: int
) -> dict[str, Any]:
    """Steps of the first episodes of a version's evaluation, played again.

    Args:
        files: that were verified.
        name: the version, for messages.
        env_name: Gymnasium id.
        env_kwargs: keyword arguments of the environment.
        most_numbers: an observation or action of more numbers is left out.

    Returns:
        `observations` and `actions`, lists of rows of numbers, and `episodes`, how many were
        played.
    """
    spec = check_environment(env_name, env_kwargs)
    seeds = evaluation_seeds(_EPISODES, EVALUATION_SEED).tolist()
    played = list(
        play(policy_from_files(files, name), env_name, seeds, env_kwargs=env_kwargs,
             step_limit=_EPISODE_STEPS)
    )  # fmt: skip
    rows = [one.observations[:-1].reshape(one.length, -1) for one in played]
    seen = np.concatenate(rows)[:, : spec.observation.observed]
    done = np.concatenate([one.actions.reshape(one.length, -1) for one in played])
    every = max(1, len(seen) // _STEPS)

    def few(values: np.ndarray[Any, np.dtype[Any]]) -> list[list[float]]:
        width = values.shape[1] if values.shape[1] <= most_numbers else 0
        kept: list[list[float]] = values[::every, :width].astype(np.float32).tolist()
        return kept

    return {"observations": few(seen), "actions": few(done), "episodes": len(played)}


def picture(env_name: str) -> str:
    """An environment after some random steps, as WebP in base64.

    Raises:
        UnsupportedEnvironmentError: it cannot be drawn.
    """
    prepare_to_draw(mujoco=True)
    try:
        env = gymnasium.make(env_name, render_mode="rgb_array")
        try:
            env.reset(seed=_SEED)
            env.action_space.seed(_SEED)
            for _ in range(_DRAWN_AFTER):
                _, _, terminated, truncated, _ = env.step(env.action_space.sample())
                if terminated or truncated:
                    env.reset(seed=_SEED)
            frame = np.asarray(env.render(), np.uint8)
        finally:
            env.close()
        drawn = Image.fromarray(np.ascontiguousarray(frame))
    except Exception as error:  # foreign code may raise anything
        raise UnsupportedEnvironmentError(
            f"{env_name} cannot be drawn: {in_words(error)}.", field="env_name"
        ) from error
    drawn.thumbnail((_PIXELS, _PIXELS))
    file = io.BytesIO()
    drawn.convert("RGB").save(file, "WEBP", quality=80)
    return base64.b64encode(file.getvalue()).decode()
