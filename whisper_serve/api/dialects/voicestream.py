"""The dialect of VoiceStreamAI and of the services built on it: one JSON object for each
utterance, and nothing else while things go well."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from whisper_serve.api.connection import Connection
from whisper_serve.api.dialects.refusals import error_text, refusal_of
from whisper_serve.api.peer import Incoming
from whisper_serve.errors import InvalidMessage
from whisper_serve.streaming.messages import (
    Configure,
    Failed,
    Final,
    ServerMessage,
    StreamConfig,
    json_object,
    word_fields,
)
from whisper_serve.text.transcript import Word


class ProcessingArgs(BaseModel):
    """Checked, and without effect: text comes at every pause, not at the first one behind
    `chunk_length_seconds`."""

    chunk_length_seconds: float = Field(3.0, gt=0)
    chunk_offset_seconds: float = Field(0.1, ge=0)


class VoiceStreamConfig(BaseModel):
    """`data` of a configuration, as far as it means something here. Keys that are not known
    are left alone, as they always were. So are `sampleRate` and `channels`: these clients tell
    what their sound card does, and send 16 kHz mono."""

    model_config = ConfigDict(allow_inf_nan=False)

    language: str | None = None
    processing_strategy: Literal["silence_at_end_of_chunk"] = "silence_at_end_of_chunk"
    processing_args: ProcessingArgs = ProcessingArgs()


class VoiceStreamPeer:
    """A client that sends 16 kHz mono int16, and configurations at any time."""

    is_lenient = True

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def configuration(self) -> StreamConfig:
        return StreamConfig(policy="utterance", interim=False)

    async def receive(self) -> Incoming:
        frame = await self._connection.receive()
        return _configure(frame) if isinstance(frame, str) else frame

    async def send(self, message: ServerMessage) -> None:
        match message:
            case Final():
                text = json.dumps(_utterance(message), ensure_ascii=False)
                await self._connection.send(text)
            case Failed():
                await self._connection.send(error_text(message))
            case _:
                pass


def _configure(frame: str) -> Configure:
    """Raises `InvalidRequest`."""
    message = json_object(frame)
    if message.get("type") != "config":
        raise InvalidMessage("the only message is of the type 'config'")
    try:
        config = VoiceStreamConfig.model_validate(message.get("data"))
    except ValidationError as exc:
        raise refusal_of(exc) from exc
    named = config.model_fields_set & {"language"}
    return Configure({name: getattr(config, name) for name in named})


def _utterance(final: Final) -> dict[str, Any]:
    return {
        "language": final.language,
        "language_probability": round(final.language_probability, 4),
        "text": final.text.strip(),
        "words": [_word(word) for word in final.words],
        "processing_time": round(final.processing_time, 3),
    }


def _word(word: Word) -> dict[str, Any]:
    """With the space before it, as faster-whisper gives it."""
    return {**word_fields(word), "word": word.text}
