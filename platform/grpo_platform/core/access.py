"""What a token protects: calls of the API and the MLflow UI, and what is queued.

Calls: the rules for Host, Origin and token, the same for both. What is queued: the queue is in the
store, and others may be able to write there, through an MLflow UI of theirs, or as users of the
same MLflow server; a run with our tags would be trained with the server's rights. So whoever queues
a job or a sweep writes a keyed hash (HMAC-SHA256) of its run id and its request beside it. The key
is made of the token, which is never in the store: servers that share a store and the token train
each other's jobs, and nobody else can queue any.
"""

import base64
import binascii
import hashlib
import hmac
import ipaddress
import re
import secrets
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

__all__ = [
    "TOKEN_DIGEST",
    "Access",
    "Head",
    "Refusal",
    "Sessions",
    "Signer",
    "not_vouched_for",
    "read_head",
    "token_digest",
]

TOKEN_DIGEST: Final = "GRPO_API_TOKEN_SHA256"
"""Variable that holds the SHA-256 of the token, hexadecimal, for a process that must recognise the
token and not have it."""

_PURPOSE: Final = b"grpo-platform: signature of a queued run, version 1"
_SESSION_PURPOSE: Final = b"grpo-platform: session of a browser, version 1"
_SESSION: Final = re.compile(r"([0-9]{10})\.[A-Za-z0-9_-]{22}\.[0-9a-f]{64}")
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Head(NamedTuple):
    """What is read of a request's head."""

    host: bytes | None = None
    origin: bytes | None = None
    authorization: bytes | None = None
    api_key: bytes | None = None
    length: bytes | None = None
    request_id: bytes | None = None
    doubled: str | None = None
    """One that decides who is let in and came twice: two programs on the way may each believe
    another of the two."""

    coding: bytes | None = None
    """How the body is compressed."""

    cookie: bytes | None = None
    site: bytes | None = None
    """`Sec-Fetch-Site`: how the page that asks is related to this server, as the browser says."""

    is_write: bool = False
    """Whether the request may change anything; one that opens a WebSocket may."""


class Refusal(NamedTuple):
    """Why a request is not let in."""

    status: int
    kind: str
    """One of a few words for programs, hyphenated."""

    detail: str
    """A sentence that says what to do."""


