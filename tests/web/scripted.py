"""A service for the page that does as a test says: `docs/protocol.md` by hand, and uploads.

Its stream knows by heart what is said when: word number n of the script is spoken from
0.25 n + 0.05 to 0.25 n + 0.2 seconds. So a test can tell whether a word was lost or came twice.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import JSONResponse
from starlette.responses import Response
from starlette.websockets import WebSocketDisconnect

from whisper_serve.api.routes.web import web_router

WORD_S = 0.25
GAP_S = 0.05
SETTLE_S = 0.5
LIMITS = {"max_backlog_s": 60.0, "idle_timeout_s": 60.0, "max_frame_bytes": 1 << 24}
PROBABILITIES = (0.98, 0.75, 0.95, 0.4)
DEFAULTS = {
    "language": None,
    "task": "transcribe",
    "policy": "chunk",
    "encoding": "pcm_s16le",
    "sample_rate": 16_000,
    "channels": 1,
}
HEALTHY = {"status": "healthy", "model": "base", "device": "cpu"}

Answers = Callable[[Request], Awaitable[Response]]
Message = dict[str, Any]


@dataclass
class Tape:
    """The audio of a stream by its clock, from however many connections."""

    samples: dict[int, int] = field(default_factory=dict)
    contradictions: int = 0

    def write(self, at: int, samples: Sequence[int]) -> None:
        for index, sample in enumerate(samples, start=at):
            if self.samples.setdefault(index, sample) != sample:
                self.contradictions += 1

    @property
    def is_whole(self) -> bool:
        """Every sample came, and those that came twice were the same."""
        whole = sorted(self.samples) == list(range(len(self.samples)))
        return whole and not self.contradictions

    def array(self) -> Any:
        return np.array([self.samples[index] for index in sorted(self.samples)], np.int16)


@dataclass
class Script:
    """What the service does, and what came to it."""

    words: Sequence[str] = tuple(f"w{number}" for number in range(10_000))
    language: str = "en"
    # Each is done once: the first connection whose clock passes a time does what belongs to it.
    closes: list[tuple[float, int]] = field(default_factory=list)
    sends: list[tuple[float, Message]] = field(default_factory=list)
    refusals: list[tuple[int, Message]] = field(default_factory=list)
    turns_away: int = 0  # sockets, behind the first so many
    turns_away_after: int = 0
    finishes: bool = True
    settle_s: float = SETTLE_S
    limits: dict[str, float] = field(default_factory=lambda: dict(LIMITS))
    health: Message = field(default_factory=lambda: dict(HEALTHY))
    transcribe: Answers | None = None
    # Those that are let in; None: everybody. Tokens are good for one socket each.
    keys: set[str] | None = None
    live_keys: set[str] | None = None  # those that may stream, of `keys`
    tokens_fail: list[tuple[int, str]] = field(default_factory=list)

    configs: list[Message] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    tape: Tape = field(default_factory=Tape)
    forms: list[dict[str, str]] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    shown: list[list[str]] = field(default_factory=list)  # by each socket
    gone: int = 0
    most_unsettled_s: float = 0.0
    gate: threading.Event = field(default_factory=threading.Event)

    def spoken(self, until_s: float) -> str:
        """All that is said within the first seconds of a stream."""
        return " ".join(self.words[: self.count(until_s)])

    def knows(self, request: Request) -> bool:
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        return self.keys is None or key in self.keys

    def lets_in(self, socket: WebSocket) -> bool:
        """A socket with a token that no other one has shown."""
        self.shown.append(socket.scope["subprotocols"])
        fresh = [["whisper-serve", f"whisper-serve.key.{token}"] for token in self.tokens]
        is_fresh = self.shown[-1] in fresh and self.shown.count(self.shown[-1]) == 1
        return self.keys is None or is_fresh

    def count(self, until_s: float) -> int:
        return min(len(self.words), max(0, int((until_s + GAP_S + 1e-6) / WORD_S)))


class Refused(Exception):
    """The connection ends here."""


class Connection:
    """One socket of a stream."""

    def __init__(self, script: Script, socket: WebSocket) -> None:
        self._script, self._socket = script, socket
        self._seq = 0
        self._config: Message = {}
        self._received = 0  # samples of the stream, by its clock
        self._committed_s = 0.0
        self._acked_s = 0.0
        self._text = ""

    async def run(self) -> None:
        if not self._script.lets_in(self._socket) or self._is_turned_away():
            await self._socket.close()
            return
        await self._socket.accept("whisper-serve" if self._socket.scope["subprotocols"] else None)
        try:
            await self._configure(json.loads(await self._socket.receive_text()))
            while True:
                await self._take(await self._socket.receive())
        except (Refused, WebSocketDisconnect):
            return

    def _is_turned_away(self) -> bool:
        if len(self._script.shown) <= self._script.turns_away_after or not self._script.turns_away:
            return False
        self._script.turns_away -= 1
        return True

    async def _configure(self, config: Message) -> None:
        self._script.configs.append(dict(config))
        if self._script.refusals:
            code, error = self._script.refusals.pop(0)
            await self._send("error", **error, fatal=True)
            await self._close(code)
        resume = config.pop("resume", None) or {"committed_until": 0.0}
        self._config = {**DEFAULTS, **config}
        self._committed_s = resume["committed_until"]
        start = resume.get("audio_from")
        start_s = self._committed_s if start is None else start
        self._received = round(start_s * self._rate)
        await self._ready()

    @property
    def _rate(self) -> int:
        rate: int = self._config["sample_rate"]
        return rate

    @property
    def _now_s(self) -> float:
        return self._received / self._rate

    async def _ready(self) -> None:
        config = self._config
        await self._send("ready", session_id="s", protocol=1, config=config, limits=self._limits)

    @property
    def _limits(self) -> dict[str, float]:
        return self._script.limits

    async def _take(self, event: Any) -> None:
        if event["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(event.get("code", 1006))
        if event.get("bytes") is not None:
            await self._audio(event["bytes"])
        else:
            await self._text_frame(json.loads(event["text"]))

    async def _audio(self, data: bytes) -> None:
        samples = np.frombuffer(data, "<i2")
        self._script.tape.write(self._received, samples.tolist())
        self._received += len(samples)
        unsettled_s = self._now_s - self._committed_s
        self._script.most_unsettled_s = max(self._script.most_unsettled_s, unsettled_s)
        await self._events()
        if self._now_s >= self._committed_s + self._script.settle_s:
            await self._commit(self._now_s - 0.15)
        await self._send(
            "partial", start=self._committed_s, end=self._now_s, text=self._words(self._now_s)
        )
        if self._now_s >= self._acked_s + SETTLE_S:
            self._acked_s = self._now_s
            await self._ack()

    async def _events(self) -> None:
        for event in [event for event in self._script.sends if event[0] <= self._now_s]:
            self._script.sends.remove(event)
            await self._send(**event[1])
        for close in [close for close in self._script.closes if close[0] <= self._now_s]:
            self._script.closes.remove(close)
            await self._close(close[1])

    def _words(self, until_s: float) -> str:
        first, last = (self._script.count(time_s) for time_s in (self._committed_s, until_s))
        return "".join(f" {word}" for word in self._script.words[first:last])

    async def _commit(self, until_s: float) -> None:
        first, last = (self._script.count(time_s) for time_s in (self._committed_s, until_s))
        if last <= first:
            return
        text = self._words(until_s)
        words = [self._word(number) for number in range(first, last)]
        self._committed_s = words[-1]["end"]
        self._text += text
        await self._send(
            "final",
            start=words[0]["start"],
            end=words[-1]["end"],
            text=text if first else text.lstrip(),
            words=words,
            language=self._script.language,
            language_probability=0.9871,
            processing_time=0.42,
            committed_until=self._committed_s,
            resume=self._resume(),
        )

    def _word(self, number: int) -> Message:
        return {
            "word": self._script.words[number],
            "start": round(WORD_S * number + GAP_S, 3),
            "end": round(WORD_S * (number + 1) - GAP_S, 3),
            "probability": PROBABILITIES[number % len(PROBABILITIES)],
        }

    def _resume(self) -> Message:
        """As the service's own, it reaches back a little."""
        return {
            "committed_until": self._committed_s,
            "context": self._text[-100:],
            "audio_from": max(0.0, round(self._committed_s - 0.4, 3)),
            "position": None,
            "words": [],
            "language": None,
        }

    async def _ack(self) -> None:
        await self._send(
            "ack",
            received_until=self._now_s,
            committed_until=self._committed_s,
            lag=round(self._now_s - self._committed_s, 3),
            resume=self._resume(),
        )

    async def _text_frame(self, message: Message) -> None:
        self._script.messages.append(message)
        match message["type"]:
            case "config":
                await self._change({k: v for k, v in message.items() if k != "type"})
            case "reset":
                self._committed_s = self._now_s
                await self._send("reset", at=self._now_s)
            case "keepalive":
                await self._commit(self._now_s - 0.15)
                await self._ack()
            case "end":
                await self._end()

    async def _change(self, changes: Message) -> None:
        if changes.get("hotwords") == "refuse me":
            message = "hotwords: not these"
            await self._send("error", code="invalid_parameter", message=message, fatal=False)
            return
        self._config.update(changes)
        await self._ready()

    async def _end(self) -> None:
        if not self._script.finishes:
            return
        await self._commit(self._now_s)
        statistics = {"windows": 1}
        await self._send(
            "done", text=self._text, duration=self._now_s, words=1, statistics=statistics
        )
        await self._close(1000)

    async def _send(self, type: str, **fields: Any) -> None:  # noqa: A002
        await self._socket.send_json({"type": type, "seq": self._seq, **fields})
        self._seq += 1

    async def _close(self, code: int) -> None:
        await self._socket.close(code)
        raise Refused


