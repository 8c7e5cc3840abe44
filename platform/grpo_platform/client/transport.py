"""Requests to the API: JSON in and out, refusals as exceptions.

A server closes a connection that was idle for long, and may do so while the next request is on its
way: the client then sees a reset, though the server is well. So what does no harm when it is done
twice is sent again once, on a fresh connection; everything else is never sent on an old one.
"""

import asyncio
import ipaddress
import json
import os
import ssl
import time
import weakref
from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import Any, Final, NotRequired, Protocol, TypedDict, TypeVar, Unpack, cast
from urllib.parse import urlsplit

import httpx2

__all__ = [
    "ApiError",
    "AsyncSender",
    "BlockingSender",
    "ConnectionBrokenError",
    "NotFiniteError",
    "ServerNotFoundError",
    "ServerTimeoutError",
    "Transport",
    "server_address",
    "server_token",
]

_R = TypeVar("_R")

_DEFAULT_PORT: Final = "8000"
_CONNECT_SECONDS: Final = 10.0
_SILENT_SECONDS: Final = 60.0
"""Of a stream of events: the server says every 15 s that it is still there."""

_NEVER_KEPT: Final = httpx2.Limits(max_keepalive_connections=0)
_BAD_ADDRESS: Final = (httpx2.UnsupportedProtocol, httpx2.InvalidURL)
_BROKEN: Final = (httpx2.ReadError, httpx2.WriteError, httpx2.RemoteProtocolError)


class ApiError(Exception):
    """The server refused a call; the message says what to do.

    Attributes:
        status: HTTP status.
        problem: the whole reply (RFC 9457).
    """

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(str(problem.get("detail") or f"The server answered {status}."))
        self.status = status
        self.problem = dict(problem)


class ServerNotFoundError(ConnectionError):
    """No server of this API answers at the client's address."""


class ConnectionBrokenError(ConnectionError):
    """There is a server, but the connection to it ended before its answer came."""


class ServerTimeoutError(TimeoutError):
    """There is a server, but it did not answer in time."""


class NotFiniteError(ValueError):
    """A request was to hold NaN or infinity, which JSON has no word for."""

    def __init__(self) -> None:
        super().__init__("A request cannot hold NaN or infinity.")


def server_address(given: str | None) -> str:
    """Where a server is: as given, else in `GRPO_URL`, else this machine's, at `GRPO_PORT`."""
    port = os.environ.get("GRPO_PORT") or _DEFAULT_PORT
    return (given or os.environ.get("GRPO_URL") or f"http://localhost:{port}").rstrip("/")


def server_token(given: str | None) -> str | None:
    """What a server knows its callers by: as given, else in `GRPO_API_TOKEN`."""
    return given or os.environ.get("GRPO_API_TOKEN") or None


class Request(TypedDict):
    """What is sent."""

    method: NotRequired[str]
    url: str
    headers: dict[str, str]
    timeout: httpx2.Timeout
    params: NotRequired[dict[str, str | int]]
    content: NotRequired[bytes]


class Options(TypedDict):
    """Of all requests."""

    headers: dict[bytes, bytes]
    trust_env: bool
    follow_redirects: bool


class Sender(Protocol):
    """Sends requests over connections that are kept, or over a fresh one."""

    async def send(self, fresh: bool, **request: Unpack[Request]) -> httpx2.Response:
        """The whole reply."""

    def events(self, **request: Unpack[Request]) -> AsyncGenerator[httpx2.ServerSentEvent, None]:
        """What a stream tells, until it ends; raises `HTTPStatusError` where it is refused."""

    async def sleep(self, seconds: float) -> None:
        """Do nothing for a while."""

    async def close(self) -> None:
        """Close the connections."""


