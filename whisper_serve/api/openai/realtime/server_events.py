"""What the service says: the events of the Realtime API, but for their `event_id`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from whisper_serve.api.openai.answers import Logprob
from whisper_serve.errors import (
    ClientTooFast,
    EmptyAudio,
    FrameTooBig,
    InvalidRequest,
    ModelNotFound,
    StreamIdle,
    WhisperServeError,
)
from whisper_serve.streaming.messages import Failed
from whisper_serve.text.transcript import Word

Event = dict[str, Any]

TRANSCRIPTION = "conversation.item.input_audio_transcription"
SESSION_OBJECT: Final = "realtime.transcription_session"
# What the API calls some of our errors.
CODES = {EmptyAudio.code: "input_audio_buffer_commit_empty"}
CLIENTS_FAULT = (InvalidRequest, ModelNotFound, FrameTooBig, ClientTooFast, StreamIdle)


def session_event(happened: str, session: Mapping[str, Any], *, is_beta: bool) -> Event:
    """`happened`: "created" or "updated"."""
    kind = "transcription_session" if is_beta else "session"
    return {"type": f"{kind}.{happened}", "session": dict(session)}


def speech_started(item_id: str, at_s: float) -> Event:
    kind = "input_audio_buffer.speech_started"
    return {"type": kind, "audio_start_ms": _ms(at_s), "item_id": item_id}


def speech_stopped(item_id: str, at_s: float) -> Event:
    kind = "input_audio_buffer.speech_stopped"
    return {"type": kind, "audio_end_ms": _ms(at_s), "item_id": item_id}


def cleared() -> Event:
    return {"type": "input_audio_buffer.cleared"}


def committed(item_id: str, previous_item_id: str | None, *, is_beta: bool) -> list[Event]:
    """A turn, and its place in the conversation."""
    placed = {"previous_item_id": previous_item_id}
    content = {"type": "input_audio", "transcript": None}
    item = {
        "id": item_id,
        "type": "message",
        "object": "realtime.item",
        "role": "user",
        "status": "completed",
        "content": [content],
    }
    kinds = ["conversation.item.created"]
    if not is_beta:
        kinds = ["conversation.item.added", "conversation.item.done"]
    return [
        {"type": "input_audio_buffer.committed", "item_id": item_id, **placed},
        *({"type": kind, **placed, "item": item} for kind in kinds),
    ]


def delta(item_id: str, text: str, logprobs: list[Event] | None) -> Event:
    return _about(item_id, "delta", {"delta": text}, logprobs)


def completed(item_id: str, text: str, duration_s: float, logprobs: list[Event] | None) -> Event:
    usage = {"type": "duration", "seconds": round(duration_s, 3)}
    return _about(item_id, "completed", {"transcript": text, "usage": usage}, logprobs)


def transcription_failed(item_id: str, error: Failed) -> Event:
    return _about(item_id, "failed", {"error": _error(error.code, error.message)}, None)


def refusal(exc: WhisperServeError, param: str | None, event_id: str | None) -> Event:
    """What is wrong with the client's event `event_id`."""
    error = {**_error(exc.code, str(exc)), "param": param, "event_id": event_id}
    return {"type": "error", "error": error}


def failure(failed: Failed) -> Event:
    """Something went wrong of which no event of the client was the cause."""
    error = {**_error(failed.code, failed.message), "event_id": None}
    return {"type": "error", "error": error}


def logprobs_of(words: Iterable[Word], text: str) -> list[Event]:
    """One entry for each word, as it stands in `text`, which the words make but for the space
    before the first."""
    first, *others = words
    if not text.startswith(first.text):
        first = replace(first, text=first.text.lstrip())
    return [Logprob.of(word).model_dump() for word in (first, *others)]


def _about(
    item_id: str, happened: str, fields: Mapping[str, Any], logprobs: list[Event] | None
) -> Event:
    event = {"type": f"{TRANSCRIPTION}.{happened}", "item_id": item_id, "content_index": 0}
    told = {} if logprobs is None else {"logprobs": logprobs}
    return {**event, **fields, **told}


def _error(code: str, message: str) -> Event:
    fault = "invalid_request_error" if code in _clients_codes() else "server_error"
    return {"type": fault, "code": CODES.get(code, code), "message": message, "param": None}


def _clients_codes() -> set[str]:
    kinds: list[type[WhisperServeError]] = [*CLIENTS_FAULT]
    for kind in kinds:
        kinds += kind.__subclasses__()
    return {kind.code for kind in kinds}


def _ms(time_s: float) -> int:
    return round(time_s * 1000)
