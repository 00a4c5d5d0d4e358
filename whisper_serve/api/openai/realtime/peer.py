"""A client of the Realtime API at the other end of a stream.

What the client says has to take its place among what the stream says: a `commit` belongs
behind the turns that were heard in the audio before it. So it goes through the stream: each
`Configure` that is handed over comes back as one `Ready`, and what depends on it is done then.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from whisper_serve.api.connection import Connection
from whisper_serve.api.openai.catalog import Catalog
from whisper_serve.api.openai.realtime.client_events import (
    Append,
    Clear,
    ClientEvent,
    Commit,
    Update,
    client_event,
    event_id_of,
    read_event,
    require_text,
)
from whisper_serve.api.openai.realtime.configuration import SessionConfig
from whisper_serve.api.openai.realtime.conversation import Conversation
from whisper_serve.api.openai.realtime.flat import flattened
from whisper_serve.api.openai.realtime.input_buffer import (
    CollectingBuffer,
    Cut,
    InputBuffer,
    StreamedBuffer,
)
from whisper_serve.api.openai.realtime.server_events import (
    SESSION_OBJECT,
    Event,
    cleared,
    failure,
    refusal,
    session_event,
)
from whisper_serve.api.peer import Incoming, PeerGone
from whisper_serve.errors import (
    InvalidParameter,
    InvalidRequest,
    ModelNotFound,
    WhisperServeError,
)
from whisper_serve.streaming.messages import (
    Configure,
    Endpoint,
    Failed,
    Final,
    Flush,
    Keepalive,
    Ready,
    ServerMessage,
    SpeechStarted,
    SpeechStopped,
    StreamConfig,
    Warned,
)

logger = logging.getLogger(__name__)

MODEL = "audio.input.transcription.model"
# What an update may change while audio comes.
CHANGEABLE = {"model", "language", "prompt", "hotwords"}
Deferred = Callable[[], Iterable[Event]]


class RealtimePeer:
    """Speaks for one session. `max_backlog_s`: audio that may wait in it."""

    is_lenient = True

    def __init__(
        self,
        connection: Connection,
        session: SessionConfig,
        *,
        session_id: str,
        is_beta: bool,
        catalog: Catalog,
        max_backlog_s: float,
    ) -> None:
        self._connection = connection
        self._session = session
        self._session_id = session_id
        self._catalog = catalog
        self._max_backlog_s = max_backlog_s
        self._conversation = Conversation(is_beta=is_beta, with_logprobs=session.with_logprobs)
        self._input = self._new_input()
        self._begun = False
        self._incoming: deque[Incoming] = deque()
        # For each `Ready` to come, what is to be done then; the first tells of the beginning.
        self._deferred: deque[Deferred] = deque([_nothing])
        self._speaking = asyncio.Lock()

    async def configuration(self) -> StreamConfig:
        """What holds when the first audio comes."""
        await self._tell([self._session_event("created")])
        while not self._begun:
            frame = await self._connection.receive()
            if frame is None:
                raise PeerGone
            self._incoming.extend(await self._steps(frame))
        return self._session.stream_config(self._catalog.resolve)

    async def receive(self) -> Incoming:
        while not self._incoming:
            frame = await self._connection.receive()
            if frame is None:
                return None
            # Whatever came is a sign of life.
            self._incoming.extend(await self._steps(frame) or [Keepalive()])
        return self._incoming.popleft()

    async def send(self, message: ServerMessage) -> None:
        await self._tell(self._events_of(message))

    # What the client says

    async def _steps(self, frame: str | bytes) -> list[Incoming]:
        """What the stream gets for an event. What is wrong with one is told."""
        event_id: str | None = None
        event: ClientEvent | None = None
        try:
            message = await read_event(require_text(frame))
            event_id = event_id_of(message)
            event = await client_event(message)
            return await self._obey(event, event_id)
        except (InvalidRequest, ModelNotFound) as exc:
            await self._tell([refusal(exc, _parameter(exc, event), event_id)])
            return []

    async def _obey(self, event: ClientEvent, event_id: str | None) -> list[Incoming]:
        match event:
            case Append(audio):
                return self._append(audio)
            case Commit():
                cut = self._input.commit()
                return self._cut(cut, partial(self._conversation.commit, cut.at_s, event_id))
            case Clear():
                return await self._clear()
            case Update():
                return await self._update(event)

    def _append(self, audio: bytes) -> list[Incoming]:
        now = self._input.append(audio)
        self._begun = self._begun or bool(audio)
        return [now] if now else []

    def _cut(self, cut: Cut, then: Deferred) -> list[Incoming]:
        """Let the stream hear everything up to here, and do `then` when it is asked to."""
        return [*([cut.audio] if cut.audio else []), self._marked({}, then), Flush()]

    def _marked(self, values: Mapping[str, Any], then: Deferred) -> Configure:
        self._deferred.append(then)
        return Configure(values)

    async def _clear(self) -> list[Incoming]:
        cut = self._input.clear()
        if cut is not None:
            return self._cut(cut, partial(self._conversation.clear, cut.at_s))
        await self._tell([cleared()])
        return []

    async def _update(self, update: Update) -> list[Incoming]:
        session = update.applied(self._session)
        if self._begun:
            update.require_same_audio(session, self._session)
        config = session.stream_config(self._catalog.resolve)
        self._session = session
        then = partial(self._updated, session, is_beta=update.is_beta)
        if self._begun:
            return [self._marked(config.model_dump(include=CHANGEABLE), then)]
        self._input = self._new_input()
        await self._tell(then())
        return []

    def _updated(self, session: SessionConfig, *, is_beta: bool) -> list[Event]:
        self._conversation.with_logprobs = session.with_logprobs
        self._conversation.is_beta = self._conversation.is_beta or is_beta
        return [self._session_event("updated", session)]

    def _new_input(self) -> InputBuffer:
        audio_format = self._session.input.format
        if self._session.input.turn_detection is not None:
            return StreamedBuffer(audio_format)
        conversation = self._conversation
        return CollectingBuffer(audio_format, self._max_backlog_s, lambda: conversation.settled_s)

    # What the stream says

    def _events_of(self, message: ServerMessage) -> Iterable[Event]:
        match message:
            case Ready():
                return self._deferred.popleft()()
            case SpeechStarted() | SpeechStopped():
                return self._detected(message)
            case Final():
                return self._conversation.said(message)
            case Endpoint():
                return self._conversation.endpoint()
            case Failed():
                ended = self._conversation.failed(message) if message.fatal else []
                return [*ended, failure(message)]
            case _:
                _log_warning(message)
                return []

    def _detected(self, message: SpeechStarted | SpeechStopped) -> list[Event]:
        turns = self._session.input.turn_detection
        if turns is None:
            return []
        if isinstance(message, SpeechStarted):
            return self._conversation.speech_started(message.at - turns.prefix_padding_s)
        return self._conversation.speech_stopped(message.at + turns.silence_s)

    async def _tell(self, events: Iterable[Event]) -> None:
        """Both sides of the stream tell; what belongs together stays together."""
        told = [{"event_id": f"event_{uuid.uuid4().hex[:24]}", **event} for event in events]
        async with self._speaking:
            for event in told:
                await self._connection.send(json.dumps(event, separators=(",", ":")))

    def _session_event(self, happened: str, session: SessionConfig | None = None) -> Event:
        is_beta = self._conversation.is_beta
        shown = (session or self._session).shown(self._catalog.names[0])
        told = {
            "id": self._session_id,
            "object": SESSION_OBJECT,
            # A session lasts as long as its client is there.
            "expires_at": None,
            **(flattened(shown) if is_beta else shown),
        }
        return session_event(happened, told, is_beta=is_beta)


def _log_warning(message: ServerMessage) -> None:
    """An `error` makes clients give up, and there is no other event for a warning."""
    if isinstance(message, Warned):
        logger.info("a realtime client was not told: %s", message.message)


def _nothing() -> list[Event]:
    return []


def _parameter(exc: WhisperServeError, event: ClientEvent | None) -> str | None:
    """What `exc` is about, in the words of the client."""
    if isinstance(exc, ModelNotFound) and isinstance(event, Update):
        return event.name_of(MODEL)
    return exc.parameter if isinstance(exc, InvalidParameter) else None
