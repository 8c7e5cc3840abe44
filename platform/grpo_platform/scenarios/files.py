"""Suites in YAML, which JSON is a part of: safely read, and small."""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from grpo.scenarios.suite import Suite
from grpo_platform.core.errors import InvalidRequestError
from grpo_platform.scenarios.grammar import MOST_CHARACTERS, parse_suite

__all__ = ["dump_suite", "parse_text", "read_suite_text"]


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, without what makes much of little, or hides what is written.

    Aliases are refused: a few of them stand for billions of values. A key that stands twice is
    refused, where YAML takes the last one. `1e-3` is a number, as in JSON and in YAML 1.2.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(
                None, None, "aliases are not taken; write it out", event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set[str]()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+"),
    list("-+.0123456789"),
)


def parse_text(text: str) -> Suite:
    """The suite that a text holds.

    Raises:
        InvalidRequestError: it is no YAML, or holds no suite; the message names the place.
    """
    if len(text) > MOST_CHARACTERS:
        raise InvalidRequestError(
            f"A suite may have at most {MOST_CHARACTERS} characters.", field="suite"
        )
    try:
        values = yaml.load(text, _Loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        said = " ".join(str(error).split())[:500] or "it is nested too deeply"
        raise InvalidRequestError(f"The suite is no YAML: {said}.", field="suite") from error
    return parse_suite(values)


def read_suite_text(path: Path) -> str:
    """What a file of a suite holds, not parsed.

    Raises:
        InvalidRequestError: it cannot be read.
    """
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(MOST_CHARACTERS + 1)
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not in UTF-8"
        raise InvalidRequestError(f"{path} cannot be read: {why}.", field="suite") from error


def dump_suite(suite: Suite) -> str:
    """A suite as YAML, for `parse_text`."""
    text: str = yaml.safe_dump(
        suite.to_dict(), sort_keys=False, allow_unicode=True, default_flow_style=None, width=100
    )
    return text
