"""One request, or one WebSocket, as it goes by: what the access log and the trace tell of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import Message, Receive, Scope, Send

from whisper_serve.api.auth.callers import Caller
from whisper_serve.api.course import Course
from whisper_serve.api.failures import failure_code_of, path_of
from whisper_serve.api.measuring import route_of
from whisper_serve.config import NOT_NAMES
from whisper_serve.observability.tracing import INVALID_SPAN, Span, SpanKind, fail, span

REQUEST_ID_HEADER = "X-Request-ID"
# The status in the log when no answer was sent, since nobody was there to hear it.
GONE = 499
SWITCHED = 101
FORBIDDEN = 403
# Probes come every few seconds and say nothing unless they fail.
PROBES = {"/health", "/livez", "/readyz", "/metrics"}
STARTS = {"http.response.start", "websocket.http.response.start", "websocket.accept"}
OUR_FAULT = 1011
access = logging.getLogger("whisper_serve.access")


def name_of(caller: Caller | None) -> str | None:
    """Whose key was shown, if one was."""
    return None if caller is None or caller.name in NOT_NAMES else caller.name


class Exchange:
    """Passes messages on, and remembers how it was answered and how it ended.

    `send_id`: whether the answer gets the request's id. `status`: of the answer, None when there
    was none. `close_code`: of a WebSocket, whoever closed it.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, send_id: bool) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._send_id = send_id
        self._span: Span = INVALID_SPAN
        self.status: int | None = None
        self.close_code: int | None = None

    @property
    def is_socket(self) -> bool:
        return bool(self._scope["type"] == "websocket")

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self._closed(message)
        return message

    async def send(self, message: Message) -> None:
        match message["type"]:
            case "websocket.accept":
                self.status = SWITCHED
            case "http.response.start" | "websocket.http.response.start":
                self.status = message["status"]
            case "websocket.close":
                self.status = self.status or FORBIDDEN
                self._closed(message)
        if self._send_id and message["type"] in STARTS:
            message.setdefault("headers", [])
            MutableHeaders(scope=message)[REQUEST_ID_HEADER] = self._state["request_id"]
        await self._send(message)

    def traced(self, headers: Headers) -> AbstractContextManager[Span]:
        """A span around all that is done for it, part of the client's trace if there is one."""
        if self._path in PROBES:
            return nullcontext(INVALID_SPAN)
        return span(self._method, kind=SpanKind.SERVER, headers=headers)

    def conclude(self, traced: Span) -> None:
        """Nothing more will be done for it: log it, and name its span."""
        fields = self._fields(time.monotonic() - self._state["began"])
        quiet = fields["status"] < 400 and self._path in PROBES
        form = "%(method)s %(path)s %(status)d in %(seconds).3f s"
        access.log(logging.DEBUG if quiet else logging.INFO, form, fields, extra={"fields": fields})
        self._describe(traced, fields)

    def _fields(self, seconds: float) -> dict[str, Any]:
        fields = {
            "method": self._method,
            # It came decoded: a line break in it would be one in the log.
            "path": quote(self._scope["path"]),
            "status": self.status or GONE,
            "seconds": round(seconds, 3),
        }
        return {**fields, **self._who(), **(self._how_it_went() if self.is_socket else {})}

    def _who(self) -> dict[str, str]:
        client = self._scope.get("client")
        known = {
            "client": client[0] if client else None,
            "caller": name_of(self._state.get("caller")),
            "code": failure_code_of(self._scope),
        }
        return {name: value for name, value in known.items() if value}

    def _how_it_went(self) -> dict[str, object]:
        course: Course | None = self._state.get("course")
        return {"close_code": self.close_code, **(course.fields() if course else {})}

    def _describe(self, traced: Span, fields: Mapping[str, Any]) -> None:
        route = route_of(self._scope)
        traced.update_name(f"{self._method} {route}")
        traced.set_attributes(
            {
                "http.request.method": self._scope.get("method", "GET"),
                "http.route": route,
                "http.response.status_code": fields["status"],
                "whisper_serve.request_id": self._state["request_id"],
            }
        )
        if self.close_code is not None:
            traced.set_attribute("whisper_serve.close_code", self.close_code)
        if fields["status"] >= 500 or self.close_code == OUR_FAULT:
            fail(traced, fields.get("code") or str(fields["status"]))

    def _closed(self, message: Message) -> None:
        """The first who closes is the one who counts."""
        if self.close_code is None:
            self.close_code = message.get("code", 1000)

    @property
    def _method(self) -> str:
        return "WS" if self.is_socket else str(self._scope["method"])

    @property
    def _path(self) -> str:
        return path_of(self._scope)

    @property
    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = self._scope["state"]
        return state
