"""What a job asks a machine for: CPUs and GPUs, in Ray's terms."""

import os
from collections.abc import Mapping

import torch

from grpo.autograd import resolve_device
from grpo_platform.errors import InvalidRequestError
from grpo_platform.jobs.request import JobRequest

__all__ = ["check_this_machine", "in_words", "resources_of"]


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


def _count(number: float, unit: str) -> str:
    return f"{number:g} {unit}{'' if number == 1 else 's'}"
