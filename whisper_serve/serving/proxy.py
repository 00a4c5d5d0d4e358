"""What Ray Serve's HTTP proxy may be told by clients.

The proxy reads headers that are meant for whoever operates Serve: with
`x-request-timeout-seconds: 1` a client ends its stream after a second, with
`x-request-disconnect-disabled` it leaves work behind when it goes, `serve_multiplexed_model_id` and
`x-session-id` choose replicas, and an `x-request-id` that is no UTF-8 is a fault of the service. So
they are taken away before the proxy sees them. And a request that was lost with the process that
had it gets an answer that says so.

Serve calls `guards` in each proxy when `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH` names it, which
has to be in the environment of each machine's Ray when that starts.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from starlette.middleware import Middleware
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from whisper_serve.api.failures import Failure, native_failure
from whisper_serve.errors import ProcessLost
from whisper_serve.observability.context import accept_request_id
from whisper_serve.serving.bounded_http import bound_requests

# Hyphens and underscores are the same to Serve in some of them.
FOR_OPERATORS = {
    b"x-request-timeout-seconds",
    b"x-request-disconnect-disabled",
    b"serve-multiplexed-model-id",
    b"x-session-id",
}
FOR_ROUTERS = b"x-serve-router-"
REQUEST_ID = b"x-request-id"
# For another replica to be chosen.
RETRY_AFTER_S = 1.0

Header = tuple[bytes, bytes]


def guards() -> list[Middleware]:
    """Called by Serve once in each proxy, before it listens."""
    bound_requests()
    return [Middleware(ClientHeaders), Middleware(LostRequests)]


class ClientHeaders:
    """Leaves of a request's headers what a client may say. Plain ASGI."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if "headers" in scope:
            scope = {**scope, "headers": clean(scope["headers"])}
        await self._app(scope, receive, send)


class LostRequests:
    """Answers for the process that had a request and died. Serve gives no answer then, and its
    server says 500 without a word, which tells no client that it may try again. Plain ASGI."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_begun = scope["type"] != "http"

        async def send_on(message: Message) -> None:
            nonlocal is_begun
            is_begun = True
            await send(message)

        await self._app(scope, receive, send_on)
        if not is_begun:
            await native_failure(_lost(scope))(scope, receive, send)


def _lost(scope: Scope) -> Failure:
    connection = HTTPConnection(scope)
    connection.state.request_id = accept_request_id(connection.headers.get("x-request-id"))
    connection.state.began = time.monotonic()
    return Failure.of(ProcessLost(RETRY_AFTER_S), connection)


def clean(headers: Iterable[Header]) -> list[Header]:
    """Without what is for operators, and with one request id at most, fit for the log."""
    kept = [(name, value) for name, value in headers if not _is_for_operators(name)]
    proposed = [value for name, value in kept if name == REQUEST_ID]
    if not proposed:
        return kept
    request_id = accept_request_id(proposed[0].decode("latin-1")).encode()
    return [header for header in kept if header[0] != REQUEST_ID] + [(REQUEST_ID, request_id)]


def _is_for_operators(name: bytes) -> bool:
    plain = name.lower().replace(b"_", b"-")
    return plain in FOR_OPERATORS or plain.startswith(FOR_ROUTERS)
