"""Local folders of running jobs, and the removal of those that a killed process left.

A folder belongs to whoever holds the lock (flock(2)) of the file `lease` in it. The kernel lets go
of a lock when its last holder ends, however that ends; and the lock means the same to servers that
share nothing but the folder, as containers do that each count processes from 1.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

__all__ = [
    "FULL",
    "PATIENCE_SECONDS",
    "make_workdir",
    "patiently",
    "remove_abandoned",
    "temporary_folder",
]

_T = TypeVar("_T")

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Error numbers that say that a disk is full."""

PATIENCE_SECONDS: Final = 60.0
"""How long a full disk is given to become free again."""

_LEASE: Final = "lease"
_UNLEASED_SECONDS: Final = 86_400.0


def make_workdir() -> Path:
    """A new folder, this process's and its children's until the last of them ends.

    Only this user can read it.

    Raises:
        OSError: there is no right to make one, or no room for a long time.
    """
    return patiently(_make_leased)


def temporary_folder() -> Path:
    """The system's temporary folder, made again where somebody removed it under our feet.

    Where it cannot be made it is looked for anew, as at the start of a process.
    """
    try:
        folder = Path(tempfile.gettempdir())
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        tempfile.tempdir = None
        folder = Path(tempfile.gettempdir())
    return folder


def patiently(write: Callable[[], _T]) -> _T:
    """Try a write to the local disk again, for `PATIENCE_SECONDS`, while the disk is full.

    Raises:
        OSError: what the last try raised.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return write()
        except OSError as error:
            if error.errno not in FULL or time.monotonic() > deadline:
                raise
        time.sleep(0.5)


def remove_abandoned() -> None:
    """Remove the folders whose processes have all ended, wherever they ran."""
    base = _base()
    with _alone(base):
        for folder in base.iterdir():
            if folder.is_dir() and _is_abandoned(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _make_leased() -> Path:
    base = _base()
    with _alone(base):  # a folder without its lease would look abandoned
        folder = Path(tempfile.mkdtemp(prefix="job-", dir=base))
        try:
            # never closed: the lease ends with this process, and the children that have it too
            handle = os.open(folder / _LEASE, os.O_CREAT | os.O_RDWR, 0o600)
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return folder


def _is_abandoned(folder: Path) -> bool:
    try:
        handle = os.open(folder / _LEASE, os.O_RDWR)
    except FileNotFoundError:
        # of a release that had no leases, whose jobs may still run
        return time.time() - folder.stat().st_mtime > _UNLEASED_SECONDS
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True


@contextlib.contextmanager
def _alone(base: Path) -> Iterator[None]:
    handle = os.open(base, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _base() -> Path:
    base = temporary_folder() / f"grpo-jobs-{os.getuid()}"
    base.mkdir(mode=0o700, exist_ok=True)
    found = base.lstat()
    # the name can be guessed: someone else's folder or link of that name is not used
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(f"{base} belongs to another user; set TMPDIR to another folder.")
    return base
