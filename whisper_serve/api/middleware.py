"""What happens to every HTTP request: an id, a clock and one line in the log. Plain ASGI."""

from __future__ import annotations

import logging
import time
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from whisper_serve.api.error_handlers import unforeseen
from whisper_serve.observability.context import accept_request_id, bound_request_id

REQUEST_ID_HEADER = "X-Request-ID"
# The status in the log when no answer was sent, since nobody was there to hear it.
GONE = 499
logger = logging.getLogger(__name__)


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
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = accept_request_id(Headers(scope=scope).get(REQUEST_ID_HEADER))
        began = time.monotonic()
        state = scope.setdefault("state", {})
        state["request_id"], state["began"] = request_id, began
        status: int | None = None

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._send_id:
                    MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        with bound_request_id(request_id):
            try:
                await self._app(scope, receive, send_with_id)
            except Exception as exc:
                # Here rather than in Starlette's outermost layer, which knows no id.
                answer = unforeseen(Request(scope), exc)
                if status is not None:
                    raise  # half an answer is out: the server has to break it off
                await answer(scope, receive, send_with_id)
            finally:
                _log(scope, status or GONE, time.monotonic() - began)


def _log(scope: Scope, status: int, seconds: float) -> None:
    fields = {
        "method": scope["method"],
        # It came decoded: a line break in it would be one in the log.
        "path": quote(scope["path"]),
        "status": status,
        "seconds": round(seconds, 3),
    }
    # Probes come every few seconds and say nothing unless they fail.
    quiet = status < 400 and scope["path"] in {"/health", "/livez", "/readyz"}
    logger.log(
        logging.DEBUG if quiet else logging.INFO,
        "%(method)s %(path)s %(status)d in %(seconds).3f s",
        fields,
        extra={"fields": fields},
    )
