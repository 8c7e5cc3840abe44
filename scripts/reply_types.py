"""Write the client's types of replies, from the schema that the server publishes.

    python scripts/reply_types.py

`platform/grpo_platform/client/replies.py` is what comes out: a TypedDict for each reply, so that a
type checker knows every field, and nothing is imported or validated at run time. A test compares.
"""

import importlib
import json
import keyword
import pkgutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from grpo_platform.api import routes
from grpo_platform.api.openapi import install_openapi

TARGET = Path(__file__).resolve().parents[1] / "platform/grpo_platform/client/replies.py"
WIDTH = 100
LEAST_SHARED = 4
"""Fields of a type that another one may be an extension of."""

PLAIN = {
    "string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None",
    "object": "dict[str, Any]", "array": "list[Any]",
}  # fmt: skip
HEAD = '''\
"""What the API answers, typed; docs/api.md says what each field means.

Written by `scripts/reply_types.py` from the server's schema.
"""

from typing import Any, Literal, NotRequired, TypedDict

'''


def schema() -> dict[str, Any]:
    """The OpenAPI schema of all routes."""
    app = FastAPI()
    for module in pkgutil.iter_modules(routes.__path__, f"{routes.__name__}."):
        app.include_router(importlib.import_module(module.name).router)
    install_openapi(app, secured=False)
    return app.openapi()


def replies(found: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The schema of each JSON reply that is no refusal."""
    for path, operations in found["paths"].items():
        if path.startswith("/v2"):  # which has clients of its own
            continue
        for operation in operations.values():
            content = operation["responses"]["200"].get("content", {})
            if reply := content.get("application/json", {}).get("schema"):
                yield reply


def name_of(reference: str) -> str:
    """The type's name by a reference to its schema."""
    return reference.rpartition("/")[2].removesuffix("-Output")


def type_of(part: Mapping[str, Any], used: set[str]) -> str:
    """The annotation for a part of a schema; adds to `used` the components that it needs."""
    match part:
        case {"$ref": reference}:
            used.add(reference.rpartition("/")[2])
            return name_of(reference)
        case {"const": value}:
            return f"Literal[{value!r}]"
        case {"enum": values}:
            return f"Literal[{', '.join(map(repr, values))}]"
        case {"anyOf": parts} | {"oneOf": parts}:
            found = list(dict.fromkeys(type_of(each, used) for each in parts))
            return "Any" if "Any" in found else " | ".join(found)
        case {"type": "array", "items": items}:
            return f"list[{type_of(items, used)}]"
        case {"type": "object", "additionalProperties": dict() as values}:
            return f"dict[str, {type_of(values, used)}]"
        case {"type": kind}:
            return PLAIN[kind]
    return "Any"


def docstring(text: str, indent: str) -> str:
    """Words as a docstring that fits the line."""
    words = text.replace("\\", "\\\\")
    quoted = textwrap.fill(f'"""{words}"""', WIDTH - len(indent), break_on_hyphens=False)
    return textwrap.indent(quoted, indent)


def fields_of(part: Mapping[str, Any], used: set[str]) -> dict[str, str]:
    """Annotations of an object's fields; none where it is no object with fields."""
    if part.get("type") != "object":
        return {}
    return {
        field: type_of(each, used)
        if field in part.get("required", ())
        else f"NotRequired[{type_of(each, used)}]"
        for field, each in part.get("properties", {}).items()
    }


def base_of(name: str, all_fields: Mapping[str, Mapping[str, str]]) -> str | None:
    """The component with the most fields of which this one has all, and others."""
    own = all_fields[name].items()
    found = [
        other
        for other, fields in all_fields.items()
        if len(fields) >= LEAST_SHARED and fields.items() < own
    ]
    return max(sorted(found), key=lambda other: len(all_fields[other]), default=None)


def defined(name: str, part: Mapping[str, Any], base: str | None, fields: Mapping[str, str]) -> str:
    """The definition of a component with fields that its base does not have."""
    if any(map(keyword.iskeyword, fields)):
        inner = ", ".join(f"{field!r}: {kind!r}" for field, kind in fields.items())
        return f"{name} = TypedDict({name!r}, {{{inner}}})"
    lines = [
        f"class {name}({'TypedDict' if base is None else name_of(base)}):",
        docstring(part.get("description", name).partition("\n")[0], "    "),
        "",
    ]
    for field, kind in fields.items():
        lines.append(f"    {field}: {kind}")
    return "\n".join(lines)


def module() -> str:
    """The whole file, formatted."""
    found = schema()
    components = found["components"]["schemas"]
    used: set[str] = set()
    for reply in replies(found):
        type_of(reply, used)
    needs: dict[str, set[str]] = {}
    fields: dict[str, dict[str, str]] = {}
    while missing := sorted(used - fields.keys()):
        for component in missing:
            needs[component] = set()
            fields[component] = fields_of(components[component], needs[component])
            if not fields[component]:
                type_of(components[component], needs[component])
            used |= needs[component]
    texts: dict[str, str] = {}
    for component, own in fields.items():
        part, name = components[component], name_of(component)
        if not own:
            texts[component] = f"{name} = {type_of(part, set())}"
            continue
        base = base_of(component, fields)
        inherited = {} if base is None else fields[base]
        needs[component] |= set() if base is None else {base}
        rest = {field: kind for field, kind in own.items() if field not in inherited}
        texts[component] = defined(name, part, base, rest)
    ordered = TopologicalSorter(
        {name: sorted(needs[name]) for name in sorted(needs)}
    ).static_order()
    names = json.dumps(sorted(map(name_of, texts)))
    source = f"{HEAD}__all__ = {names}\n\n" + "\n\n".join(map(texts.__getitem__, ordered)) + "\n"
    return subprocess.run(
        [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(TARGET), "-"],
        input=source, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip


if __name__ == "__main__":
    TARGET.write_text(module(), encoding="utf-8")
