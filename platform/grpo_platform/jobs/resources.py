"""What a job takes of its machine: CPUs and GPUs in Ray's terms, memory, and a folder.

Folders that a killed process left are removed. One belongs to whoever holds the lock (flock(2)) of
the file `lease` in it. The kernel lets go of a lock when its last holder ends, however that ends;
and the lock means the same to servers that share nothing but the folder, as containers do that each
count processes from 1.
"""

import contextlib
import errno
import fcntl
import os
import resource
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, TypeVar

import psutil
import torch

from grpo.torch_updater import resolve_device
from grpo_platform.core.errors import InvalidRequestError
from grpo_platform.core.request import JobRequest

__all__ = [
    "FULL",
    "PATIENCE_SECONDS",
    "check_this_machine",
    "default_memory_bytes",
    "in_words",
    "make_workdir",
    "own_temporary_folder",
    "patiently",
    "remove_abandoned",
    "resources_of",
    "restrict_memory",
    "temporary_folder",
]

_T = TypeVar("_T")

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Error numbers that say that a disk is full."""

PATIENCE_SECONDS: Final = 60.0
"""How long a full disk is given to become free again."""

_LEASE: Final = "lease"
_UNLEASED_SECONDS: Final = 86_400.0

_SHARE_OF_MEMORY: Final = 0.75

_OOM_SCORE: Final = 800
"""Of 1000: whoever has it goes first when the machine has no memory left, however little it has."""

_CGROUP_LIMITS: Final = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def make_workdir() -> Path:
    """A new folder, this process's and its children's until the last of them ends.

    Only this user can read it.

    Raises:
        OSError: there is no right to make one, or no room for a long time.
    """
    return patiently(_make_leased)


@contextlib.contextmanager
def own_temporary_folder() -> Iterator[Path]:
    """As `make_workdir`, also for this process's temporary files, and removed at its end.

    However the process ends: what is left then is abandoned.

    Raises:
        OSError: as `make_workdir`.
    """
    folder, before = make_workdir(), tempfile.tempdir
    tempfile.tempdir = str(folder)
    try:
        yield folder
    finally:
        tempfile.tempdir = before
        shutil.rmtree(folder, ignore_errors=True)


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
            lease = os.open(folder / _LEASE, os.O_CREAT | os.O_RDWR, 0o600)
            fcntl.flock(lease, fcntl.LOCK_EX)
            # who cleans up old temporary files leaves a locked folder alone, see tmpfiles.d(5)
            fcntl.flock(os.open(folder, os.O_RDONLY | os.O_DIRECTORY), fcntl.LOCK_EX)
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


def resources_of(request: JobRequest) -> dict[str, float]:
    """`num_cpus` and `num_gpus`, all values in force."""
    return {"num_cpus": request.num_cpus, "num_gpus": request.gpus}


def in_words(cpus: float, gpus: float) -> str:
    """`4 CPUs`, or `1 CPU and 0.5 GPUs`."""
    parts = [_count(cpus, "CPU")] + ([_count(gpus, "GPU")] if gpus else [])
    return " and ".join(parts)


def check_this_machine(request: JobRequest) -> None:
    """Refuse what this machine can never give a job.

    Raises:
        grpo.errors.IncompatibleError: the job trains on CUDA, and this machine has none.
        InvalidRequestError: it asks for more than this machine has, with the field at fault.
    """
    resolve_device(request.config.device)
    asked: Mapping[str, tuple[float, int, str]] = {
        "num_cpus": (request.num_cpus, os.cpu_count() or 1, "CPU"),
        "num_gpus": (request.gpus, torch.cuda.device_count() if request.gpus else 0, "GPU"),
    }
    for field, (wanted, there, unit) in asked.items():
        if wanted > there:
            raise InvalidRequestError(
                f"The job asks for {_count(wanted, unit)}, and jobs run on this machine, which has "
                f"{_count(there, unit) if there else f'no {unit}'}: ask for less, or run jobs on a "
                "Ray cluster (GRPO_JOB_BACKEND=ray).",
                field=field,
            )


def default_memory_bytes() -> int:
    """Three quarters of the memory that this machine, or the container that this is, has."""
    total = psutil.virtual_memory().total
    for path in _CGROUP_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # absent, or "max"
            total = min(total, int(path.read_text("ascii")))
    return int(_SHARE_OF_MEMORY * total)


def restrict_memory(limit_bytes: int) -> None:
    """Keep this process and those it forks from taking the machine's memory.

    Beyond the limit they get a MemoryError; and where several together take all there is, the
    kernel ends them before it ends a server.

    Args:
        limit_bytes: what each of them may take beyond what this one has; 0 is no limit.
    """
    with contextlib.suppress(OSError):  # another system, or a higher score already
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE), "ascii")
    if limit_bytes:
        # not RLIMIT_AS: addresses that are only reserved, as by allocators, take no memory
        limit = limit_bytes + _private_bytes()
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if hard == resource.RLIM_INFINITY or limit < hard:
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _private_bytes() -> int:
    """Writable private memory of this process, as RLIMIT_DATA counts it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text("utf-8", "replace").splitlines():
            if line.startswith("VmData:"):
                return 1024 * int(line.split()[1])
    return 0


def _count(number: float, unit: str) -> str:
    return f"{number:g} {unit}{'' if number == 1 else 's'}"
