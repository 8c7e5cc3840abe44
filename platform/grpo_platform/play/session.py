"""A session in its own process: one environment, one policy, and who acts.

It is told commands and tells frames; process.py moves both. Nothing here knows a store, a job or
HTTP.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from grpo import checkpoint
from grpo.actions import BoxActions, DictActions, DiscreteActions
from grpo.envs import EnvironmentSpec, check_environment
from grpo.errors import IncompatibleError, in_words
from grpo.policies import BasePolicy
from grpo.scenarios.environment import feature_names
from grpo.scenarios.suite import snapshot_to_json
from grpo_platform.jobs.serialization import policy_of
from grpo_platform.play.episode import Episode
from grpo_platform.play.frames import animation, jpeg, pack
from grpo_platform.registry.integrity import PolicyFiles
from grpo_platform.registry.policy_files import policy_from_files

__all__ = ["Session"]

_FRAMES_PER_SECOND: Final = 20.0
_STEERED_FRAMES_PER_SECOND: Final = 30.0
"""While a human steers, who has to see what comes of it."""

_MOST_POLICIES: Final = 32
_MOST_NUMBERS: Final = 64
"""Of an observation that a frame tells; an image is shown, not listed."""

_PAUSE_SECONDS: Final = 1.0
"""Between two episodes that follow each other by themselves."""

_MOST_FILMED: Final = 300
_FILMED_SECONDS: Final = 20.0

Message = dict[str, Any]
Array = npt.NDArray[Any]


class Session:
    """What is played.

    Args:
        env_name: Gymnasium id.
        env_kwargs: keyword arguments of it.
        send: takes a message for the viewers.
        seed: of the first episode.
        deterministic: whether the policy takes its most probable action.
        endless: whether one episode follows the other, as viewers of a training want it.

    Raises:
        ConfigError: the environment cannot be made.
        EnvironmentFaultError: it raised.
    """

    def __init__(
        self,
        env_name: str,
        env_kwargs: Mapping[str, Any],
        send: Callable[[bytes], None],
        *,
        seed: int = 0,
        deterministic: bool = True,
        endless: bool = False,
    ) -> None:
        self.spec: EnvironmentSpec = check_environment(env_name, env_kwargs)
        self._send = send
        self._deterministic = deterministic
        self._endless = endless
        self._policies: dict[str, BasePolicy] = {}
        self._policy: BasePolicy | None = None
        self._checkpoint: str | None = None
        self._follows = True
        self._episodes = [Episode(self.spec, seed)]
        self._by = "policy"
        self._held: Array | None = None
        self._playing = False
        self._speed = 1.0
        self._viewers = 0
        self._step_at = 0.0

    def close(self) -> None:
        """Let the instances go."""
        for episode in self._episodes:
            episode.close()

    @property
    def policy(self) -> BasePolicy:
        """What acts.

        Raises:
            IncompatibleError: there is none yet.
        """
        if self._policy is None:
            raise IncompatibleError(
                "There is no policy yet: the job's first checkpoint is waited for."
            )
        return self._policy

    @property
    def main(self) -> Episode:
        """The episode that commands are about."""
        return self._episodes[0]

    def at(self, lane: int = 0) -> str:
        """What an episode's present state, and who judges it, are known by."""
        return f"{self._episodes[lane].mark(self._policy)} {self._checkpoint}"

    def describe(self) -> Message:
        """What a viewer has to know once."""
        action = self.spec.action
        described: Message = {"kind": type(action).__name__.removesuffix("Actions")}
        if isinstance(action, DiscreteActions):
            described |= {"n": action.n, "start": action.start}
        elif isinstance(action, BoxActions):
            described |= {"shape": action.shape, "low": action.low, "high": action.high}
        return {
            "env_name": self.spec.env_name,
            "action": described,
            "features": list(feature_names(self.spec)),
            "state_variables": self.main.state if not self.spec.deviations else {},
            "can_branch": self.main.can_branch,
            "branching_reason": self.main.envs.branching_reason,
            "fps": self.main.envs.fps,
            "max_episode_steps": self.spec.max_episode_steps,
        }

    # --- time -----------------------------------------------------------------------------

    def seconds_until_due(self, now: float) -> float | None:
        """When `advance` has something to do; None where only a command brings it."""
        if not self._playing or not self._viewers or self._policy is None:
            return None
        return max(0.0, self._step_at - now)

    def advance(self, now: float) -> None:
        """Take the steps that are due up to the next frame, and tell it.

        A processor that has just slept is slow at first, so they are taken in one go.
        """
        due = self.seconds_until_due(now)
        if due is None or due > 0.0:
            return
        most = _STEERED_FRAMES_PER_SECOND if self._by == "human" else _FRAMES_PER_SECOND
        speed = self.main.envs.fps * self._speed
        steps = math.ceil(speed / most)
        # a process that had no time goes on from now, rather than making up for it
        self._step_at = max(self._step_at, now - 0.2) + steps / speed
        if all(episode.is_over for episode in self._episodes):
            if not self._endless:
                self._playing = False
            else:
                self.main.begin(self.main.seed + 1, self.main.number + 1)
            self.show()
            return
        self._take(steps)
        self.show()
        if all(episode.is_over for episode in self._episodes):
            self._step_at = now + _PAUSE_SECONDS

    def _take(self, steps: int) -> None:
        """Let every episode go on, those that are over excepted."""
        for _ in range(steps):
            for episode in self._episodes:
                if not episode.is_over:
                    self._go_on(episode)

    def _go_on(self, episode: Episode) -> None:
        """One step, by whoever acts."""
        if self._by == "human" and episode is self.main and self._held is not None:
            episode.take(self._held, "human", self._policy)
            return
        _, prediction = episode.predict(self.policy, self._deterministic)
        episode.take(np.asarray(prediction.actions[0]), "policy", self.policy)

    def show(self) -> None:
        """Tell a frame of each episode that is played."""
        if not self._viewers:
            return
        for lane in range(len(self._episodes)):
            self._send(self.frame(lane))

    def frame(self, lane: int = 0) -> bytes:
        """The present state of an episode, for viewers.

        Args:
            lane: 0, or 1 for what goes on beside it.
        """
        header = self.header(lane)
        image = self._episodes[lane].envs.draw()
        if image is None:
            why_not = self._episodes[lane].envs.why_not_drawn
            return pack({**header, "image": None, "why_no_image": why_not})
        content, width, height = jpeg(image)
        return pack({**header, "image": {"width": width, "height": height}}, content)

    def header(self, lane: int = 0) -> Message:
        """What a frame tells beside its image."""
        episode = self._episodes[lane]
        known = episode.taken
        last = known[episode.step - 1] if episode.step else None
        observation = episode.observation
        return {
            "type": "frame",
            "at": self.at(lane),
            "lane": lane,
            "lanes": len(self._episodes),
            "episode": episode.number,
            "seed": episode.seed,
            "step": episode.step,
            "last_step": len(known),
            "reward": None if last is None else last.reward,
            "return": 0.0 if last is None else last.gained,
            "action": None if last is None else last.action,
            "by": None if last is None else last.by,
            "terminated": last is not None and last.terminated,
            "truncated": last is not None and last.truncated,
            "over": episode.is_over,
            "disturbed": episode.disturbed[-_MOST_NUMBERS:],
            "playing": self._playing,
            "speed": self._speed,
            "control": self._by if lane == 0 else "policy",
            "deterministic": self._deterministic,
            "checkpoint": self._checkpoint,
            "checkpoints": list(self._policies),
            "can_branch": episode.can_branch,
            "observation": observation.ravel() if observation.size <= _MOST_NUMBERS else None,
            "state": {} if self.spec.deviations else episode.state,
            **self._predicted(episode),
        }

    def _predicted(self, episode: Episode) -> Message:
        if self._policy is None:
            names = ("next_action", "action_probs", "mean", "std", "value")
            return dict.fromkeys(names)
        _, prediction = episode.predict(self._policy, self._deterministic)
        return {
            "next_action": prediction.actions[0],
            "action_probs": _first(prediction.action_probs),
            "mean": _first(prediction.mean),
            "std": _first(prediction.std),
            "value": float(prediction.values[0]),
        }

    # --- commands -------------------------------------------------------------------------

    def do(self, command: Message) -> Message:
        """Obey, and tell the frame that comes of it.

        Args:
            command: `command`, its name, and its arguments.

        Returns:
            What a script wants to know of it.

        Raises:
            GRPOError: it cannot be done; everything is as it was.
        """
        arguments = dict(command)
        name = arguments.pop("command")
        found = _COMMANDS[name](self, **arguments)
        if name in _SHOWN:
            self.show()
            return {"step": self.main.step, "frame": self.header()}
        return found or {}

    def _play(self, speed: float | None = None) -> None:
        self._playing = True
        self._speed = self._speed if speed is None else speed
        self._step_at = time.monotonic()

    def _pause(self) -> None:
        self._playing = False

    def _step(self, n: int = 1) -> None:
        self._playing = False
        self._take(n)

    def _seek(self, step: int) -> None:
        for episode in self._episodes:  # the other one goes as far as it came
            reached = step if episode is self.main else min(step, len(episode.taken))
            episode.seek(reached, self._policy)
        self._playing = False

    def _act(self, action: object) -> None:
        taken = self._action(action)
        if self.main.is_over:
            raise IncompatibleError("The episode is over: wind back, or begin another one.")
        self._playing = False
        self.main.take(taken, "human", self._policy)

    def _control(self, by: str, action: object = None) -> None:
        held = None if action is None else self._action(action)
        if by == "human" and held is None and self._held is None:
            raise IncompatibleError("Say which action is held.", field="action")
        self._by = by
        self._held = held if held is not None else self._held

    def _disturb(self, state: Mapping[str, Any]) -> None:
        self.main.put(state)
        self._playing = False

    def _fork(self, action: object = None) -> None:
        taken = None if action is None else self._action(action)
        if self.main.is_over:
            raise IncompatibleError("The episode is over: wind back to a step before its end.")
        other = self.main.fork()
        self._playing = False
        self._close_fork()
        self._episodes.append(other)
        if taken is not None:
            other.take(taken, "human", self._policy)

    def _replay(self, actions: list[Any]) -> None:
        """Let the fork take actions that were found by explaining."""
        taken = [self._action(action) for action in actions]
        self._fork()
        for action in taken:
            if not self._episodes[1].is_over:
                self._episodes[1].take(action, "policy", self._policy)

    def _unfork(self, keep: int = 0) -> None:
        if len(self._episodes) == 1:
            raise IncompatibleError("Nothing goes on beside this episode.")
        if keep == 1:
            self._episodes.reverse()
        self._close_fork()

    def _close_fork(self) -> None:
        while len(self._episodes) > 1:
            self._episodes.pop().close()

    def _reset(self, seed: int | None = None) -> None:
        self._close_fork()
        self.main.begin(self.main.seed + 1 if seed is None else seed, self.main.number + 1)

    def _sample(self, deterministic: bool) -> None:
        self._deterministic = deterministic

    def _choose(self, checkpoint: str) -> None:
        if checkpoint not in self._policies:
            raise IncompatibleError(
                f"There is no checkpoint {checkpoint[:100]!r} here. There are: "
                f"{', '.join(self._policies) or 'none yet'}.",
                field="checkpoint",
            )
        self._follows = checkpoint == list(self._policies)[-1]
        self._checkpoint, self._policy = checkpoint, self._policies[checkpoint]

    def _viewed(self, viewers: int) -> None:
        is_first = viewers > self._viewers
        self._viewers = viewers
        if is_first:  # who comes sees where it stands at once
            self._step_at = max(self._step_at, time.monotonic())
            self.show()

    def _keep(self) -> Message:
        return {"snapshot": snapshot_to_json(self.main.snapshot()), "seed": self.main.seed}

    def _add_policy(self, name: str, path: str) -> None:
        """Take the policy of a checkpoint, or of a version's files, which process.py was given."""
        self._policies[name] = _read_policy(Path(path), name, self.spec)
        while len(self._policies) > _MOST_POLICIES:
            # every second one goes, but for the first and the newest
            thinned = list(self._policies)
            for old in thinned[1:-1:2]:
                if old != self._checkpoint:
                    del self._policies[old]
        if self._follows:
            self._checkpoint, self._policy = name, self._policies[name]
        self.show()

    def _film(self, steps: int, kind: str, path: str) -> Message:
        """Play on, and write what is seen into a file."""
        begun = time.monotonic()
        images: list[npt.NDArray[np.uint8]] = []
        self._playing = False
        while len(images) < min(steps, _MOST_FILMED) and time.monotonic() - begun < _FILMED_SECONDS:
            image = self.main.envs.draw()
            if image is None:
                raise IncompatibleError(self.main.envs.why_not_drawn)
            images.append(image)
            if self.main.is_over:
                break
            self._go_on(self.main)
        Path(path).write_bytes(animation(images, 1000 // self.main.envs.fps, kind))
        return {"frames": len(images)}

    def _action(self, given: object) -> Array:
        """An action as the environment takes it.

        Raises:
            IncompatibleError: it is none.
        """
        spec = self.spec.action
        try:
            if isinstance(spec, DictActions):
                raise TypeError("actions of several kinds cannot be chosen by hand")
            if isinstance(spec, BoxActions):
                value = np.asarray(given, np.float64)
                if value.shape != tuple(spec.shape) or not np.isfinite(value).all():
                    raise ValueError(f"it must be finite numbers in the shape {tuple(spec.shape)}")
                low, high = np.reshape(spec.low, spec.shape), np.reshape(spec.high, spec.shape)
                return np.asarray(np.clip(value, low, high).astype(np.float32))
            whole = np.asarray(given)
            if whole.dtype.kind != "i" or not self.spec.action_space.contains(
                whole.astype(self.spec.action_space.dtype)[()]
            ):
                raise ValueError(f"it must be in {self.spec.action_space}")
            return whole.astype(np.int64)
        except (TypeError, ValueError, OverflowError) as error:
            raise IncompatibleError(
                f"This is no action of {self.spec.env_name}: {in_words(error)}.", field="action"
            ) from error


def _read_policy(path: Path, name: str, spec: EnvironmentSpec) -> BasePolicy:
    if path.is_dir():
        files = PolicyFiles(*((path / file).read_bytes() for file in PolicyFiles._fields))
        policy = policy_from_files(files, name)
    else:
        state, _ = checkpoint.load(path)
        policy = policy_of(state, spec)
    if replace(policy.spec.reads, n_state=0).shape != spec.observation.shape:
        raise IncompatibleError(f"{name} does not observe what {spec.env_name} shows.")
    return policy


def _first(rows: npt.NDArray[Any] | None) -> Any:  # noqa: ANN401
    return None if rows is None else rows[0]


_SHOWN: Final = frozenset(
    {"act", "checkpoint", "control", "deterministic", "disturb", "fork", "pause", "play", "replay",
     "reset", "seek", "step", "unfork"}
)  # fmt: skip
"""Commands after which viewers see a frame, and a script its numbers."""

_COMMANDS: Final[Mapping[str, Callable[..., Message | None]]] = {
    "act": Session._act,
    "checkpoint": Session._choose,
    "control": Session._control,
    "describe": Session.describe,
    "deterministic": Session._sample,
    "disturb": Session._disturb,
    "film": Session._film,
    "fork": Session._fork,
    "keep": Session._keep,
    "pause": Session._pause,
    "play": Session._play,
    "policy": Session._add_policy,
    "replay": Session._replay,
    "reset": Session._reset,
    "seek": Session._seek,
    "step": Session._step,
    "unfork": Session._unfork,
    "viewers": Session._viewed,
}