class Access:
    """Tells who is let in.

    Args:
        hosts: names that this server is called by, beside loopback's.
        origins: origins whose pages may call it, beside its own; `*` lets all.
        addresses: whether any IP address is a name of it, or only loopback's.
        token_sha256: of the token that a call must carry; None asks for none.
        sessions: of browsers that have signed in with the token; None has none.
        basic: whether the token may be the password of Basic authentication, which browsers ask
            their user for and send to this very origin, port included, as they do no cookie.
        hosts_setting: where `hosts` come from, for messages.
        origins_setting: where `origins` come from, for messages.
    """

    def __init__(
        self,
        *,
        hosts: Iterable[str],
        origins: Iterable[str],
        addresses: bool,
        token_sha256: bytes | None,
        sessions: "Sessions | None" = None,
        basic: bool = False,
        hosts_setting: str = "GRPO_ALLOWED_HOSTS",
        origins_setting: str = "GRPO_CORS_ORIGINS",
    ) -> None:
        self._hosts = frozenset(host.lower() for host in (*hosts, "localhost"))
        self._origins = frozenset(origin.rstrip("/").lower() for origin in origins)
        self._addresses = addresses
        self._token = token_sha256
        self._sessions = sessions
        self._basic = basic
        self._settings = (hosts_setting, origins_setting)
        self._is_own_host = lru_cache(maxsize=256)(self._find_own_host)

    def refusal(self, head: Head, http_version: str, *, needs_token: bool) -> Refusal | None:
        """Why this request is not let in; None if it is."""
        if head.doubled is not None:
            return Refusal(400, "doubled-header", f"Send the header {head.doubled} only once.")
        if head.host is None:
            if http_version != "1.0":
                return Refusal(400, "no-host", "Send a Host header: HTTP/1.1 asks for one.")
        elif not self._is_own_host(head.host):
            return Refusal(
                403,
                "foreign-host",
                "This Host header is not one of this server's names; add it to "
                f"{self._settings[0]} if it should be.",
            )
        if head.origin is not None and not self._is_own_origin(head.origin, head.host):
            return Refusal(
                403,
                "foreign-origin",
                "Pages of this origin may not call this server; add it to "
                f"{self._settings[1]} if they should.",
            )
        if needs_token and self._token is not None and not self._has_token(head):
            if self._has_session(head):
                return None if self._may_write(head) else _FOREIGN_WRITE
            or_basic = ", or as the password of any user name" if self._basic else ""
            return Refusal(
                401,
                "unauthorized",
                "Send this server's GRPO_API_TOKEN as `Authorization: Bearer …` or "
                f"`X-API-Key: …`{or_basic}.",
            )
        return None

    def _has_token(self, head: Head) -> bool:
        token = self._credentials(head.authorization) or head.api_key
        return token is not None and hmac.compare_digest(token_digest(token), self._token or b"")

    def _has_session(self, head: Head) -> bool:
        """Whether a browser has signed in; it does not make up for a wrong token in a header."""
        if self._sessions is None or head.authorization is not None or head.api_key is not None:
            return False
        return self._sessions.find(head.cookie) is not None

    def _may_write(self, head: Head) -> bool:
        """Whether the request changes nothing, or a page of this very origin sends it."""
        if not head.is_write:
            return True
        if head.origin is None:
            return head.site == b"same-origin"
        return _is_origin_of(head.origin.decode("latin-1").lower(), head.host)

    def _credentials(self, authorization: bytes | None) -> bytes | None:
        scheme, _, value = (authorization or b"").partition(b" ")
        if scheme.lower() == b"bearer":
            return value.strip()
        if self._basic and scheme.lower() == b"basic":
            try:
                return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
            except binascii.Error:
                return None
        return None

    def _find_own_host(self, host: bytes) -> bool:
        name = _host_name(host.decode("latin-1"))
        if name in self._hosts:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        # a page that rebinds a name to our address sends that name, never an address
        return address.is_loopback or self._addresses

    def _is_own_origin(self, sent: bytes, host: bytes | None) -> bool:
        origin = sent.decode("latin-1").lower()
        if origin in self._origins or "*" in self._origins:
            return True
        return _is_origin_of(origin, host)


_FOREIGN_WRITE: Final = Refusal(
    403,
    "foreign-write",
    "A browser that has signed in changes things from this server's own pages only; programs send "
    "`Authorization: Bearer …`.",
)


def _is_origin_of(origin: str, host: bytes | None) -> bool:
    try:
        return urlsplit(origin).netloc == (host or b"").decode("latin-1").lower() != ""
    except ValueError:
        return False


def read_head(scope: Mapping[str, Any]) -> Head:
    """The part of a request's head that decides about it."""
    host = origin = authorization = api_key = length = request_id = doubled = coding = None
    cookie = site = None
    for name, value in scope["headers"]:
        if name == b"host":
            doubled = doubled if host is None else "Host"
            host = value
        elif name == b"origin":
            doubled = doubled if origin is None else "Origin"
            origin = value
        elif name == b"authorization":
            doubled = doubled if authorization is None else "Authorization"
            authorization = value
        elif name == b"x-api-key":
            doubled = doubled if api_key is None else "X-API-Key"
            api_key = value
        elif name == b"content-length":
            length = value
        elif name == b"x-request-id":
            request_id = value
        elif name == b"content-encoding":
            coding = value if coding is None else coding + b", " + value
        elif name == b"cookie":
            cookie = value if cookie is None else cookie + b"; " + value
        elif name == b"sec-fetch-site":
            site = value
    is_write = scope.get("method") not in _READS
    return Head(
        host, origin, authorization, api_key, length, request_id, doubled, coding, cookie, site,
        is_write,
    )  # fmt: skip


