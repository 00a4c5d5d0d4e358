"""Which web pages may use the service from a browser.

Browsers open a WebSocket to any server on behalf of any page and leave it to the server to look
at the `Origin`; for HTTP they ask themselves (CORS). Programs send no origin.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from urllib.parse import SplitResult, urlsplit

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from whisper_serve.api.connection import deny
from whisper_serve.errors import OriginNotAllowed

ANY = "*"
PORTS = {"http": 80, "https": 443}
audit = logging.getLogger("whisper_serve.audit")


class SocketOriginMiddleware:
    """Refuses WebSockets of pages that are neither the service's own nor `allowed`. Plain ASGI."""

    def __init__(self, app: ASGIApp, *, allowed: Collection[str]) -> None:
        self._app = app
        self._allowed = frozenset(allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            headers = HTTPConnection(scope).headers
            origin = headers.get("Origin")
            if not may_open(origin, headers.get("Host", ""), self._allowed):
                await _refuse(WebSocket(scope, receive, send), OriginNotAllowed(str(origin)))
                return
        await self._app(scope, receive, send)


async def _refuse(socket: WebSocket, exc: OriginNotAllowed) -> None:
    audit.info("origin refused", extra={"fields": {"origin": exc.origin}})
    await deny(socket, exc)


def may_open(origin: str | None, host: str, allowed: Collection[str]) -> bool:
    """Whether a page of `origin` may open a WebSocket at `host`; None is no page."""
    return origin is None or ANY in allowed or origin in allowed or is_own(origin, host)


def is_own(origin: str, host: str) -> bool:
    """Whether `origin` is that of a page from `host`.

    Names and ports are compared; a port that is left out is that of the origin's scheme. The
    service cannot know its own scheme behind a proxy, whose word for it anybody could send too.
    """
    try:
        page, server = urlsplit(origin), urlsplit(f"//{host}")
        known = page.scheme in PORTS and page.hostname is not None
        return known and _place(page, page.scheme) == _place(server, page.scheme)
    except ValueError:  # no such port, or half an IPv6 address
        return False


def _place(parts: SplitResult, scheme: str) -> tuple[str | None, int]:
    return parts.hostname, parts.port or PORTS[scheme]
