"""Counting what comes in and how it is answered, around what does the work."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import nullcontext
from typing import BinaryIO

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from whisper_serve.api.admission import Admission
from whisper_serve.api.draining import Drain
from whisper_serve.api.failures import failure_code_of, path_of
from whisper_serve.audio.isolation import Decodes
from whisper_serve.config import Config
from whisper_serve.engines.base import DecodeTask
from whisper_serve.observability.metrics import Metrics, Read, Reading
from whisper_serve.pipeline import Admits, TranscribeOptions, Transcriber
from whisper_serve.ports import Transcribes
from whisper_serve.text.transcript import Hypothesis, Transcript

# The status when nobody was there to be answered.
GONE = 499
# Turned away at the door: no key, no right, too many, no room.
REJECTED = {401, 403, 429, 503}
# The route of what went nowhere; a path that somebody asked for is no label.
NOWHERE = "unmatched"
# Anybody may make one up.
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
STARTS = {"http.response.start", "websocket.http.response.start"}


class MeasuringMiddleware:
    """Measures every request, and every handshake that is refused with an HTTP answer. It has
    to be the outermost, so that it sees the answers of all others. Plain ASGI."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        statuses: list[int] = []

        async def watched(message: Message) -> None:
            if message["type"] in STARTS:
                statuses.append(message["status"])
            await send(message)

        is_request = scope["type"] == "http"
        began = time.monotonic()
        try:
            with self._metrics.request() if is_request else nullcontext():
                await self._app(scope, receive, watched)
        finally:
            if is_request:
                self._count_request(scope, statuses, time.monotonic() - began)
            self._count_failure(scope, statuses)

    def _count_request(self, scope: Scope, statuses: list[int], duration_s: float) -> None:
        status = statuses[0] if statuses else GONE
        self._metrics.request_answered(_method_of(scope), route_of(scope), status, duration_s)

    def _count_failure(self, scope: Scope, statuses: list[int]) -> None:
        if (code := failure_code_of(scope)) is not None:
            self._metrics.failed(code, rejected=bool(REJECTED.intersection(statuses)))


class MeasuredTranscriber(Transcriber):
    """Counts the audio that it reads, as of `kind`: `file` or `job`."""

    def __init__(
        self, port: Transcribes, config: Config, decoder: Decodes, *, metrics: Metrics, kind: str
    ) -> None:
        super().__init__(port, config, decoder)
        self._metrics = metrics
        self._kind = kind

    def stream(
        self, data: BinaryIO, options: TranscribeOptions, admit: Admits | None = None
    ) -> AsyncGenerator[Transcript, None]:
        async def counted(audio_s: float) -> None:
            if admit is not None:
                await admit(audio_s)
            self._metrics.audio_taken(self._kind, audio_s)

        return super().stream(data, options, counted)


class MeasuredPort:
    """Measures how long `port` takes for its answers."""

    def __init__(self, port: Transcribes, metrics: Metrics) -> None:
        self._port = port
        self._metrics = metrics

    async def transcribe(self, task: DecodeTask) -> Hypothesis:
        began = time.monotonic()
        try:
            hypothesis = await self._port.transcribe(task)
        finally:
            self._metrics.window_came(task.lane.name.lower(), time.monotonic() - began)
        for _ in range(1, hypothesis.stats.attempts):
            self._metrics.window_retried("replica_died")
        return hypothesis


def room_of(admission: Admission, limit: int, drain: Drain) -> Read:
    """How many streams there are, of how many, and whether any more may come."""

    def read() -> Sequence[Reading]:
        return (
            Reading("streams_open", admission.streams),
            Reading("streams_limit", limit),
            Reading("draining", drain.is_begun),
        )

    return read


def route_of(scope: Scope) -> str:
    """The template of the route that answered, such as `/v1/jobs/{id}`."""
    route = scope.get("route")
    if route is not None:
        template: str = route.path
        return template
    # A route of Starlette's own kind, which FastAPI's documentation has, does not name itself.
    is_fixed = "endpoint" in scope and not scope.get("path_params")
    return path_of(scope) if is_fixed else NOWHERE


def _method_of(scope: Scope) -> str:
    method: str = scope["method"]
    return method if method in METHODS else "other"