def token_digest(token: str | bytes) -> bytes:
    """SHA-256 of a token, which is all that need be known to recognise it."""
    return hashlib.sha256(token.encode() if isinstance(token, str) else token).digest()


class Sessions:
    """What a browser holds instead of the token once its user has signed in: a signed time.

    The key is made of the token: every server with this token takes the session, a restart does not
    end it, and a new token ends all. Who signs out ends it on this server.

    Args:
        token: the server's.
        seconds: how long a session lasts.
    """

    def __init__(self, token: str, seconds: float = 12 * 3600.0) -> None:
        self._key = hmac.digest(token.encode(), _SESSION_PURPOSE, "sha256")
        self._token = token_digest(token)
        self.seconds = int(seconds)
        # cookies know no ports: servers of one machine with different tokens keep theirs apart
        self.cookie = "grpo_session_" + hmac.digest(self._key, b"name", "sha256").hex()[:8]
        self._ended: dict[str, int] = {}
        """Sessions that were signed out of, with the time at which they would have ended."""

    def begin(self, token: str) -> str | None:
        """A new session for who has the token; None for whoever has not."""
        if not hmac.compare_digest(token_digest(token), self._token):
            return None
        begun = f"{int(time.time()) + self.seconds:010d}.{secrets.token_urlsafe(16)}"
        return f"{begun}.{self._signature(begun)}"

    def find(self, cookies: bytes | None) -> str | None:
        """The session that lasts, among the cookies of a request."""
        for pair in (cookies or b"").decode("latin-1").split(";"):
            name, _, value = pair.strip().partition("=")
            if name == self.cookie and self._lasts(value):
                return value
        return None

    def end(self, session: str) -> None:
        """Sign out of a session that `find` gave."""
        now = time.time()
        self._ended = {one: until for one, until in self._ended.items() if until > now}
        self._ended[session] = int(session[:10])

    def _lasts(self, session: str) -> bool:
        match = _SESSION.fullmatch(session)
        if match is None or int(match[1]) <= time.time() or session in self._ended:
            return False
        begun, _, signature = session.rpartition(".")
        return hmac.compare_digest(signature, self._signature(begun))

    def _signature(self, begun: str) -> str:
        return hmac.digest(self._key, begun.encode(), "sha256").hex()


def _host_name(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].rstrip(".").lower()


class Signer:
    """Signs what this server queues, and tells what servers with the same token have queued.

    Args:
        token: the server's; None signs nothing and vouches for everything.
    """

    def __init__(self, token: str | None = None) -> None:
        # a key of its own: a signature must not help to guess what opens the API
        self._key = None if token is None else hmac.digest(token.encode(), _PURPOSE, "sha256")

    @property
    def signs(self) -> bool:
        """Whether there is a token to sign with."""
        return self._key is not None

    def sign(self, run_id: str, request: str) -> str:
        """The signature of a run; empty where there is no token.

        Args:
            run_id: of the job or sweep, which no other run ever has.
            request: as it is stored, to the letter.
        """
        if self._key is None:
            return ""
        return hmac.digest(self._key, f"{run_id}\n{request}".encode(), "sha256").hex()

    def vouches_for(self, run_id: str, request: str, signature: str) -> bool:
        """Whether a run was queued with this token, and its request was not changed since."""
        if not self.signs:
            return True
        return hmac.compare_digest(self.sign(run_id, request).encode(), signature.encode())


def not_vouched_for(run_id: str) -> str:
    """What a user is told of a run that is not trained."""
    return (
        "It is not trained: it was not queued with this server's GRPO_API_TOKEN, or was changed "
        f"since. If it is yours, say so where the server runs: `grpo-platform store sign {run_id}`."
    )
