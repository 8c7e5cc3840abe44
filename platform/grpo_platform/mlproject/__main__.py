"""`python -m grpo_platform.mlproject NAME --parameter value …`, the command of each entry point."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NoReturn

import grpo
from grpo_platform.core.errors import InvalidRequestError, PlatformError
from grpo_platform.core.messages import as_commands, escape_unprintable
from grpo_platform.mlproject.entry_points import evaluate, reproduce, train
from grpo_platform.mlproject.parameters import parse_parameters
from grpo_platform.mlproject.sweep import sweep

__all__ = ["ENTRY_POINTS", "EntryPoint", "main"]

EntryPoint = Callable[[str, Mapping[str, str]], int]
"""Takes the id of the run that MLflow made, and the parameters as text; returns the exit code.

It may raise errors of `grpo` and `PlatformError` before it has started anything: `main` says them
in sentences, and MLflow marks the run FAILED.
"""

ENTRY_POINTS: Final[Mapping[str, EntryPoint]] = {
    "train": train,
    "evaluate": evaluate,
    "reproduce": reproduce,
    "sweep": sweep,
}
"""By the name in MLproject's command; MLflow calls the first one `main`."""

_REFUSED: Final = 2
"""Exit code for parameters that do not fit; MLflow then marks the run FAILED."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one entry point: `train --env_name CartPole-v1 --total_timesteps 5000 …`.

    Returns:
        Exit code of the entry point. Parameters that do not fit end the process with 2 before
        any of it.
    """
    escape_unprintable()
    name, *words = (sys.argv[1:] if arguments is None else arguments) or [""]
    entry_point = ENTRY_POINTS.get(name)
    if entry_point is None:
        _refuse("run", f"Call it as `mlflow run .`; there are: {', '.join(ENTRY_POINTS)}.")
    try:
        return entry_point(_run_id(), parse_parameters(words))
    except (grpo.GRPOError, PlatformError) as error:
        _refuse(name, str(error))


def _run_id() -> str:
    run_id = os.environ.get("MLFLOW_RUN_ID", "")
    if not run_id:
        raise InvalidRequestError("MLFLOW_RUN_ID is not set: call it as `mlflow run .`")
    return run_id


def _refuse(verb: str, *reasons: str) -> NoReturn:
    said = [
        f"grpo-platform cannot {verb} this:",
        *(as_commands(reason, "grpo-platform train") for reason in reasons),
    ]
    print("\n".join(said), file=sys.stderr)
    sys.exit(_REFUSED)


if __name__ == "__main__":
    sys.exit(main())
