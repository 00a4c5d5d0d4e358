"""Every request and every WebSocket passes here before anything is done for it. Plain ASGI."""

from __future__ import annotations

import logging
from urllib.parse import quote

from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from whisper_serve.api.auth.billing import BillMiddleware
from whisper_serve.api.auth.callers import Caller
from whisper_serve.api.auth.gate import Gate
from whisper_serve.api.connection import deny
from whisper_serve.api.exchange import name_of
from whisper_serve.api.failures import Failure, answer_failure
from whisper_serve.errors import WhisperServeError
from whisper_serve.observability.context import bound

audit = logging.getLogger("whisper_serve.audit")


class AuthMiddleware:
    """Puts the `Caller` into `scope["state"]["caller"]`, or refuses in the shape of the path's
    other failures. Within `RequestContextMiddleware`, which gives refusals their id."""

    def __init__(self, app: ASGIApp, *, gate: Gate) -> None:
        self._app = BillMiddleware(app, usage=gate.usage)
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        connection, state = HTTPConnection(scope), scope.setdefault("state", {})
        try:
            state["caller"] = await self._gate.identify(connection)
            await self._gate.allow(state["caller"], connection)
        except WhisperServeError as exc:
            await _refuse(exc, scope, receive, send)
            return
        with bound(caller=name_of(state["caller"])):
            await self._app(scope, receive, send)


async def _refuse(exc: WhisperServeError, scope: Scope, receive: Receive, send: Send) -> None:
    _tell(exc, scope)
    if scope["type"] == "websocket":
        await deny(WebSocket(scope, receive, send), exc)
        return
    request = Request(scope)
    await answer_failure(Failure.of(exc, request), request)(scope, receive, send)


def _tell(exc: WhisperServeError, scope: Scope) -> None:
    caller: Caller | None = scope["state"].get("caller")
    fields = {
        "code": exc.code,
        "reason": str(exc),
        "caller": caller.name if caller else "unknown",
        "client": scope["client"][0] if scope.get("client") else "",
        # It came decoded: a line break in it would be one in the log.
        "path": quote(scope["path"]),
    }
    audit.info("key refused", extra={"fields": fields})
