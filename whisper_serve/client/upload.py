"""Sending a recording to `POST /transcribe`."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import httpx
from pydantic import ValidationError

from whisper_serve.client.answers import Transcription
from whisper_serve.client.connection import refusal_of
from whisper_serve.errors import ConnectionLost, UnexpectedAnswer, UnreadableAudio

Recording = str | Path | bytes | BinaryIO
Sent = Callable[[int, int], None]


async def transcribe(
    http: httpx.AsyncClient,
    url: str,
    recording: Recording,
    fields: Mapping[str, str],
    progress: Sent | None,
) -> Transcription:
    """One upload and its answer; see `AsyncClient.transcribe`."""
    file = await asyncio.to_thread(_open, recording)
    try:
        files = {"audio_file": (_name(recording), file)}
        form = httpx.Request("POST", url, data=dict(fields), files=files)
        response = await http.post(url, headers=_headers(form), content=_body(form, progress))
    except httpx.RequestError as exc:
        raise ConnectionLost(f"{url}: {str(exc) or type(exc).__name__}") from exc
    except OSError as exc:
        raise _unreadable(recording, exc) from exc
    finally:
        if file is not recording:
            file.close()
    return _read(response)


def _open(recording: Recording) -> BinaryIO:
    if isinstance(recording, bytes):
        return io.BytesIO(recording)
    try:
        if isinstance(recording, (str, Path)):
            return Path(recording).open("rb")
        # Of a pipe the length is not known before it is read.
        return recording if recording.seekable() else io.BytesIO(recording.read())
    except OSError as exc:
        raise _unreadable(recording, exc) from exc


def _unreadable(recording: Recording, exc: OSError) -> UnreadableAudio:
    return UnreadableAudio(f"{_name(recording)} cannot be read: {exc.strerror or exc}")


def _name(recording: Recording) -> str:
    if isinstance(recording, bytes):
        return "audio"
    name = recording if isinstance(recording, (str, Path)) else getattr(recording, "name", "audio")
    return Path(str(name)).name


def _headers(form: httpx.Request) -> dict[str, str]:
    return {name: form.headers[name] for name in ("Content-Type", "Content-Length")}


async def _body(form: httpx.Request, progress: Sent | None) -> AsyncIterator[bytes]:
    """The form as it goes over the wire; its file is read in a thread."""
    assert isinstance(form.stream, httpx.SyncByteStream)
    parts, sent, total = iter(form.stream), 0, int(form.headers["Content-Length"])
    while (part := await asyncio.to_thread(next, parts, None)) is not None:
        yield part
        sent += len(part)
        if progress is not None:
            progress(sent, total)


def _read(response: httpx.Response) -> Transcription:
    if response.status_code != httpx.codes.OK:
        raise refusal_of(response.status_code, response.headers, response.content)
    try:
        return Transcription.model_validate_json(response.content)
    except ValidationError as exc:
        raise UnexpectedAnswer(f"{response.url} does not answer as a whisper_serve does") from exc
