"""Search spaces in JSON or YAML."""

import json
from pathlib import Path
from typing import Any

import yaml

from grpo_platform.core.errors import InvalidRequestError

__all__ = ["parse_text", "read_space"]


def read_space(path: Path) -> dict[str, Any]:
    """The search space that a file holds, not checked yet.

    Raises:
        InvalidRequestError: it cannot be read, or holds none.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(
            f"{path} cannot be read: {error}", field="search_space"
        ) from error
    return parse_text(text, str(path))


def parse_text(text: str, source: str = "search_space") -> dict[str, Any]:
    """The search space that a text holds, not checked yet.

    Raises:
        InvalidRequestError: it is neither JSON nor YAML, or no mapping.
    """
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        try:
            found = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InvalidRequestError(
                f"{source} is neither JSON nor YAML: {error}", field="search_space"
            ) from error
    if not isinstance(found, dict):
        raise InvalidRequestError(
            f"{source} must hold a mapping from fields to what they vary over.",
            field="search_space",
        )
    return {str(name): _numbers(spec) for name, spec in found.items()}


def _numbers(spec: object) -> object:
    """YAML 1.1 takes 1e-4 for text, since it has no point."""
    if not isinstance(spec, dict):
        return spec
    return {key: _number(value) if key in ("low", "high") else value for key, value in spec.items()}


def _number(value: object) -> object:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
