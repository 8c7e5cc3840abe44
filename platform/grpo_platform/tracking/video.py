"""A video of a policy at play: H.264 in an mp4 file, which browsers and the MLflow UI show."""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import gymnasium
import numpy as np
import numpy.typing as npt

from grpo.envs import EnvironmentSpec, check_environment
from grpo.envs.rendering import drawing_advice, prepare_to_draw
from grpo.errors import in_words
from grpo.policies import BasePolicy, Memory
from grpo.spaces import environment_actions
from grpo.trajectories import Trajectory
from grpo_platform.core.errors import PlatformError

__all__ = ["VideoError", "record_episodes", "record_steps"]

Frame = npt.NDArray[np.uint8]

_PAUSE_FRAMES: Final = 10
"""How long an episode's last frame stays, in frames."""

_DEFAULT_FPS: Final = 30


class VideoError(PlatformError):
    """The environment cannot be drawn here, or nothing here makes a film of what is drawn."""


def record_episodes(
    policy: BasePolicy,
    env_name: str,
    env_kwargs: Mapping[str, Any],
    seeds: Sequence[int],
    path: Path,
    most_frames: int,
) -> int:
    """Play greedy episodes, one after the other, and film them until the film is long enough.

    Args:
        policy: what acts.
        env_name: Gymnasium id.
        env_kwargs: keyword arguments of `gymnasium.make`.
        seeds: of the episodes.
        path: of the mp4 file.
        most_frames: at which the film ends, at least 1.

    Returns:
        Number of frames.

    Raises:
        VideoError: the environment cannot be drawn here.
    """

    def frames(env: gymnasium.Env[Any, Any], spec: EnvironmentSpec) -> Iterator[Frame]:
        return itertools.islice(_frames(env, spec, policy, seeds), most_frames)

    return _film(env_name, env_kwargs, path, frames)


def record_steps(
    trajectory: Trajectory,
    env_name: str,
    env_kwargs: Mapping[str, Any],
    shown: range,
    path: Path,
) -> int:
    """Take an episode's actions again from its seed, and film some of its steps.

    Args:
        trajectory: the episode.
        env_name: Gymnasium id.
        env_kwargs: keyword arguments of `gymnasium.make`.
        shown: steps that the film shows, from 0.
        path: of the mp4 file.

    Returns:
        Number of frames.

    Raises:
        VideoError: the environment cannot be drawn here, or does not repeat itself.
    """
    return _film(env_name, env_kwargs, path, lambda env, _: _again(env, trajectory, shown))


def _film(
    env_name: str,
    env_kwargs: Mapping[str, Any],
    path: Path,
    frames: Callable[[gymnasium.Env[Any, Any], EnvironmentSpec], Iterator[Frame]],
) -> int:
    if find_spec("imageio_ffmpeg") is None:
        raise VideoError(
            "Films need imageio-ffmpeg, which is not installed: pip install 'grpo-platform[video]'."
        )
    advice = ""
    try:
        spec = check_environment(env_name, env_kwargs)
        advice = drawing_advice(spec)
        prepare_to_draw(mujoco=spec.family == "mujoco")
        with contextlib.closing(spec.make("rgb_array")) as env:
            fps = int(env.metadata.get("render_fps") or _DEFAULT_FPS)
            return _encode(frames(env, spec), path, fps)
    except Exception as error:  # what draws is foreign code, and may lack a display
        raise VideoError(f"{env_name} cannot be filmed here: {in_words(error)}.{advice}") from error


def _again(env: gymnasium.Env[Any, Any], trajectory: Trajectory, shown: range) -> Iterator[Frame]:
    env.reset(seed=trajectory.seed)
    actions = environment_actions(env.action_space, trajectory.actions[: shown.stop])
    for number, (taken, reward) in enumerate(zip(actions, trajectory.rewards, strict=False)):
        if number in shown:
            yield _drawn(env)
        found = float(np.asarray(env.step(taken)[1]))
        if found != reward:
            raise RuntimeError("it does not repeat an episode with the same seed and actions")
    last = _drawn(env)
    for _ in range(_PAUSE_FRAMES):
        yield last


def _frames(
    env: gymnasium.Env[Any, Any], spec: EnvironmentSpec, policy: BasePolicy, seeds: Sequence[int]
) -> Iterator[Frame]:
    for seed in seeds:
        observation, info = env.reset(seed=seed)
        memory = Memory(policy, 1)
        ended = False
        while not ended:
            yield _drawn(env)
            row = spec.row(env, observation, info)[None]
            actions = policy.act(memory.rows(row, np.zeros(1, np.int64)))
            (taken,) = environment_actions(env.action_space, actions)
            observation, _, terminated, truncated, info = env.step(taken)
            ended = bool(terminated or truncated)
        last = _drawn(env)
        for _ in range(_PAUSE_FRAMES):
            yield last


def _drawn(env: gymnasium.Env[Any, Any]) -> Frame:
    image = np.asarray(env.render(), dtype=np.uint8)
    if image.ndim != 3 or image.shape[2] != 3:
        raise RuntimeError(f"it draws arrays of shape {image.shape}, not images")
    height, width, _ = image.shape
    # H.264 with its usual colours needs even sides
    return np.ascontiguousarray(image[: height - height % 2, : width - width % 2])


def _encode(frames: Iterator[Frame], path: Path, fps: int) -> int:
    import imageio_ffmpeg  # an extra

    first = next(frames)
    height, width, _ = first.shape
    writer = imageio_ffmpeg.write_frames(
        str(path),
        (width, height),
        fps=fps,
        codec="libx264",
        pix_fmt_out="yuv420p",
        macro_block_size=2,
        ffmpeg_log_level="error",
        # one thread: other jobs train meanwhile; faststart: a browser plays while it loads
        output_params=["-preset", "veryfast", "-threads", "1", "-movflags", "+faststart"],
    )
    writer.send(None)
    count = 0
    try:
        for frame in itertools.chain([first], frames):
            writer.send(frame)
            count += 1
    finally:
        writer.close()
    return count
