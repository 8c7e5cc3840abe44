"""What a process does once so that those forked from it need not: imports and first times.

Importing this module imports everything that a worker uses.
"""

import logging

import torch

from grpo import GRPOConfig, GRPOError
from grpo.envs import check_environment
from grpo.threads import math_threads
from grpo.trainer import Trainer
from grpo_platform.core.errors import PlatformError
from grpo_platform.jobs import completion, trainer_process, worker
from grpo_platform.jobs.resources import own_temporary_folder
from grpo_platform.registry import packaging
from grpo_platform.registry.reference import environment_packages
from grpo_platform.tracking.preload import open_throwaway_store
from grpo_platform.tracking.provenance import code_version

__all__ = ["warm_up"]

_log = logging.getLogger(__name__)

_PRELOADED = (completion, trainer_process, worker)


def warm_up() -> None:
    """Train a little, export a model and open a database; none of it leaves a trace.

    A part that fails is only slower later, when its error belongs to a job.
    """
    torch.set_num_threads(1)
    math_threads().limit(limits=1)
    code_version()
    for part in (_train, _look_up_packages, packaging.warm_up, open_throwaway_store):
        try:
            with own_temporary_folder():
                part()
        except (GRPOError, PlatformError, OSError, RuntimeError):
            _log.warning("Jobs will start more slowly.", exc_info=True)


def _look_up_packages() -> None:
    environment_packages(check_environment("CartPole-v1"))


def _train() -> None:
    Trainer(GRPOConfig(total_timesteps=256, n_eval_episodes=4)).train()
