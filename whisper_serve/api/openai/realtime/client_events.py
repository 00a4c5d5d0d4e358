"""What a client says: the events of the Realtime API that a transcription session knows."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from whisper_serve.api.json_body import printable
from whisper_serve.api.openai.realtime.configuration import SessionConfig
from whisper_serve.api.openai.realtime.flat import FlatSession, flat_name, is_flat
from whisper_serve.errors import InvalidMessage, InvalidParameter
from whisper_serve.streaming.messages import json_object

# Beyond this an event is read in a thread.
LARGE_CHARS = 1 << 18
MAX_EVENT_ID_CHARS = 512


@dataclass(frozen=True, slots=True)
class Append:
    """More audio, in the session's format."""

    audio: bytes


@dataclass(frozen=True, slots=True)
class Commit:
    """Make a turn of the audio that came."""


@dataclass(frozen=True, slots=True)
class Clear:
    """Forget the audio that came."""


@dataclass(frozen=True, slots=True)
class Update:
    """Change the session. `is_beta`: answer in the words of the beta."""

    values: Mapping[str, Any]
    is_beta: bool = False

    def applied(self, session: SessionConfig) -> SessionConfig:
        """Raises `InvalidParameter`, which names the place in the words of the client."""
        try:
            if self._is_flat:
                return FlatSession.of(session).updated(self.values).session
            return session.updated(self.values)
        except InvalidParameter as exc:
            raise InvalidParameter(_in_session(exc.parameter), exc.reason) from exc

    def require_same_audio(self, session: SessionConfig, before: SessionConfig) -> None:
        """As the session's own, in the words of the client."""
        try:
            session.require_same_audio(before)
        except InvalidParameter as exc:
            raise InvalidParameter(self.name_of(exc.parameter), exc.reason) from exc

    def name_of(self, place: str) -> str:
        """What the client calls this place within the session."""
        return _in_session(flat_name(place) if self._is_flat else place)

    @property
    def _is_flat(self) -> bool:
        return self.is_beta and is_flat(self.values)


ClientEvent = Append | Commit | Clear | Update
# What each event has beside `type` and `event_id`.
FIELDS = {
    "session.update": "session",
    "transcription_session.update": "session",
    "input_audio_buffer.append": "audio",
    "input_audio_buffer.commit": None,
    "input_audio_buffer.clear": None,
}


def _in_session(name: str) -> str:
    return f"session.{name}"


async def read_event(frame: str) -> dict[str, Any]:
    """The object in a text frame. Raises `InvalidMessage`."""
    if len(frame) > LARGE_CHARS:
        return await asyncio.to_thread(json_object, frame)
    return json_object(frame)


def event_id_of(message: Mapping[str, Any]) -> str | None:
    """What the client calls its event. Raises `InvalidParameter`."""
    event_id = message.get("event_id")
    if event_id is None or (isinstance(event_id, str) and len(event_id) <= MAX_EVENT_ID_CHARS):
        return event_id
    raise InvalidParameter("event_id", f"must be a string of {MAX_EVENT_ID_CHARS} characters")


async def client_event(message: Mapping[str, Any]) -> ClientEvent:
    """What `message` says. Raises `InvalidParameter`."""
    kind = message.get("type")
    if not isinstance(kind, str) or kind not in FIELDS:
        raise InvalidParameter(
            "type", f"{str(kind)[:60]!r} is no event of this session; known: {', '.join(FIELDS)}"
        )
    _require_fields(message, kind)
    match kind:
        case "input_audio_buffer.append":
            return Append(await _audio(message["audio"]))
        case "input_audio_buffer.commit":
            return Commit()
        case "input_audio_buffer.clear":
            return Clear()
        case _:
            return _update(message["session"], is_beta=kind != "session.update")


def _require_fields(message: Mapping[str, Any], kind: str) -> None:
    field = FIELDS[kind]
    if field is not None and field not in message:
        raise InvalidParameter(field, "is missing")
    for name in message.keys() - {"type", "event_id", field}:
        raise InvalidParameter(printable(name), "unknown parameter")


def _update(values: object, *, is_beta: bool) -> Update:
    if not isinstance(values, dict):
        raise InvalidParameter("session", "must be an object")
    return Update(values, is_beta)


async def _audio(value: object) -> bytes:
    if not isinstance(value, str):
        raise InvalidParameter("audio", "must be a string")
    if len(value) > LARGE_CHARS:
        return await asyncio.to_thread(_decoded, value)
    return _decoded(value)


def _decoded(value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise InvalidParameter("audio", "must be base64") from exc


def require_text(frame: str | bytes) -> str:
    """Raises `InvalidMessage`."""
    if isinstance(frame, bytes):
        raise InvalidMessage("events are text; audio comes in 'input_audio_buffer.append'")
    return frame
