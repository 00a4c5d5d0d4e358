"""One file posted to `/transcribe`, as so many callers would.

`Asking` keeps what a caller meets and is told the time; `Files` is the shell around it.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

from benchmarks.concurrent_clips import retry_after_s
from benchmarks.overload import REFUSALS
from loadtest.conversation import NOT_ADMITTED, UNTOLD_S
from loadtest.outcome import CUT, Outcome, Refusal
from loadtest.speech import Speech
from whisper_serve.client.connection import http_url

KIND = "FileUpload"
BOUNDARY = "a-boundary-that-is-in-no-clip"
ERROR_CHARS = 100
NO_SUCCESS = "200 without a success in it"


@dataclass(frozen=True, slots=True)
class Clip:
    """A recording as the body of a request, made beforehand so that sending it costs little."""

    speech: Speech
    body: bytes


@dataclass(frozen=True, slots=True)
class Access:
    """How the service is reached: its address, what is shown with every request, and which
    certificates count; None: those of the system."""

    url: str
    headers: Mapping[str, str]
    trust: ssl.SSLContext | None = None


@dataclass(slots=True)
class Asking:
    """A caller who wants the text of `clip` since `due`, as read from one monotonic clock."""

    clip: Clip
    due: float
    refusals: list[Refusal] = field(default_factory=list)
    text: str = ""
    fault: str = CUT
    ended_at: float | None = None
    _tried_at: float = 0.0

    def tries(self, now: float) -> None:
        """An attempt begins. Until it is answered nobody knows how it ends."""
        self._tried_at, self.ended_at, self.fault = now, None, CUT

    def answered(self, now: float, status: int, body: str, retry_after: str | None) -> None:
        """A 200 counts only with a text in it, and not when it says that it failed: there are
        services that answer so."""
        if status in REFUSALS:
            self.refusals.append(Refusal(now - self.due, status, retry_after_s(retry_after)))
            self.failed(now, f"{NOT_ADMITTED}: {status}")
        elif status != 200:
            self.failed(now, f"{status} {_code(body)}")
        else:
            text, found = _object(body).get("text"), _object(body).get("success")
            said = isinstance(text, str) and found is not False
            self.text = str(text) if said else ""
            self.failed(now, "" if said else NO_SUCCESS)

    def failed(self, now: float, fault: str) -> None:
        self.ended_at, self.fault = now, fault

    @property
    def is_refused(self) -> bool:
        """By its last answer."""
        return self.fault.startswith(NOT_ADMITTED)

    @property
    def told_s(self) -> float:
        """How long to wait after a refusal."""
        told_s = self.refusals[-1].retry_after_s
        return UNTOLD_S if told_s is None else told_s

    def outcome(self, wall_s: float) -> Outcome:
        """`wall_s`: what the wall's clock shows more than this one."""
        ended_at, speech = self.ended_at, self.clip.speech
        return Outcome(
            kind=KIND,
            name=speech.name,
            due_at=self.due + wall_s,
            fault=self.fault,
            refusals=tuple(self.refusals),
            # Of one that was turned away nobody heard anything.
            passages=() if self.is_refused else speech.recording.passages,
            audio_s=speech.seconds,
            text=self.text,
            ended_s=None if ended_at is None else ended_at - self.due,
            took_s=None if ended_at is None else ended_at - self._tried_at,
        )


class Files:
    """Posts clips, each over a connection of its own."""

    def __init__(self, session: aiohttp.ClientSession, access: Access) -> None:
        self._session = session
        self._url = http_url(access.url, "/transcribe")

    async def ask(self, asking: Asking) -> None:
        """Once."""
        asking.tries(time.monotonic())
        try:
            async with self._session.post(self._url, data=asking.clip.body) as answer:
                body = await answer.text(errors="replace")
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as exc:
            asking.failed(time.monotonic(), type(exc).__name__)
            return
        retry_after = answer.headers.get("Retry-After")
        asking.answered(time.monotonic(), answer.status, body, retry_after)

    async def ask_until_served(self, asking: Asking) -> None:
        """As often as it is refused, and each time after the wait that the refusal names."""
        await self.ask(asking)
        while asking.is_refused:
            wait_s = asking.told_s
            # It is not over: who ends this program now ends it while it waits.
            asking.tries(time.monotonic())
            await asyncio.sleep(wait_s)
            await self.ask(asking)


@asynccontextmanager
async def posting(access: Access) -> AsyncIterator[Files]:
    form = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    connector = aiohttp.TCPConnector(limit=0, force_close=True, ssl=access.trust or True)
    async with aiohttp.ClientSession(
        connector=connector,
        headers={**access.headers, **form},
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
    ) as session:
        yield Files(session, access)


def form_of(file: bytes, name: str, media_type: str, fields: Mapping[str, str]) -> bytes:
    """A whole multipart form with the file in the field `file`."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'
        for key, value in fields.items()
    ]
    head = (
        f"{''.join(parts)}--{BOUNDARY}\r\n"
        f'Content-Disposition: form-data; name="file"; filename="{name}"\r\n'
        f"Content-Type: {media_type}\r\n\r\n"
    )
    return b"".join([head.encode(), file, f"\r\n--{BOUNDARY}--\r\n".encode()])


def _code(body: str) -> str:
    """What an error is called, or how its body begins."""
    return str(_object(body).get("code") or body[:ERROR_CHARS])


def _object(body: str) -> dict[str, object]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
