"""What a stream's client remembers and decides; no I/O, no clock.

A connection may break at any message. The server keeps nothing of a stream that broke, but
each of its `ack` and `final` messages has a `resume` object, from which any server can go on
when it gets the audio from `audio_from` again. So a `Journal` keeps the newest of these
objects and the audio from there on, and nothing older:

    0 ......... audio_from ......... committed_until ......... sent ......... end
      forgotten | kept: to be sent again after a reconnection    | not sent yet

What was sent and is not settled stays below the half of what the server lets wait, and what
is not sent yet below `READ_AHEAD_S` and one piece of the source: so what is kept is bounded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from whisper_serve.client.events import (
    Done,
    Event,
    Failed,
    Final,
    Progress,
    Ready,
    Warned,
    event_of,
)
from whisper_serve.errors import InvalidParameter, UnexpectedAnswer
from whisper_serve.streaming.messages import PROTOCOL, StreamConfig

END = '{"type": "end"}'
KEEPALIVE = '{"type": "keepalive"}'

READ_AHEAD_S = 1.0
LONGEST_FRAME_S = 0.5
# Less than this is not sent when more is there, so that frames do not become tiny.
SHORTEST_FRAME_S = 0.1
# What a server may need to hear before it can settle anything: Whisper's window, or a chunk
# with its overlap and a pause.
WINDOW_S = 30.0
PAUSE_S = 3.0
LONGEST_PAUSE_S = 10.0
# How far sending runs ahead of the clock on a server that finds it too fast and has not said
# what it allows.
AHEAD_S = 0.5
VALUE_BYTES = {"pcm_s16le": 2, "pcm_f32le": 4, "mulaw": 1, "alaw": 1}


@dataclass(frozen=True, slots=True)
class Layout:
    """How bytes of raw audio stand for time: frames of `frame_bytes`, so many a second."""

    frame_bytes: int
    sample_rate: int

    @classmethod
    def of(cls, config: StreamConfig) -> Layout | None:
        """None for a container, whose bytes tell no time."""
        if config.encoding == "container":
            return None
        return cls(VALUE_BYTES[config.encoding] * config.channels, config.sample_rate)

    def seconds(self, n_bytes: int) -> float:
        return n_bytes / self.frame_bytes / self.sample_rate

    def offset(self, time_s: float) -> int:
        return round(time_s * self.sample_rate) * self.frame_bytes


class Journal:
    """One stream. `config`: what the user chose.

    The source's audio goes in with `add` and `finish`, the server's messages with `receive`.
    `connect` tells that a new connection begins; `next_message` is what to send on it.
    Raises `InvalidParameter` for a wrong `config`.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        if "resume" in config:
            raise InvalidParameter("resume", "the client resumes by itself")
        self._config = dict(config)
        self._layout = Layout.of(StreamConfig.parse(config))
        self._audio = bytearray()
        self._kept_from = self._sent = 0  # bytes from the start of the stream
        self._finished = False
        self._resume: dict[str, Any] | None = None
        self._lag_s = 0.0
        self._texts: list[str] = []
        self._words = 0
        self._ahead_s: float | None = None  # None: audio may run ahead of the clock
        self._done = False
        self.refusal: tuple[str, str] | None = None
        self.settled_s = 0.0
        self.connect()

    # The source

    def add(self, data: bytes) -> None:
        self._audio += data

    def finish(self) -> None:
        """No more audio will come."""
        self._finished = True

    @property
    def wants_audio(self) -> bool:
        """Whether to read on from the source; what is not sent yet is enough otherwise."""
        if self._layout is None:
            return not self._unsent
        return self._unsent < self._layout.offset(READ_AHEAD_S)

    @property
    def bytes_per_s(self) -> int:
        """Raises `InvalidParameter` for a container."""
        if self._layout is None:
            raise InvalidParameter("encoding", "how long a container lasts is not known")
        return self._layout.offset(1.0)

    @property
    def kept_bytes(self) -> int:
        return len(self._audio)

    # A connection

    def connect(self) -> None:
        """A new connection begins: nothing is sent on it yet."""
        self._sent = self._opened_at = self._kept_from
        self._greeted = self._end_sent = self.is_draining = False
        self._ready: Ready | None = None
        self._lag_s = 0.0
        self.refusal = None

    @property
    def can_resume(self) -> bool:
        """Nothing can be sent again of a container: it is not kept, it cannot be cut."""
        return self._layout is not None or not self._sent

    @property
    def wants_to_leave(self) -> bool:
        """Whether to go on elsewhere now, of a server that is about to stop: what it would settle
        in haste at last might end within a word. All that was sent it may bring to its end."""
        return self.is_draining and self._layout is not None and not self._end_sent

    @property
    def is_done(self) -> bool:
        return self._done

    def next_message(self) -> str | bytes | None:
        """What may be sent now, text or audio; None: nothing until something goes in."""
        if not self._greeted:
            self._greeted = True
            resume = {"resume": self._resume} if self._resume else {}
            return json.dumps({"type": "config", **self._config, **resume})
        if self._ready is None or self._end_sent:
            return None
        if self._unsent:
            return self._next_frame()
        if self._finished:
            self._end_sent = True
            return END
        return None

    @property
    def keepalive_s(self) -> float:
        """After so long a pause in sending, `KEEPALIVE` is due; infinite when it may not be
        sent."""
        if self._ready is None or self._end_sent:
            return math.inf
        return min(LONGEST_PAUSE_S, self._ready.limits.get("idle_timeout_s", math.inf) / 3)

    @property
    def wait_until_s(self) -> float:
        """Seconds since the server was ready until which nothing is to be sent."""
        if self._layout is None or self._ahead_s is None:
            return -math.inf
        sent_s = self._layout.seconds(self._sent - self._opened_at)
        return sent_s + self._frame_s - self._ahead_s

    def slow_down(self) -> None:
        """The server does not take audio faster than it is spoken."""
        self._keep_to(AHEAD_S)

    def _keep_to(self, ahead_s: float) -> None:
        self._ahead_s = ahead_s if self._ahead_s is None else min(ahead_s, self._ahead_s)

    def receive(self, message: str | bytes) -> Event | None:
        """One message of the server. None: there is nothing in it that the user needs.

        Raises `UnexpectedAnswer`.
        """
        fields = _parse(message)
        event = event_of(fields)
        self._note_resume(fields.get("resume"))
        match event:
            case Ready():
                self._accept(event, fields.get("protocol"))
            case Final():
                self._texts.append(event.text)
                self._words += len(event.words) or len(event.text.split())
            case Progress():
                self._lag_s = event.lag
            case Warned(code="client_too_fast") if not self._is_far_ahead:
                self.slow_down()
            case Warned(code="draining"):
                self.is_draining = True
            case Failed() if fields.get("fatal"):
                self.refusal = (event.code, event.message)
                return None
            case Done():
                self._done = True
                text = "".join(self._texts).lstrip()
                return Done(text, event.duration, self._words, event.statistics)
        return event

    def _accept(self, ready: Ready, protocol: object) -> None:
        if protocol != PROTOCOL:
            raise UnexpectedAnswer(f"the server speaks version {protocol!r} of the protocol")
        self._ready = ready
        if "max_ahead_s" in ready.limits:
            self._keep_to(ready.limits["max_ahead_s"] / 2)

    def _note_resume(self, resume: object) -> None:
        """Keep the newest; audio that it does not need is forgotten."""
        if not isinstance(resume, dict):
            return
        settled_s = _number(resume.get("committed_until"))
        audio_from = resume.get("audio_from")
        audio_from_s = settled_s if audio_from is None else _number(audio_from)
        if self._layout is not None:
            # It may lie a rounding behind the end.
            start = min(self._layout.offset(audio_from_s), self._sent)
            if start < self._kept_from:
                return  # it needs audio that is not here any more
            del self._audio[: start - self._kept_from]
            self._kept_from = start
        self._resume = resume
        self.settled_s = max(self.settled_s, settled_s)

    @property
    def _unsent(self) -> int:
        return self._kept_from + len(self._audio) - self._sent

    @property
    def _unsettled_s(self) -> float:
        if self._layout is None:
            return self._lag_s
        return self._layout.seconds(self._sent) - self.settled_s

    @property
    def _is_far_ahead(self) -> bool:
        """Whether more is unsettled than the server likes, because it needs that much."""
        return self._ready is not None and self._unsettled_s >= _backlog_s(self._ready) / 2

    def _next_frame(self) -> bytes | None:
        assert self._ready is not None
        if self._layout is None:
            return self._whole_piece(self._ready)
        room = self._room(self._ready)
        if room < min(self._unsent, self._layout.offset(SHORTEST_FRAME_S)):
            return None
        size = min(room, self._unsent, self._frame_bytes(self._ready))
        first = self._sent - self._kept_from
        self._sent += size
        return bytes(self._audio[first : first + size])

    def _whole_piece(self, ready: Ready) -> bytes | None:
        """Of a container, as it came. It is not kept: it could not be sent again."""
        if self._unsettled_s >= _allowance_s(ready):
            return None
        size = min(self._unsent, _max_frame_bytes(ready))
        piece = bytes(self._audio[:size])
        del self._audio[:size]
        self._sent += size
        self._kept_from += size
        return piece

    def _frame_bytes(self, ready: Ready) -> int:
        assert self._layout is not None
        return min(self._layout.offset(self._frame_s), _max_frame_bytes(ready))

    @property
    def _frame_s(self) -> float:
        return LONGEST_FRAME_S if self._ahead_s is None else min(LONGEST_FRAME_S, self._ahead_s / 2)

    def _room(self, ready: Ready) -> int:
        """Bytes that may still be sent until something is settled."""
        assert self._layout is not None
        room_s = _allowance_s(ready) - self._unsettled_s
        # One frame less: it must stay below.
        return max(0, self._layout.offset(room_s) - self._layout.frame_bytes)