class BlockingSender:
    """Blocks the thread, and never waits for an event loop.

    Args:
        **options: of `httpx2.Client`.
    """

    def __init__(self, **options: Unpack[Options]) -> None:
        self._kept = httpx2.Client(**options)
        self._fresh = httpx2.Client(limits=_NEVER_KEPT, **options)
        # a notebook's client is mostly never closed
        self._close = weakref.finalize(self, _close, self._kept, self._fresh)

    async def send(self, fresh: bool, **request: Unpack[Request]) -> httpx2.Response:
        """The whole reply."""
        return (self._fresh if fresh else self._kept).request(**request)

    async def events(
        self, **request: Unpack[Request]
    ) -> AsyncGenerator[httpx2.ServerSentEvent, None]:
        """What a stream tells, until it ends."""
        with self._fresh.sse(**request) as source:
            if source.response.status_code == httpx2.codes.NO_CONTENT:
                return
            if source.response.is_error:
                source.response.read()
            source.response.raise_for_status()
            for event in source:
                yield event

    async def sleep(self, seconds: float) -> None:
        """Do nothing for a while."""
        time.sleep(seconds)

    async def close(self) -> None:
        """Close the connections."""
        self._close()


class AsyncSender:
    """Waits in the event loop that it is used in.

    Args:
        **options: of `httpx2.AsyncClient`.
    """

    def __init__(self, **options: Unpack[Options]) -> None:
        self._kept = httpx2.AsyncClient(**options)
        self._fresh = httpx2.AsyncClient(limits=_NEVER_KEPT, **options)

    async def send(self, fresh: bool, **request: Unpack[Request]) -> httpx2.Response:
        """The whole reply."""
        return await (self._fresh if fresh else self._kept).request(**request)

    async def events(
        self, **request: Unpack[Request]
    ) -> AsyncGenerator[httpx2.ServerSentEvent, None]:
        """What a stream tells, until it ends."""
        async with self._fresh.sse(**request) as source:
            if source.response.status_code == httpx2.codes.NO_CONTENT:
                return
            if source.response.is_error:
                await source.response.aread()
            source.response.raise_for_status()
            async for event in source:
                yield event

    async def sleep(self, seconds: float) -> None:
        """Do nothing for a while."""
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        """Close the connections."""
        await self._kept.aclose()
        await self._fresh.aclose()


