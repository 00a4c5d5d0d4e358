"""Bounds for connections to the HTTP proxy that its server, uvicorn, does not have.

Uvicorn's parser keeps whatever comes until a request's head is whole, waits for it for ever, and
waits for ever for a client that does not read. Serve gives no access to its server's options, so
the class that speaks HTTP is replaced in the process of the proxy.
"""

from __future__ import annotations

import asyncio

from uvicorn import config as uvicorn_config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Servers commonly take 8 to 64 KiB.
MAX_HEAD_BYTES = 1 << 16
HEAD_TIMEOUT_S = 30.0
UNREAD_TIMEOUT_S = 60.0
REFUSAL = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)


def bound_requests() -> None:
    """Have every server that this process starts from now on speak `BoundedHttp`."""
    uvicorn_config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{BoundedHttp.__name__}"


class Patience:
    """Closes a connection unless it is told in time that all is well."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, transport: asyncio.Transport) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._timeout_s, transport.abort)

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class BoundedHttp(HttpToolsProtocol):
    """A request's head has to come within `HEAD_TIMEOUT_S`, and so has the first one of a
    connection; not more than `MAX_HEAD_BYTES` may come of a head, or of what is not body behind
    it. A client has to read something within `UNREAD_TIMEOUT_S`."""

    head_timeout_s = HEAD_TIMEOUT_S
    unread_timeout_s = UNREAD_TIMEOUT_S

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head, self._unread = Patience(self.head_timeout_s), Patience(self.unread_timeout_s)
        self._idle_bytes = 0  # without anything that is handed on
        self._is_body = False
        self._head.begin(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._head.end()
        self._unread.end()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._idle_bytes += len(data)
        super().data_received(data)
        if self._idle_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.transport.write(REFUSAL)
            self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_body = False
        self._head.begin(self.transport)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_body:  # nobody looks at what comes behind the body
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._head.end()
        self._idle_bytes, self._is_body = 0, True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._idle_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._idle_bytes = 0
        super().on_message_complete()

    def pause_writing(self) -> None:
        self._unread.begin(self.transport)
        super().pause_writing()

    def resume_writing(self) -> None:
        self._unread.end()
        super().resume_writing()
