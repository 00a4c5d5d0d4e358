"""Gives each request its bill, and back what it was charged when it fails for our fault."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from whisper_serve.api.auth.bill import Bill
from whisper_serve.api.auth.usage import CountsAudio

OUR_FAULT = 500


class BillMiddleware:
    """Puts a `Bill` into `scope["state"]["bill"]`. Within `AuthMiddleware`, and around all that
    answers failures. A stream settles its bill itself. Plain ASGI."""

    def __init__(self, app: ASGIApp, *, usage: CountsAudio) -> None:
        self._app = app
        self._usage = usage

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        bill = scope["state"]["bill"] = Bill(scope["state"]["caller"], self._usage)
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
        else:
            await _unless_failed(self._app, bill, scope, receive, send)


async def _unless_failed(
    app: ASGIApp, bill: Bill, scope: Scope, receive: Receive, send: Send
) -> None:
    status = 0

    async def watched(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        await send(message)

    try:
        await app(scope, receive, watched)
    except Exception:
        await bill.void()
        raise
    if status >= OUR_FAULT:
        await bill.void()
