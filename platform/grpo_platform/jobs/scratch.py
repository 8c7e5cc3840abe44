"""Local folders of running jobs, and the removal of those that a killed process left."""

import errno
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

__all__ = ["FULL", "PATIENCE_SECONDS", "make_scratch", "patiently", "remove_abandoned"]

_T = TypeVar("_T")

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Error numbers that say that a disk is full."""

PATIENCE_SECONDS: Final = 60.0
"""How long a full disk is given to become free again."""


def make_scratch() -> Path:
    """A new folder for this process; only this user can read it.

    Raises:
        OSError: there is no right to make one, or no room for a long time.
    """
    return patiently(lambda: Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=_base())))


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
    """Remove the folders whose process does not exist any more."""
    if not Path("/proc/self").exists():  # no way to tell on this system
        return
    for folder in _base().iterdir():
        pid, separator, _ = folder.name.partition("-")
        if separator and pid.isdigit() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(folder, ignore_errors=True)


def _base() -> Path:
    base = Path(tempfile.gettempdir()) / f"grpo-jobs-{os.getuid()}"
    base.mkdir(mode=0o700, exist_ok=True)
    found = base.lstat()
    # the name can be guessed: someone else's folder or link of that name is not used
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(f"{base} belongs to another user; set TMPDIR to another folder.")
    return base
