"""Things by name: built in, brought by an installed distribution, or handed in as an object.

A configuration is JSON, so it names what it is made of. A name like `dr` stands in a `Registry`.
A name like `<my_module.my_reward>` says that an object of that name was handed in: it stands in no
registry and is never imported; whoever reads such a configuration passes the object again.
"""

import functools
import logging
import re
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, NamedTuple, TypeVar

from grpo.errors import IncompatibleError, UnknownNameError, in_words

__all__ = ["Objects", "Registry", "handed_in", "name_of", "plug_ins"]

T = TypeVar("T")

Objects = Mapping[str, Any]
"""Objects that were handed in, by the name that `name_of` gave them."""

_HANDED_IN = re.compile(r"<.{1,200}>")

_OWN_GROUPS = "grpo."
_ENVIRONMENTS = "gymnasium.envs"  # itself: of others that begin so nothing is loaded

_log = logging.getLogger(__name__)


def name_of(thing: object) -> str:
    """The name that stands for a handed-in object in a configuration: `<module.qualified.name>`."""
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    text = f"{named.__module__}.{named.__qualname__}".replace("<", "").replace(">", "")
    return f"<{text[-200:]}>"


def handed_in(name: object) -> bool:
    """Whether a name stands for an object that was handed in."""
    return isinstance(name, str) and _HANDED_IN.fullmatch(name) is not None


def plug_ins() -> list[EntryPoint]:
    """What installed distributions bring: environments, and all that stands in a registry."""
    there = sorted(entry_points().groups)
    groups = [name for name in there if name.startswith(_OWN_GROUPS) or name == _ENVIRONMENTS]
    return [entry for group in groups for entry in entry_points(group=group)]


class _Entries(NamedTuple, Generic[T]):
    found: Mapping[str, T]
    broken: Mapping[str, str]
    """Plug-ins that are left out, by name, and why."""


class Registry(Generic[T]):
    """Objects of one kind by name; plug-ins come in by entry points, when first asked for.

    A plug-in that does not load, or takes a name that there is, is left out and logged.

    Args:
        field: the configuration field that holds such a name, for messages.
        group: entry-point group; an entry point's name is the object's.
        built_in: what is always there.
        accept: makes the object of what an entry point names, or of what was handed in; raises
            TypeError, with what it expected, for anything else.
    """

    def __init__(
        self, field: str, group: str, built_in: Mapping[str, T], accept: Callable[[Any], T]
    ) -> None:
        self._field = field
        self._group = group
        self._built_in = built_in
        self._accept = accept

    def names(self) -> tuple[str, ...]:
        """All names, sorted."""
        return tuple(sorted(self._entries.found))

    def items(self) -> list[tuple[str, T]]:
        """All names and what they name, sorted by name."""
        return sorted(self._entries.found.items(), key=lambda item: item[0])

    def get(self, name: str, objects: Objects | None = None) -> T:
        """What a name stands for.

        Args:
            name: as it stands in the configuration.
            objects: those that were handed in.

        Raises:
            UnknownNameError: no such name.
            IncompatibleError: its plug-in does not load; or the object was handed in to another
                session and has to be passed again; or is nothing of this kind.
        """
        if handed_in(name):
            return self._handed_in(name, objects or {})
        if name in self._built_in:
            return self._built_in[name]
        entries = self._entries
        if name in entries.broken:
            raise IncompatibleError(
                f"The plug-in of the {self._kind} {name!r} does not load: {entries.broken[name]}.",
                field=self._field,
            )
        if name not in entries.found:
            raise UnknownNameError(self._field, name, entries.found)
        return entries.found[name]

    def check(self, name: str) -> None:
        """Refuse a name that nothing has; imports no plug-in, so that `get` may yet fail.

        Raises:
            UnknownNameError: no such name.
        """
        if not handed_in(name) and name not in self._installed:
            raise UnknownNameError(self._field, name, self._installed)

    def _handed_in(self, name: str, objects: Objects) -> T:
        if name not in objects:
            raise IncompatibleError(
                f"The {self._kind} {name[1:-1]} was handed in as an object: pass it again, or "
                f"name one of: {', '.join(self.names())}.",
                field=self._field,
            )
        try:
            return self._accept(objects[name])
        except TypeError as error:
            raise IncompatibleError(
                f"{name[1:-1]} cannot be the {self._kind}: {error}.", field=self._field
            ) from error

    @property
    def _kind(self) -> str:
        return self._group.rpartition(".")[2].removesuffix("s").replace("_", " ")

    @functools.cached_property
    def _installed(self) -> frozenset[str]:
        return frozenset(self._built_in) | entry_points(group=self._group).names

    @functools.cached_property
    def _entries(self) -> _Entries[T]:
        found, broken = dict(self._built_in), dict[str, str]()
        for entry in entry_points(group=self._group):
            if entry.name in found:
                _log.warning("A second %s %r is left out: %s.", self._kind, entry.name, entry.value)
                continue
            try:
                found[entry.name] = self._accept(_load(entry))
            except (ImportError, TypeError) as error:
                _log.warning(
                    "The %s %r is left out: %s", self._kind, entry.name, error, exc_info=True
                )
                broken[entry.name] = str(error)
        return _Entries(found, broken)


def _load(entry: EntryPoint) -> object:
    """What an entry point names.

    Raises:
        ImportError: anything went wrong in it.
    """
    try:
        loaded: object = entry.load()
    except (Exception, SystemExit) as error:
        raise ImportError(in_words(error)) from error
    return loaded
