"""What a job asks a machine for, CPUs and GPUs in Ray's terms, and the memory that it may take."""

import contextlib
import os
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import psutil
import torch

from grpo.torch_updater import resolve_device
from grpo_platform.core.errors import InvalidRequestError
from grpo_platform.core.request import JobRequest

__all__ = [
    "check_this_machine",
    "default_memory_bytes",
    "in_words",
    "resources_of",
    "restrict_memory",
]

_SHARE_OF_MEMORY: Final = 0.75
_OOM_SCORE: Final = 800
"""Of 1000: whoever has it goes first when the machine has no memory left, however little it has."""

_CGROUP_LIMITS: Final = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


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