def scripted_app(script: Callable[[], Script]) -> FastAPI:
    """`script` gives the script that is in force."""
    app = FastAPI()
    app.include_router(web_router({"service": "scripted"}))

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return script().health

    @app.get("/v1/models")
    async def models(request: Request) -> Response:
        return JSONResponse({"data": []}) if script().knows(request) else await refuse(request)

    @app.post("/v1/tokens")
    async def tokens(request: Request) -> Response:
        return await hands_out(script(), request)

    @app.post("/transcribe")
    async def transcribe(request: Request) -> Response:
        if not script().knows(request):
            return await refuse(request)
        answers = script().transcribe or hears(script())
        return await answers(request)

    @app.websocket("/stream")
    async def stream(socket: WebSocket) -> None:
        await Connection(script(), socket).run()

    return app


async def hands_out(script: Script, request: Request) -> Response:
    """A token, to whom the script wants to have one."""
    assert await request.json() == {"scopes": ["stream"]}
    if script.tokens_fail:
        status, error = script.tokens_fail.pop(0)
        return JSONResponse({"error": error, "code": "c"}, status, {"Retry-After": "1"})
    if not script.knows(request):
        return await refuse(request)
    key = request.headers["authorization"].removeprefix("Bearer ")
    if script.live_keys is not None and key not in script.live_keys:
        return JSONResponse({"error": "no scope", "code": "scope_missing"}, 403)
    script.tokens.append(f"wst_{len(script.tokens)}")
    return JSONResponse({"token": script.tokens[-1], "expires_in": 60})


