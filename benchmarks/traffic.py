"""Clients of all kinds, as a service meets them: streams in every dialect, files, jobs, and
clients that break off or send what nobody can use."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from benchmarks.concurrent_clips import wav
from whisper_serve.audio.pcm import SAMPLE_RATE, Samples, to_samples
from whisper_serve.client import AsyncClient, Done, Final, Reconnecting
from whisper_serve.errors import WhisperServeError

PIECE = SAMPLE_RATE // 10
PIECE_S = 0.1
TIMEOUT_S = 120.0
LAST_WORDS_S = 30.0
# What a live client puts up with while a service is started again.
GIVE_UP_AFTER_S = 300.0
POLL_S = 0.5
REALTIME_RATE = 24_000
FINISHED = {"succeeded", "failed", "cancelled"}


@dataclass(slots=True)
class Tally:
    """How often each kind of work ended in which way. What is `wrong` should never happen."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    wrong: Counter[tuple[str, str]] = field(default_factory=Counter)

    def note(self, work: str, outcome: str, *, wrong: bool = False) -> None:
        (self.wrong if wrong else self.counts)[work, outcome] += 1


class Speech:
    """Pieces of recordings, the same in each run."""

    def __init__(self, recordings: Sequence[Samples], chance: random.Random) -> None:
        self._recordings = recordings
        self.chance = chance

    def piece(self, shortest_s: float, longest_s: float) -> Samples:
        """int16 at 16 kHz, shape (n,)."""
        samples = self.chance.choice(self._recordings)
        length = min(to_samples(self.chance.uniform(shortest_s, longest_s)), len(samples))
        first = self.chance.randrange(len(samples) - length + 1)
        return samples[first : first + length]


# Our own client, which resumes


@dataclass(frozen=True, slots=True)
class Heard:
    """What a stream of our own client came to. `fault`: why it did not end as it should."""

    text: str = ""
    reconnections: int = 0
    is_done: bool = False
    fault: str = ""


async def heard(url: str, samples: Samples, *, interim: bool = False, **config: Any) -> Heard:
    """A stream at the speed of speech, resumed as often as it has to be."""
    text, reconnections = "", 0
    try:
        async with (
            AsyncClient(url, give_up_after_s=GIVE_UP_AFTER_S) as client,
            client.stream(samples, realtime=True, interim=interim, **config) as events,
        ):
            async for event in events:
                reconnections += isinstance(event, Reconnecting)
                text += event.text if isinstance(event, Final) else ""
                if isinstance(event, Done):
                    return Heard(event.text, reconnections, is_done=True)
    except WhisperServeError as exc:
        return Heard(text, reconnections, fault=f"{type(exc).__name__}: {exc}")
    return Heard(text, reconnections, fault="it ended without a word")


# Other dialects


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a client of `path` speaks. `ending`: what it says last; without one it just closes."""

    path: str
    opening: tuple[str, ...] = ()
    wrap: Callable[[Samples], str | bytes] = lambda samples: samples.tobytes()
    ending: str = ""


def _append(samples: Samples) -> str:
    """For OpenAI's Realtime API, which takes 24 kHz."""
    wanted = np.arange(0, len(samples), SAMPLE_RATE / REALTIME_RATE)
    faster = np.interp(wanted, np.arange(len(samples)), samples).astype(np.int16)
    audio = base64.b64encode(faster.tobytes()).decode()
    return json.dumps({"type": "input_audio_buffer.append", "audio": audio})


DIALECTS = {
    "native": Dialect("/stream", ('{"type": "config", "interim": true}',), ending='{"type":"end"}'),
    "voicestream": Dialect("/stream/voicestream"),
    "blobs": Dialect("/stream/soak"),
    "realtime": Dialect("/v1/realtime?intent=transcription", wrap=_append),
    "listen": Dialect(
        "/v1/listen?encoding=linear16&sample_rate=16000&interim_results=true",
        ending='{"type": "CloseStream"}',
    ),
}


async def speak(url: str, dialect: Dialect, samples: Samples, *, vanish: bool) -> str:
    """One stream; returns how it ended. With `vanish` the client goes without a word."""
    address = f"ws{url.removeprefix('http')}{dialect.path}"
    try:
        async with connect(address, compression=None, ping_interval=None, proxy=None) as socket:
            reading = asyncio.create_task(_read(socket))
            try:
                await _say(socket, dialect, samples)
                if vanish:
                    socket.transport.abort()
                    return "broken off"
                return await _end(socket, dialect, reading)
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
    except InvalidStatus as exc:
        return f"refused {exc.response.status_code}"
    except (WebSocketException, OSError, asyncio.TimeoutError) as exc:
        return f"{type(exc).__name__}: {exc}"


async def _say(socket: ClientConnection, dialect: Dialect, samples: Samples) -> None:
    for message in dialect.opening:
        await socket.send(message)
    began = time.monotonic()
    for number, first in enumerate(range(0, len(samples), PIECE), 1):
        await asyncio.sleep(began + number * PIECE_S - time.monotonic())
        await socket.send(dialect.wrap(samples[first : first + PIECE]))


async def _end(socket: ClientConnection, dialect: Dialect, reading: asyncio.Task[None]) -> str:
    if not dialect.ending:
        await socket.close()
        return "ended"
    await socket.send(dialect.ending)
    await asyncio.wait_for(asyncio.shield(reading), LAST_WORDS_S)
    code = socket.close_code
    return "ended" if code == 1000 else f"closed {code}"


