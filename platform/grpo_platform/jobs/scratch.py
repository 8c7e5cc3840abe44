"""Local folders of running jobs, and the removal of those that a killed process left."""

import os
import shutil
import stat
import tempfile
from pathlib import Path

__all__ = ["make_scratch", "remove_abandoned"]


def make_scratch() -> Path:
    """A new folder for this process; only this user can read it.

    Raises:
        OSError: there is no room, or no right, to make one.
    """
    return Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=_base()))


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
