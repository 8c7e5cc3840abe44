"""Connections between clients and the server: how long an idle one stays, and how it ends.

uvicorn closes an idle connection after five seconds, exactly where clients that poll send their
next request: they meet a reset. Ours outlives the time that the `Keep-Alive` header of each answer
tells, so that a client which reads it is always first to close; and it ends by a half-close
(RFC 9112, section 9.6), so that one which does not finds an end of the stream before it sends, and
never loses an answer to a reset.
"""

import asyncio
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["LATER_SECONDS", "Connection"]

LATER_SECONDS: Final = 5
"""How much longer than it says the server keeps an idle connection."""

_LINGER_SECONDS: Final = 5.0


class Connection(HttpToolsProtocol):
    """One client's connection."""

    _ends: asyncio.TimerHandle | None = None

    def timeout_keep_alive_handler(self) -> None:
        """Say that no further request is read, then wait for the client to close."""
        if self._ends is not None or self.transport.is_closing():
            return
        if not self.transport.can_write_eof():
            self.transport.close()
            return
        self.transport.write_eof()
        self._ends = self.loop.call_later(_LINGER_SECONDS, self.transport.close)

    def data_received(self, data: bytes) -> None:
        """Read a request; one that crossed our half-close on its way is dropped."""
        if self._ends is None:
            super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self._ends is not None:
            self._ends.cancel()
        super().connection_lost(exc)