async def _read(socket: ClientConnection) -> None:
    with suppress(ConnectionClosed):
        async for _ in socket:
            pass


# Files and jobs

FILE_REQUESTS: dict[str, Callable[[bytes], dict[str, Any]]] = {
    "/transcribe": lambda file: {"files": {"audio_file": file}},
    "/v1/audio/transcriptions": lambda file: {
        "files": {"file": ("clip.wav", file)},
        "data": {"model": "whisper-1"},
    },
    "/v1/listen": lambda file: {"content": file, "headers": {"Content-Type": "audio/wav"}},
}


def http_client(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, trust_env=False)


async def post_file(http: httpx.AsyncClient, path: str, samples: Samples) -> str:
    """How a request for a file ended: its status, or why there is none."""
    request = FILE_REQUESTS[path](wav(samples.tobytes()))
    try:
        return str((await http.post(path, **request)).status_code)
    except httpx.HTTPError as exc:
        return type(exc).__name__


class JobDesk:
    """Hands in jobs, and knows of each that was acknowledged."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self.acknowledged: dict[str, str] = {}  # ids, and what the job should say

    async def is_open(self) -> bool:
        return (await self._http.get("/v1/jobs")).is_success

    async def submit(self, samples: Samples, expected: str = "") -> str:
        """As `post_file`; the key makes one job of what is sent twice."""
        files = {"audio_file": ("clip.wav", wav(samples.tobytes()))}
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        try:
            answer = await self._http.post("/v1/jobs", files=files, headers=headers)
        except httpx.HTTPError as exc:
            return type(exc).__name__
        if answer.status_code == 202:
            self.acknowledged[answer.json()["id"]] = expected
        return str(answer.status_code)

    async def outcome(self, job_id: str, patience_s: float) -> str:
        """The job's status once it is finished, "lost" when nobody knows it, and else what it is
        when patience ends."""
        deadline, seen = time.monotonic() + patience_s, "unknown"
        while seen not in FINISHED and time.monotonic() < deadline:
            with suppress(httpx.HTTPError):
                answer = await self._http.get(f"/v1/jobs/{job_id}")
                if answer.status_code == 404:
                    return "lost"
                if answer.is_success:
                    seen = answer.json()["status"]
            await asyncio.sleep(POLL_S)
        return seen

    async def text(self, job_id: str) -> str:
        answer = await self._http.get(f"/v1/jobs/{job_id}/result")
        return str(answer.json()["text"]) if answer.is_success else ""

    async def delete(self, job_id: str) -> None:
        with suppress(httpx.HTTPError):
            await self._http.delete(f"/v1/jobs/{job_id}")
        self.acknowledged.pop(job_id, None)


# What nobody can use

BAD_REQUESTS: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
    ("POST", "/transcribe", {"files": {"audio_file": b"no sound at all"}}),
    ("POST", "/transcribe", {"files": {"audio_file": b""}}),
    ("POST", "/transcribe", {"content": b"{", "headers": {"Content-Type": "application/json"}}),
    ("POST", "/transcribe?language=nowhere", {"files": {"audio_file": bytes(2_000)}}),
    ("POST", "/v1/audio/transcriptions", {"data": {"model": "nobody"}}),
    ("POST", "/v1/listen", {"content": bytes(5_000), "headers": {"Content-Type": "audio/wav"}}),
    (
        "POST",
        "/v1/jobs",
        {"content": b"[" * 5_000, "headers": {"Content-Type": "application/json"}},
    ),
    ("DELETE", "/transcribe", {}),
    ("GET", "/v1/models/none", {}),
)
BAD_FRAMES: tuple[str | bytes, ...] = (
    *("{", "[]", '{"type": "nothing"}', '{"type": "config", "chunk_duration": 1e999}', "[" * 9_000),
    *(bytes(3), b"\xff" * 5_001, '{"type": "config", "encoding": "container"}', "\x00"),
)


async def send_nonsense(http: httpx.AsyncClient, chance: random.Random) -> str:
    """Refused, if all is well: a status from 400 to 499."""
    method, path, request = chance.choice(BAD_REQUESTS)
    try:
        return str((await http.request(method, path, **request)).status_code)
    except httpx.HTTPError as exc:
        return type(exc).__name__


async def talk_nonsense(url: str, chance: random.Random) -> str:
    """A stream of frames that say nothing; returns the code that it was closed with, or "left"."""
    dialect = chance.choice(list(DIALECTS.values()))
    address = f"ws{url.removeprefix('http')}{dialect.path}"
    try:
        async with connect(address, compression=None, ping_interval=None, proxy=None) as socket:
            for _ in range(chance.randint(1, 6)):
                await socket.send(chance.choice(BAD_FRAMES))
    except ConnectionClosed as exc:
        return f"closed {exc.rcvd.code if exc.rcvd else 1006}"
    except InvalidStatus as exc:
        return f"refused {exc.response.status_code}"
    except (WebSocketException, OSError, asyncio.TimeoutError) as exc:
        return type(exc).__name__
    return "left"


Work = Callable[[], Awaitable[None]]


async def until(deadline: float, work: Work) -> None:
    """`work` over and over, and not begun again behind `deadline`."""
    while time.monotonic() < deadline:
        await work()
