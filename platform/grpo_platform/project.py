"""Entry points of the MLproject: a run that `mlflow run` created becomes a job of ours."""

import os
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

from pydantic import ValidationError

import grpo
from grpo_platform.api.schemas.training import TrainRequest
from grpo_platform.api.submission import check_request, resolve_request
from grpo_platform.errors import InvalidRequestError, PlatformError
from grpo_platform.jobs.request import JobRequest
from grpo_platform.jobs.worker import run_worker
from grpo_platform.registry.models import Registry
from grpo_platform.settings import Settings
from grpo_platform.tracking.jobs import JobStore
from grpo_platform.tracking.params import parse_param
from grpo_platform.tracking.store import Store, absolute_uri

__all__ = ["main", "parse_parameters", "request_of"]

_REFUSED: Final = 2
"""Exit code for parameters that cannot be trained; MLflow then marks the run FAILED."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one entry point: `train --env_name CartPole-v1 --total_timesteps 5000 …`.

    Returns:
        Exit code: 0 when the job completed, 1 when it failed or was stopped. Parameters that
        cannot be trained end the process with 2 before any of it.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] != "train":
        _refuse("Call it as `mlflow run .`; the one entry point is: train.")
    try:
        request = request_of(parse_parameters(words[1:]))
        return _train(_run_id(), request)
    except ValidationError as error:
        _refuse(*(f"{_where(e['loc'])}: {e['msg']}" for e in error.errors(include_url=False)))
    except (grpo.ConfigError, PlatformError) as error:
        _refuse(str(error))


def parse_parameters(words: Sequence[str]) -> dict[str, str]:
    """`--name value` pairs, as MLflow writes each `-P name=value`, without their types yet.

    Raises:
        InvalidRequestError: a word that is no such pair.
    """
    if len(words) % 2:
        raise InvalidRequestError("Parameters are pairs: -P name=value.")
    given = {}
    for name, value in zip(words[::2], words[1::2], strict=True):
        if not name.startswith("--"):
            raise InvalidRequestError(f"Parameters are pairs: -P name=value, not {name[:100]!r}.")
        given[name[2:]] = value
    return given


def request_of(given: dict[str, str]) -> JobRequest:
    """Validated like the body of POST /train, but for its types: every value came as text."""
    values = {name: _typed(name, text) for name, text in given.items()}
    body = TrainRequest.model_validate(values)
    return resolve_request(body.model_dump(exclude_unset=True), Settings().max_timesteps)


def _typed(name: str, text: str) -> object:
    schema = TrainRequest.model_json_schema()["properties"].get(name, {})
    kinds = {part.get("type") for part in schema.get("anyOf", [schema])}
    # a name stays text even where it looks like a number
    return text if "string" in kinds and text else parse_param(text)


def _train(run_id: str, request: JobRequest) -> int:
    uri = absolute_uri(Settings().tracking_uri)
    store = JobStore(uri)
    check_request(request, Registry(uri), store)
    job = store.adopt(run_id, request)
    place = Store(
        tracking_uri=uri, experiment_id=job.experiment_id, artifact_location=job.artifact_uri
    )
    return run_worker(place, run_id, job.attempt, request)


def _run_id() -> str:
    run_id = os.environ.get("MLFLOW_RUN_ID", "")
    if not run_id:
        raise InvalidRequestError("MLFLOW_RUN_ID is not set: call it as `mlflow run .`")
    return run_id


def _where(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location) or "parameters"


def _refuse(*reasons: str) -> NoReturn:
    print("\n".join(("grpo-platform cannot train this:", *reasons)), file=sys.stderr)
    sys.exit(_REFUSED)


if __name__ == "__main__":
    sys.exit(main())
