"""Instances that are drawn while they are branched: what draws is no part of a state."""

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from grpo.envs.branching import Brancher, Owner
from grpo.envs.families import layers_of
from grpo.envs.spec import EnvironmentSpec
from grpo.envs.sync_vec_env import SyncVecEnv
from grpo.envs.vec_env import Branching, Snapshot
from grpo.envs.verification import find_branching, resets_afresh
from grpo.errors import GRPOError, in_words

__all__ = ["Drawn", "drawing_advice", "make_drawn", "prepare_to_draw"]

_QUIET: Final = {
    "SDL_VIDEODRIVER": "dummy",
    "SDL_AUDIODRIVER": "dummy",
    "PYGAME_HIDE_SUPPORT_PROMPT": "1",
}

_MUJOCO_GL: Final = "MUJOCO_GL"
_WITHOUT_DISPLAY: Final = {
    "egl": ("libEGL.so.1",),
    "osmesa": ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so"),
}
"""What MuJoCo draws by where there is no display, and the library of each."""

_MUJOCO_NEEDS: Final = (
    " MuJoCo draws on a display, or without one by EGL or OSMesa: install libegl1 or libosmesa6 "
    "(Debian and Ubuntu), leave MUJOCO_GL unset, and start this program again."
)


class Drawn(SyncVecEnv):
    """One member that can be drawn, put into visited states and branched, as training does.

    Args:
        spec: the environment.
        brancher: how it is branched.
        reason: why so, in sentences.
        draws: whether to make an instance that draws; without, `draw` gives None.
        why_not: why nothing is drawn, in a sentence; empty where something is.
    """

    def __init__(
        self, spec: EnvironmentSpec, brancher: Brancher, reason: str, draws: bool, why_not: str
    ) -> None:
        made = replace(
            spec, env_kwargs={}, source=lambda: spec.make("rgb_array" if draws else None)
        )
        super().__init__(made, 1, _Undrawn(brancher), afresh=resets_afresh(spec), reason=reason)
        self.played = spec
        self.why_not_drawn = why_not
        self._has_drawn = False

    def draw(self) -> npt.NDArray[np.uint8] | None:
        """The present state as an image, shape (height, width, 3).

        None where it cannot be drawn, as `why_not_drawn` then says; one state that cannot be, of
        an environment that could, says nothing of the next.
        """
        if self.why_not_drawn and not self._has_drawn:
            return None
        try:
            image = np.asarray(self.envs[0].render(), dtype=np.uint8)
            if image.ndim != 3 or image.shape[2] != 3:
                raise ValueError(f"it draws arrays of shape {image.shape}, not images")
        except Exception as error:  # noqa: BLE001 - foreign code, which may lack a display
            self.why_not_drawn = _why_not(self.played, error)
            return None
        self.why_not_drawn, self._has_drawn = "", True
        return image

    @property
    def fps(self) -> int:
        """Steps a second at which the environment says that it looks natural."""
        return int(self.envs[0].metadata.get("render_fps") or 30)


def make_drawn(spec: EnvironmentSpec) -> Drawn:
    """A member that can be drawn, or at least played where it cannot.

    Raises:
        ConfigError: it cannot be made.
        EnvironmentFaultError: it raised while it was tried.
    """
    prepare_to_draw(mujoco=spec.family == "mujoco")
    plan = find_branching(spec)
    try:
        return Drawn(spec, plan.brancher(), plan.reason, True, "")
    except GRPOError as error:
        return Drawn(spec, plan.brancher(), plan.reason, False, _why_not(spec, error))


def prepare_to_draw(*, mujoco: bool) -> None:
    """Let environments of this process draw without a display, unless somebody has chosen how.

    Args:
        mujoco: it is MuJoCo that will draw; by EGL or OSMesa, as is installed.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if mujoco:
        _choose_mujoco_gl()


def drawing_advice(spec: EnvironmentSpec) -> str:
    """What an environment that was not drawn may lack: a sentence after a space, or nothing."""
    return _MUJOCO_NEEDS if spec.family == "mujoco" else ""


def _why_not(spec: EnvironmentSpec, error: Exception) -> str:
    said = in_words(error)
    return f"{spec.env_name} cannot be drawn here: {said}.{drawing_advice(spec)}"


def _choose_mujoco_gl() -> None:
    has_display = sys.platform != "linux" or os.environ.get("DISPLAY")
    if has_display or os.environ.get(_MUJOCO_GL):
        return
    for backend, libraries in _WITHOUT_DISPLAY.items():
        for library in libraries:
            with contextlib.suppress(OSError):
                ctypes.CDLL(library)
                os.environ[_MUJOCO_GL] = backend
                return


class _Undrawn(Brancher):
    """Takes and restores states as if nothing had been drawn.

    Args:
        brancher: that does so where nothing is drawn.
    """

    def __init__(self, brancher: Brancher) -> None:
        self._brancher = brancher
        self.how = brancher.how  # type: ignore[misc]
        self.branching: Branching = brancher.branching  # type: ignore[misc]
        self.storable = brancher.storable  # type: ignore[misc]

    def on_reset(self, member: int, seed: int) -> None:
        """See `Brancher.on_reset`."""
        self._brancher.on_reset(member, seed)

    def on_step(self, member: int, action: npt.NDArray[Any]) -> None:
        """See `Brancher.on_step`."""
        self._brancher.on_step(member, action)

    def snapshot(self, owner: Owner, member: int) -> dict[str, Any]:
        """See `Brancher.snapshot`."""
        with _set_aside(owner, member):
            return self._brancher.snapshot(owner, member)

    def restore(self, owner: Owner, member: int, snapshot: Snapshot) -> None:
        """See `Brancher.restore`."""
        with _set_aside(owner, member):
            self._brancher.restore(owner, member, snapshot)

    def cost(self, snapshot: Snapshot) -> int:
        """See `Brancher.cost`."""
        return self._brancher.cost(snapshot)


@contextlib.contextmanager
def _set_aside(owner: Owner, member: int) -> Iterator[None]:
    """For a while, let an instance be as one that was never drawn."""
    kept = [_drawing(layer) for layer in layers_of(owner.envs[member])]
    instance = owner.envs[member]
    for layer, found in zip(layers_of(instance), kept, strict=True):
        vars(layer).update(dict.fromkeys(found))
    try:
        yield
    finally:
        present = owner.envs[member]
        for layer, found in zip(layers_of(present), kept, strict=True):
            vars(layer).update(found)


def _drawing(layer: gym.Env[Any, Any]) -> dict[str, Any]:
    """Attributes that are there to draw: what pygame made, and the mode itself."""
    return {
        name: value
        for name, value in vars(layer).items()
        if type(value).__module__.partition(".")[0] == "pygame" or name == "render_mode"
    }
