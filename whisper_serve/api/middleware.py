"""What happens to every request and every WebSocket: an id, a clock, a trace and one line in the
log. Plain ASGI."""

from __future__ import annotations

import time

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from whisper_serve.api.error_handlers import unforeseen
from whisper_serve.api.exchange import REQUEST_ID_HEADER, Exchange
from whisper_serve.observability.context import accept_request_id, bound_request_id


class RequestContextMiddleware:
    """Binds the request's id, sends it back, answers failures that nobody foresaw, and logs
    how the request ended.

    `scope["state"]` gets `request_id` and `began` (monotonic seconds). `send_id` is false
    behind a proxy that gives every request an id and sends it back itself.
    """

    def __init__(self, app: ASGIApp, *, send_id: bool) -> None:
        self._app = app
        self._send_id = send_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = accept_request_id(headers.get(REQUEST_ID_HEADER))
        state = scope.setdefault("state", {})
        state["request_id"], state["began"] = request_id, time.monotonic()
        exchange = Exchange(scope, receive, send, send_id=self._send_id)
        with bound_request_id(request_id), exchange.traced(headers) as traced:
            try:
                await self._pass_on(scope, exchange)
            finally:
                exchange.conclude(traced)

    async def _pass_on(self, scope: Scope, exchange: Exchange) -> None:
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except Exception as exc:
            if exchange.is_socket:
                raise  # there is no other way to tell
            # Here rather than in Starlette's outermost layer, which knows no id.
            answer = unforeseen(Request(scope), exc)
            if exchange.status is not None:
                raise  # half an answer is out: the server has to break it off
            await answer(scope, exchange.receive, exchange.send)
