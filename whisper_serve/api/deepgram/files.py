"""`POST /v1/listen`: a recording as the request's body, and the answer to it."""

from __future__ import annotations

import asyncio
import hashlib
import struct
from typing import BinaryIO

from pydantic import BaseModel
from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from whisper_serve.api.auth.bill import bill_of
from whisper_serve.api.deepgram.answers import (
    AlternativeOut,
    ModelInfoOut,
    ServedModel,
    Writing,
    created_now,
)
from whisper_serve.api.deepgram.parameters import FileParameters
from whisper_serve.api.presence import while_asked
from whisper_serve.api.services import Services
from whisper_serve.api.upload import receive_body
from whisper_serve.errors import InvalidRequest
from whisper_serve.pipeline import TranscribeOptions
from whisper_serve.text.transcript import Transcript

# Format tag and bits of a sample. Source: Microsoft and IBM, "Multimedia Programming Interface
# and Data Specifications 1.0", and RFC 2361.
WAV_FORMATS = {"linear16": (1, 16), "linear32": (3, 32), "mulaw": (7, 8), "alaw": (6, 8)}
UNKNOWN_BYTES = 0xFFFF_FFFF
HASHED_BYTES = 1 << 20


class MetadataOut(BaseModel):
    """About a request. `sha256` is that of the body, `duration` in seconds."""

    transaction_key: str = "deprecated"
    request_id: str
    sha256: str
    created: str
    duration: float
    channels: int = 1
    models: list[str]
    model_info: dict[str, ModelInfoOut]
    tags: list[str] | None = None
    extra: dict[str, str] | None = None


class ChannelOut(BaseModel):
    """What was said. Channels are mixed down, so there is just one."""

    alternatives: list[AlternativeOut]
    detected_language: str | None = None
    language_confidence: float | None = None


class ResultsOut(BaseModel):
    channels: list[ChannelOut]


class ListenOut(BaseModel):
    """The answer to `POST /v1/listen`."""

    metadata: MetadataOut
    results: ResultsOut


async def transcribe_body(
    request: Request, services: Services, parameters: FileParameters, model: str
) -> ListenOut:
    """What is said in the request's body, heard by the served `model`. Raises what `receive_body`
    and the transcriber raise, `InvalidRequest` and `DeadlineExceeded`."""
    _require_audio(request.headers.get("content-type", ""))
    created, request_id = created_now(), request.state.request_id
    head, limit = _wav_head(parameters), services.config.limits.max_upload_bytes
    async with receive_body(request, limit, head=head) as upload:
        sha256 = await asyncio.to_thread(_sha256, upload.file, len(head))
        options = TranscribeOptions(
            model=model,
            language=parameters.spoken_language,
            hotwords=parameters.hotwords,
            request_id=request_id,
        )
        transcript = await while_asked(
            request.receive,
            services.config.limits.request_timeout_s,
            services.transcriber.transcribe(upload.file, options, bill_of(request).charge),
        )
    served = ServedModel(model or services.models.names[0])
    metadata = MetadataOut(
        request_id=request_id,
        sha256=sha256,
        created=created,
        duration=round(transcript.duration, 3),
        models=[served.uuid],
        model_info={served.uuid: served.info},
        **parameters.labels,
    )
    channel = await asyncio.to_thread(_channel, transcript, parameters)
    return ListenOut(metadata=metadata, results=ResultsOut(channels=[channel]))


def _require_audio(content_type: str) -> None:
    """Any other type is left to the decoder, which judges by the content."""
    media_type, _ = parse_options_header(content_type)
    if media_type == b"application/json":
        raise InvalidRequest("url: nothing is fetched from elsewhere; send the audio as the body")
    if media_type.startswith(b"multipart/"):
        raise InvalidRequest("multipart/form-data is not read here; send the audio as the body")


def _wav_head(parameters: FileParameters) -> bytes:
    """What makes a WAV file of bare audio; nothing for what has a header already."""
    if parameters.encoding not in WAV_FORMATS or parameters.sample_rate is None:
        return b""
    tag, bits = WAV_FORMATS[parameters.encoding]
    rate, channels = parameters.sample_rate, parameters.channels
    frame_bytes = channels * bits // 8
    form = struct.pack("<HHIIHH", tag, channels, rate, rate * frame_bytes, frame_bytes, bits)
    return struct.pack(
        "<4sI4s4sI16s4sI",
        *(b"RIFF", UNKNOWN_BYTES, b"WAVE"),
        *(b"fmt ", len(form), form),
        *(b"data", UNKNOWN_BYTES),
    )


def _sha256(file: BinaryIO, skipped: int) -> str:
    found = hashlib.sha256()
    file.seek(skipped)
    while part := file.read(HASHED_BYTES):
        found.update(part)
    return found.hexdigest()


def _channel(transcript: Transcript, parameters: FileParameters) -> ChannelOut:
    writing = Writing(parameters.is_formatted, parameters.tells_languages)
    text, words, language = transcript.text, transcript.words, transcript.language
    channel = ChannelOut(alternatives=[writing.alternative(text, words, language)])
    if not parameters.detect_language or language is None:
        return channel
    return channel.model_copy(
        update={
            "detected_language": language,
            "language_confidence": round(transcript.language_probability, 4),
        }
    )
