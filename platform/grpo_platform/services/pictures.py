"""Pictures of environments, each drawn once, by a helper process, when somebody first asks."""

from concurrent.futures import Future
from typing import Final

from grpo_platform.core.errors import NotFoundError
from grpo_platform.jobs.isolation import Isolation
from grpo_platform.services.once import Once

__all__ = ["Pictures"]

_KEPT: Final = 512


class Pictures:
    """Safe to call from several threads.

    Args:
        isolation: where environments are drawn.
    """

    def __init__(self, isolation: Isolation) -> None:
        self._isolation = isolation
        self._drawn: Once[bytes] = Once("pictures", _KEPT)

    def ask(self, env_name: str) -> Future[bytes]:
        """A WebP image, or what will be it; it raises what `Isolation.picture` does.

        Raises:
            BusyError: as many wait as may.
        """
        return self._drawn.ask(env_name, lambda: self._draw(env_name))

    def close(self) -> None:
        """Draw nothing any more."""
        self._drawn.close()

    def _draw(self, env_name: str) -> bytes:
        if env_name not in self._isolation.environment_names():  # Gymnasium would import its module
            raise NotFoundError(
                f"No environment {env_name[:200]!r} is registered here. GET /environments lists "
                "those that are."
            )
        return self._isolation.picture(env_name)