async def refuse(_request: Request) -> Response:
    body = {"success": False, "error": "a key is needed", "code": "invalid_api_key"}
    return JSONResponse(body, 401, {"WWW-Authenticate": "Bearer"})


def hears(script: Script) -> Answers:
    """Answers with two segments, once the script's gate is open."""

    async def answer(request: Request) -> Response:
        async with request.form() as form:
            fields = form.items()
            script.forms.append(
                {name: getattr(value, "filename", None) or str(value) for name, value in fields}
            )
        while not script.gate.is_set():
            if await request.is_disconnected():
                script.gone += 1
                return Response(status_code=499)
            await asyncio.sleep(0.02)
        return JSONResponse(ANSWER)

    return answer


def fails(status: int, code: str, error: str, headers: dict[str, str] | None = None) -> Answers:
    async def answer(request: Request) -> Response:
        async with request.form():
            body = {"success": False, "text": "", "error": error, "code": code, "request_id": "r-1"}
            return JSONResponse(body, status, headers)

    return answer


def _words(text: str, start_s: float) -> list[Message]:
    return [
        {
            "word": word,
            "start": round(start_s + 0.4 * number, 3),
            "end": round(start_s + 0.4 * number + 0.35, 3),
            "probability": PROBABILITIES[number % len(PROBABILITIES)],
        }
        for number, word in enumerate(text.split())
    ]


SEGMENTS = [
    (0.22, "Ever tried. Ever failed. No matter."),
    (3.9996, "Try again. Fail again. Fail better --> & <so> on."),
]
ANSWER: Message = {
    "success": True,
    "text": " ".join(text for _, text in SEGMENTS),
    "latency": 1.046,
    "word_count": 16,
    "gpu_memory": 0.0,
    "error": None,
    "code": None,
    "language": "en",
    "language_probability": 0.9862,
    "duration": 9.963,
    "segments": [
        {"id": number, "start": start, "end": start + 3.77, "text": text}
        for number, (start, text) in enumerate(SEGMENTS)
    ],
    "words": [word for start, text in SEGMENTS for word in _words(text, start)],
    "request_id": "r-0",
}


@contextmanager
def serving(app: FastAPI) -> Iterator[int]:
    """The application on a port of its own, in a thread."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="error", ws="websockets-sansio", lifespan="off")
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            deadline = time.monotonic() + 10
            while not server.started and time.monotonic() < deadline:
                time.sleep(0.01)
            yield listening.getsockname()[1]
        finally:
            server.should_exit = server.force_exit = True
            thread.join(10)
