"""The three kinds of store that servers may share, each real, and each able to go away."""

import contextlib
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.service.postgresql_support import postgresql
from tests.service.tracking_support import TrackingServer

USER: Final = "trainer"
_ADMINISTRATORS: Final = "a password that no server of ours has"
PASSWORD: Final = "correct horse battery staple"


@dataclass(frozen=True)
class SharedStore:
    """A store, with the environment variables of the servers on it."""

    settings: Mapping[str, str]
    stop: Callable[[], None]
    start: Callable[[], None]

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        self.stop()
        try:
            yield
        finally:
            self.start()


@contextlib.contextmanager
def _sqlite(folder: Path) -> Iterator[SharedStore]:
    present, absent = folder / "present", folder / "absent"
    present.mkdir()

    def stop() -> None:
        present.rename(absent)

    def start() -> None:
        absent.rename(present)

    address = f"sqlite:///{present / 'mlflow.db'}"
    yield SharedStore({"MLFLOW_TRACKING_URI": address}, stop, start)


@contextlib.contextmanager
def _postgresql(folder: Path) -> Iterator[SharedStore]:
    with postgresql() as database:
        yield SharedStore(
            {
                "MLFLOW_TRACKING_URI": database.uri,
                "GRPO_ARTIFACT_ROOT": str(folder / "artifacts"),
            },
            stop=database.stop,
            start=database.start,
        )


@contextlib.contextmanager
def _mlflow_server(folder: Path) -> Iterator[SharedStore]:
    """With basic authentication for a user like any other, and artifacts that only it reaches."""
    tracking = TrackingServer(folder, _ADMINISTRATORS)
    tracking.start()
    tracking.add_user(USER, PASSWORD)
    try:
        yield SharedStore(
            {
                "MLFLOW_TRACKING_URI": tracking.uri,
                "MLFLOW_TRACKING_USERNAME": USER,
                "MLFLOW_TRACKING_PASSWORD": PASSWORD,
            },
            stop=tracking.kill,
            start=tracking.start,
        )
    finally:
        tracking.stop()


STORES: Final[Mapping[str, Callable[[Path], contextlib.AbstractContextManager[SharedStore]]]] = {
    "sqlite": _sqlite,
    "postgresql": _postgresql,
    "mlflow-server": _mlflow_server,
}


def on_a_host_called(name: str) -> list[str]:
    """What to put before a command: another host name, so that workers seem another machine's.

    Empty where this system does not allow it; servers are then two of one machine.
    """
    prefix = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', name]
    for user in ([], ["--map-root-user"]):
        command = [*prefix[:1], *user, *prefix[1:]]
        with contextlib.suppress(OSError):
            if subprocess.run([*command, "true"], capture_output=True).returncode == 0:
                return command
    return []
