"""Requests to the API: JSON in and out, refusals as exceptions.

A server closes a connection that was idle for long, and may do so while the next request is on its
way: the client then sees a reset, though the server is well. So what does no harm when it is done
twice is sent again once, on a fresh connection; everything else is never sent on an old one.
"""

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import MaxRetryError, ReadTimeoutError

__all__ = [
    "ApiError",
    "ConnectionBrokenError",
    "NotFiniteError",
    "ServerNotFoundError",
    "ServerTimeoutError",
    "Transport",
]

_CONNECT_SECONDS: Final = 10.0
_BAD_ADDRESS: Final = (
    requests.exceptions.InvalidSchema,
    requests.exceptions.InvalidURL,
    requests.exceptions.MissingSchema,
)
_NO_CONNECTION: Final = (requests.exceptions.SSLError, requests.exceptions.ProxyError)
_BROKEN: Final = (requests.ConnectionError, requests.exceptions.ChunkedEncodingError)


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


class Transport:
    """Sends requests to one server.

    Args:
        base_url: where it is.
        token: its `GRPO_API_TOKEN`, if it has one.
        timeout_seconds: longest wait for an answer.
    """

    def __init__(self, base_url: str, token: str | None, timeout_seconds: float) -> None:
        self.base_url = base_url.rstrip("/")
        self._timeout_seconds = timeout_seconds
        self._session = requests.Session()
        # no proxy has a way to this machine's loopback
        self._session.trust_env = not _is_loopback(self.base_url)
        if token is not None:
            self._session.headers["Authorization"] = f"Bearer {token}".encode()

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def pages(
        self, path: str, key: str, filters: Mapping[str, str | None]
    ) -> Iterator[dict[str, Any]]:
        """Items of a list, over all its pages.

        Args:
            path: of the list.
            key: member of a page that holds the items.
            filters: query parameters.
        """
        token: str | None = None
        while True:
            query: dict[str, str | int | None] = {**filters, "limit": 1000, "page_token": token}
            page = self.call("GET", path, params=query)
            yield from page[key]
            token = page["next_page_token"]
            if token is None:
                return

    def call(
        self,
        method: str,
        path: str,
        *,
        json: Mapping[str, object] | None = None,
        params: Mapping[str, str | int | None] | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool = False,
        timeout_seconds: float | None = None,
    ) -> dict[str, Any]:
        """The JSON reply to one request.

        Args:
            method: of HTTP; GET is always repeatable.
            path: below the server's address.
            json: body.
            params: query.
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
        content = {"json": json, "params": params, "headers": headers}
        seconds = timeout_seconds or self._timeout_seconds
        reply = self._reply(method, path, repeatable or method == "GET", content, seconds)
        try:
            return cast(dict[str, Any], reply.json())
        except requests.JSONDecodeError as error:
            raise ServerNotFoundError(
                f"What answers at {self.base_url} is another program; give the server's address."
            ) from error

    def text(self, path: str, params: Mapping[str, str | int | None]) -> str:
        """The reply to one GET, as it is written; raises what `call` does."""
        return self.content(path, params).decode()

    def content(self, path: str, params: Mapping[str, str | int | None]) -> bytes:
        """The bytes of the reply to one GET; raises what `call` does."""
        reply = self._reply("GET", path, True, {"params": params}, self._timeout_seconds)
        return reply.content

    def posted(self, path: str, json: Mapping[str, object]) -> bytes:
        """The bytes that a POST gives; raises what `call` does."""
        return self._reply("POST", path, False, {"json": json}, self._timeout_seconds).content

    def _reply(
        self, method: str, path: str, repeatable: bool, content: dict[str, Any], seconds: float
    ) -> requests.Response:
        content = {**content, "timeout": (_CONNECT_SECONDS, seconds)}
        try:
            reply = self._send(method, path, repeatable, content)
        except requests.exceptions.InvalidJSONError as error:
            raise NotFiniteError from error
        except requests.RequestException as error:
            raise self._explained(error, f"{method} {path}", repeatable, seconds) from error
        if not reply.ok:
            raise ApiError(reply.status_code, _problem(reply))
        return reply

    def _send(
        self, method: str, path: str, repeatable: bool, content: Mapping[str, Any]
    ) -> requests.Response:
        if not repeatable:
            self._session.close()
        url = self.base_url + path
        try:
            return self._session.request(method, url, **content)
        except _BROKEN as error:
            if not repeatable or not _is_broken(error):
                raise
        self._session.close()
        return self._session.request(method, url, **content)

    def _explained(
        self, error: requests.RequestException, call: str, repeatable: bool, seconds: float
    ) -> OSError:
        server = f"The server at {self.base_url}"
        advice = "Try again." if repeatable else "It may have done it: look before you try again."
        if isinstance(error, _BAD_ADDRESS):
            return ServerNotFoundError(
                f"{self.base_url!r} is no address of a server; it looks like http://localhost:8000."
            )
        if isinstance(error, _NO_CONNECTION):
            return ServerNotFoundError(f"No connection to {self.base_url} can be made: {error}.")
        if _is_late(error):
            late = f"{server} did not answer {call} within {seconds:g} s."
            return ServerTimeoutError(f"{late} {advice}")
        if isinstance(error, _BROKEN) and _is_broken(error):
            broken = f"{server} closed the connection before it had answered {call}."
            return ConnectionBrokenError(f"{broken} {advice}")
        return ServerNotFoundError(
            f"No server answers at {self.base_url}. Start one with `python run_api.py`, or "
            "give its address."
        )


def _cause(error: requests.RequestException) -> object:
    return error.args[0] if error.args else None


def _is_late(error: requests.RequestException) -> bool:
    # requests calls a body that does not come a ConnectionError
    return isinstance(error, requests.ReadTimeout) or isinstance(_cause(error), ReadTimeoutError)


def _is_broken(error: requests.RequestException) -> bool:
    """Whether there was a connection, which ended; urllib3 gives up when there never was one."""
    never = isinstance(error, _NO_CONNECTION) or isinstance(_cause(error), MaxRetryError)
    return not never and not isinstance(error, requests.Timeout) and not _is_late(error)


def _is_loopback(url: str) -> bool:
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _problem(reply: requests.Response) -> Mapping[str, Any]:
    try:
        problem = reply.json()
    except requests.JSONDecodeError:
        return {}
    return problem if isinstance(problem, dict) else {}
