"""Parameters of an entry point: they come as text, and are checked like the API's JSON."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from pydantic import BaseModel

from grpo_platform.errors import InvalidRequestError
from grpo_platform.tracking.params import parse_param

__all__ = ["parse_parameters", "validated"]

_Body = TypeVar("_Body", bound=BaseModel)


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


def validated(body: type[_Body], given: Mapping[str, str]) -> _Body:
    """The parameters as if they were the JSON body of a request.

    Raises:
        pydantic.ValidationError: they do not fit it.
    """
    properties = body.model_json_schema()["properties"]
    return body.model_validate(
        {name: _typed(properties.get(name, {}), text) for name, text in given.items()}
    )


def _typed(schema: Mapping[str, object], text: str) -> object:
    branches = schema.get("anyOf")
    kinds = [part.get("type") for part in branches] if isinstance(branches, list) else []
    # a name stays text even where it looks like a number
    return text if "string" in (*kinds, schema.get("type")) and text else parse_param(text)