class Transport:
    """Sends requests to one server.

    Args:
        base_url: where it is.
        token: its `GRPO_API_TOKEN`, if it has one.
        timeout_seconds: longest wait for an answer.
        sender: how they are sent.
    """

    def __init__(
        self,
        base_url: str,
        token: str | None,
        timeout_seconds: float,
        sender: type[AsyncSender | BlockingSender],
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._timeout_seconds = timeout_seconds
        headers = {} if token is None else {b"Authorization": f"Bearer {token}".encode()}
        # no proxy has a way to this machine's loopback
        self._sender: Sender = sender(
            headers=headers, trust_env=not _is_loopback(self.base_url), follow_redirects=True
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._sender.close()

    async def sleep(self, seconds: float) -> None:
        """Do nothing for a while."""
        await self._sender.sleep(seconds)

    async def pages(
        self, kind: type[_R], path: str, key: str, filters: Mapping[str, str | None]
    ) -> AsyncGenerator[_R, None]:
        """Items of a list, over all its pages.

        Args:
            kind: of an item.
            path: of the list.
            key: member of a page that holds the items.
            filters: query parameters.
        """
        token: str | None = None
        while True:
            query: dict[str, str | int | None] = {**filters, "limit": 1000, "page_token": token}
            page = await self.call(dict[str, Any], "GET", path, params=query)
            for item in page[key]:
                yield item
            token = page["next_page_token"]
            if token is None:
                return

    async def call(
        self,
        kind: type[_R],
        method: str,
        path: str,
        *,
        json: Mapping[str, object] | None = None,
        params: Mapping[str, str | int | None] | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool = False,
        timeout_seconds: float | None = None,
    ) -> _R:
        """The JSON reply to one request.

        Args:
            kind: of the reply, as the API's schema has it.
            method: of HTTP; GET is always repeatable.
            path: below the server's address.
            json: body.
            params: query; None is left out.
            headers: beside those of every request.
            repeatable: to do it twice is to do it once.
            timeout_seconds: longest wait for this answer; the client's where left out.

        Raises:
            ServerNotFoundError: nobody answers, what answers is not this API, or the address is
                none.
            ConnectionBrokenError: the connection ended before the answer.
            ServerTimeoutError: the answer takes too long.
            ApiError: the server refused.
            NotFiniteError: a number is NaN or infinite.
        """
        reply = await self._reply(
            method, path, repeatable or method == "GET", timeout_seconds, json, params, headers
        )
        try:
            return cast(_R, reply.json())
        except ValueError as error:
            raise self._foreign() from error

    async def content(
        self,
        method: str,
        path: str,
        *,
        json: Mapping[str, object] | None = None,
        params: Mapping[str, str | int | None] | None = None,
    ) -> bytes:
        """The bytes of the reply to one request; raises what `call` does."""
        return (await self._reply(method, path, method == "GET", None, json, params)).content

    async def events(
        self, path: str, last_event_id: str | None
    ) -> AsyncGenerator[httpx2.ServerSentEvent, None]:
        """What a stream of events tells, until it ends; raises what `call` does."""
        headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
        seconds = max(_SILENT_SECONDS, self._timeout_seconds)
        request: Request = {
            "url": self.base_url + path, "headers": headers, "timeout": _limits(seconds)
        }  # fmt: skip
        try:
            async for event in self._sender.events(**request):
                yield event
        except httpx2.HTTPStatusError as error:
            raise ApiError(error.response.status_code, _problem(error.response)) from error
        except httpx2.SSEError as error:
            raise self._foreign() from error
        except (httpx2.RequestError, httpx2.InvalidURL) as error:
            raise self._explained(error, f"GET {path}", True, seconds) from error

    async def _reply(
        self,
        method: str,
        path: str,
        repeatable: bool,
        seconds: float | None,
        body: Mapping[str, object] | None = None,
        params: Mapping[str, str | int | None] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        seconds = seconds or self._timeout_seconds
        request: Request = {
            "method": method,
            "url": self.base_url + path,
            "params": {name: value for name, value in (params or {}).items() if value is not None},
            "headers": dict(headers or {}),
            "timeout": _limits(seconds),
        }
        if body is not None:
            request["content"] = _encoded(body)
            request["headers"]["Content-Type"] = "application/json"
        try:
            reply = await self._send(repeatable, request)
        except (httpx2.RequestError, httpx2.InvalidURL) as error:
            raise self._explained(error, f"{method} {path}", repeatable, seconds) from error
        if reply.is_error:
            raise ApiError(reply.status_code, _problem(reply))
        return reply

    async def _send(self, repeatable: bool, request: Request) -> httpx2.Response:
        if repeatable:
            try:
                return await self._sender.send(False, **request)
            except _BROKEN:
                pass  # it was idle for too long
        return await self._sender.send(True, **request)

    def _foreign(self) -> ServerNotFoundError:
        return ServerNotFoundError(
            f"What answers at {self.base_url} is another program; give the server's address."
        )

    def _explained(self, error: Exception, call: str, repeatable: bool, seconds: float) -> OSError:
        server = f"The server at {self.base_url}"
        advice = "Try again." if repeatable else "It may have done it: look before you try again."
        if isinstance(error, _BAD_ADDRESS):
            return ServerNotFoundError(
                f"{self.base_url!r} is no address of a server; it looks like http://localhost:8000."
            )
        if isinstance(error, httpx2.ProxyError) or _is_about_tls(error):
            return ServerNotFoundError(f"No connection to {self.base_url} can be made: {error}.")
        if isinstance(error, httpx2.ReadTimeout | httpx2.WriteTimeout):
            late = f"{server} did not answer {call} within {seconds:g} s."
            return ServerTimeoutError(f"{late} {advice}")
        if isinstance(error, _BROKEN):
            broken = f"{server} closed the connection before it had answered {call}."
            return ConnectionBrokenError(f"{broken} {advice}")
        return ServerNotFoundError(
            f"No server answers at {self.base_url}. Start one with `python run_api.py`, or "
            "give its address."
        )


def _close(*clients: httpx2.Client) -> None:
    for client in clients:
        client.close()


def _limits(seconds: float) -> httpx2.Timeout:
    return httpx2.Timeout(seconds, connect=_CONNECT_SECONDS)


def _encoded(body: Mapping[str, object]) -> bytes:
    try:
        return json.dumps(body, allow_nan=False).encode()
    except ValueError as error:
        raise NotFiniteError from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_about_tls(error: Exception) -> bool:
    return any(isinstance(cause, ssl.SSLError) for cause in _causes(error))


def _is_loopback(url: str) -> bool:
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _problem(reply: httpx2.Response) -> Mapping[str, Any]:
    try:
        problem = reply.json()
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}
