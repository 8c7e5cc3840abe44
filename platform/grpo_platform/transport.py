"""Requests to the API: JSON in and out, refusals as exceptions."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

import requests

__all__ = ["ApiError", "NotFiniteError", "ServerNotFoundError", "Transport"]

_TIMEOUT_SECONDS: Final = 60.0
_BAD_ADDRESS: Final = (
    requests.exceptions.InvalidSchema,
    requests.exceptions.InvalidURL,
    requests.exceptions.MissingSchema,
)


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
    """No server answers at the client's address."""


class NotFiniteError(ValueError):
    """A request was to hold NaN or infinity, which JSON has no word for."""

    def __init__(self) -> None:
        super().__init__("A request cannot hold NaN or infinity.")


class Transport:
    """Sends requests to one server.

    Args:
        base_url: where it is.
        token: its `GRPO_API_TOKEN`, if it has one.
    """

    def __init__(self, base_url: str, token: str | None) -> None:
        self.base_url = base_url.rstrip("/")
        self._session = requests.Session()
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
    ) -> dict[str, Any]:
        """The JSON reply to one request.

        Raises:
            ServerNotFoundError: nobody answers, or the address is none.
            ApiError: the server refused.
            NotFiniteError: a number is NaN or infinite.
        """
        try:
            reply = self._session.request(
                method,
                self.base_url + path,
                json=json,
                params=params,
                headers=headers,
                timeout=_TIMEOUT_SECONDS,
            )
        except requests.ConnectionError as error:
            raise ServerNotFoundError(
                f"No server answers at {self.base_url}. Start one with `python run_api.py`, or "
                "give its address."
            ) from error
        except _BAD_ADDRESS as error:
            raise ServerNotFoundError(
                f"{self.base_url!r} is no address of a server; it looks like http://localhost:8000."
            ) from error
        except requests.exceptions.InvalidJSONError as error:
            raise NotFiniteError from error
        if not reply.ok:
            raise ApiError(reply.status_code, _problem(reply))
        return cast(dict[str, Any], reply.json())


def _problem(reply: requests.Response) -> Mapping[str, Any]:
    try:
        problem = reply.json()
    except requests.JSONDecodeError:
        return {}
    return problem if isinstance(problem, dict) else {}
