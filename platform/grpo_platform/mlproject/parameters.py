"""Parameters of an entry point: they come as text, and are checked like the API's JSON."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from grpo_platform.api.errors import explain_finding
from grpo_platform.core.errors import InvalidRequestError
from grpo_platform.tracking.records import parse_param

__all__ = ["parse_parameters", "validated", "with_seeds"]

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
        InvalidRequestError: they do not fit it; a line for each that does not.
    """
    properties = body.model_json_schema()["properties"]
    typed = {name: _typed(properties.get(name, {}), text) for name, text in given.items()}
    try:
        return body.model_validate(typed)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        lines = [f"{_where(one['loc'])}: {explain_finding(one, body)}" for one in found]
        raise InvalidRequestError("\n".join(lines)) from error


def with_seeds(given: Mapping[str, str]) -> dict[str, str]:
    """The parameters with `seeds` as JSON: `3,14,15` is a list too."""
    seeds = given.get("seeds", "").strip()
    listed = f"[{seeds}]" if "," in seeds and not seeds.startswith("[") else seeds
    return {**given, "seeds": listed} if seeds else {**given}


def _where(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location) or "parameters"


def _typed(schema: Mapping[str, object], text: str) -> object:
    branches = schema.get("anyOf")
    kinds = {part.get("type") for part in branches} if isinstance(branches, list) else set()
    kinds.add(schema.get("type"))
    # a name stays text even where it looks like a number
    is_text = "string" in kinds and not kinds & {"integer", "number"}
    return text if is_text and text else parse_param(text)
