"""One definition of every call, for a client that blocks and for one that is awaited.

A call is an async method of a group of calls, written once. `AsyncGRPOClient` has it as it is; a
client that is `Blocking` runs it to its end, over a transport that blocks, so that it never waits
for an event loop: it needs none, and can be used inside of one, as in a notebook.
"""

import functools
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from types import MethodType
from typing import Any, Concatenate, Final, Generic, ParamSpec, TypeVar, cast, overload
from urllib.parse import quote

from grpo_platform.client.transport import Transport

__all__ = ["Blocking", "Calls", "Iteration", "Operation", "finished", "part"]

_P = ParamSpec("_P")
_R = TypeVar("_R")

_WAITED: Final = "A call of the blocking client waited for an event loop."


class Calls:
    """A group of calls to one server."""

    _transport: Transport


class Blocking:
    """A client whose calls return when they are done."""

    _calls: Calls
    """The same calls, over a transport that blocks."""


class Operation(Generic[_P, _R]):
    """Decorates a call: awaited on most clients, at once on a `Blocking` one."""

    def __init__(self, call: Callable[Concatenate[Any, _P], Coroutine[Any, Any, _R]]) -> None:
        @functools.wraps(call)
        def blocking(client: Blocking, *args: _P.args, **kwargs: _P.kwargs) -> _R:
            return finished(call(client._calls, *args, **kwargs))

        self._call, self._blocking = call, blocking
        self.__doc__ = call.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Callable[..., Any]: ...
    @overload
    def __get__(self, client: Blocking, owner: type) -> Callable[_P, _R]: ...
    @overload
    def __get__(self, client: Calls, owner: type) -> Callable[_P, Coroutine[Any, Any, _R]]: ...
    def __get__(self, client: object, owner: type) -> Callable[..., Any]:
        """The call of a client, or of a kind of client."""
        call: Any = self._blocking if issubclass(owner, Blocking) else self._call
        return call if client is None else MethodType(call, client)


class Iteration(Generic[_P, _R]):
    """Decorates a call that gives one thing after the other: `async for`, or `for`."""

    def __init__(self, call: Callable[Concatenate[Any, _P], AsyncGenerator[_R, None]]) -> None:
        @functools.wraps(call)
        def blocking(
            client: Blocking, *args: _P.args, **kwargs: _P.kwargs
        ) -> Generator[_R, None, None]:
            return _each(call(client._calls, *args, **kwargs))

        self._call, self._blocking = call, blocking
        self.__doc__ = call.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Callable[..., Any]: ...
    @overload
    def __get__(self, client: Blocking, owner: type) -> Callable[_P, Generator[_R, None, None]]: ...
    @overload
    def __get__(self, client: Calls, owner: type) -> Callable[_P, AsyncGenerator[_R, None]]: ...
    def __get__(self, client: object, owner: type) -> Callable[..., Any]:
        """The call of a client, or of a kind of client."""
        call: Any = self._blocking if issubclass(owner, Blocking) else self._call
        return call if client is None else MethodType(call, client)


def finished(awaited: Awaitable[_R]) -> _R:
    """The result of what never waits for an event loop.

    Raises:
        RuntimeError: it does.
    """
    try:
        next(awaited.__await__())
    except StopIteration as done:
        return cast(_R, done.value)
    raise RuntimeError(_WAITED)


def _each(found: AsyncGenerator[_R, None]) -> Generator[_R, None, None]:
    try:
        while True:
            try:
                one = finished(anext(found))
            except StopAsyncIteration:
                return
            yield one
    finally:
        finished(found.aclose())


def part(name: str) -> str:
    """A name, as one part of a path."""
    return quote(name, safe="")