def _allowance_s(ready: Ready) -> float:
    """How much may be unsettled: half of what may wait, more only where nothing could be
    settled otherwise."""
    backlog_s = _backlog_s(ready)
    return max(backlog_s / 2, min(_needed_s(ready.config), 0.9 * backlog_s))


def _needed_s(config: Mapping[str, Any]) -> float:
    if config.get("policy") != "chunk":
        return WINDOW_S
    return min(WINDOW_S, _number(config["chunk_duration"]) + _number(config["overlap"]) + PAUSE_S)


def _backlog_s(ready: Ready) -> float:
    return ready.limits.get("max_backlog_s", 2 * WINDOW_S)


def _max_frame_bytes(ready: Ready) -> int:
    return int(ready.limits.get("max_frame_bytes", 2**20))


def _parse(message: str | bytes) -> dict[str, Any]:
    try:
        fields = json.loads(message)
    except (ValueError, RecursionError) as exc:
        raise UnexpectedAnswer("the server's message is not JSON") from exc
    if not isinstance(fields, dict):
        raise UnexpectedAnswer("the server's message is not a JSON object")
    return fields


def _number(value: object) -> float:
    if isinstance(value, (int, float)) and 0 <= value < math.inf:
        return float(value)
    raise UnexpectedAnswer(f"the server sent {value!r} for a time")
