"""A request as MLflow params: what is logged, and how a param that is already there compares."""

import json
import shlex
from collections.abc import Mapping
from typing import Final

from grpo_platform.core.errors import InvalidRequestError
from grpo_platform.core.request import JobRequest

__all__ = ["MAX_PARAM_LENGTH", "differing", "params_of", "parse_param"]

MAX_PARAM_LENGTH: Final = 6000
"""Characters of a param's value that MLflow keeps; it cuts the rest off."""


def params_of(request: JobRequest, job_id: str) -> dict[str, str]:
    """Every field of the request under its own name, as the text that MLflow shows.

    Raises:
        InvalidRequestError: a value too long to be stored.
    """
    values = request.to_dict() | {"model_name": request.model_name_for(job_id)}
    params = {name: _text(value) for name, value in values.items()}
    for name, text in params.items():
        if len(text) > MAX_PARAM_LENGTH:
            raise InvalidRequestError(
                f"{name} takes {len(text)} characters as JSON; at most {MAX_PARAM_LENGTH} can be "
                "stored.",
                field=name,
            )
    return params


def differing(wanted: Mapping[str, str], logged: Mapping[str, str]) -> list[str]:
    """Names of the params that are logged with another meaning than wanted.

    One that is logged empty was left open, and agrees with everything.
    """
    return [
        name
        for name, text in wanted.items()
        if parse_param(logged.get(name, "")) not in (None, parse_param(text))
    ]


def parse_param(text: str) -> object:
    """The value that a param's text stands for.

    `mlflow run` logs what was typed, quoted for the shell: `3e-4` for 0.0003, `true` for True,
    two quotes for an empty string (which means None here).
    """
    try:
        words = shlex.split(text)
    except ValueError:
        words = [text]
    plain = words[0] if len(words) == 1 else text if words else ""
    if plain.lower() in ("", "none", "null"):
        return None
    if plain.lower() in ("true", "false"):
        return plain.lower() == "true"
    try:
        return float(plain)
    except ValueError:
        pass
    # a JSON value: unquoted as we log it, or quoted for the shell
    for candidate in (plain, text):
        try:
            value: object = json.loads(candidate)
            return value
        except ValueError:
            continue
    return plain


def _text(value: object) -> str:
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, sort_keys=True)
    return str(value)
