"""Sending a recording as a form."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import httpx
from pydantic import ValidationError

from whisper_serve.client.answers import Transcription
from whisper_serve.client.service import Make, Service
from whisper_serve.errors import UnexpectedAnswer, UnreadableAudio

Recording = str | Path | bytes | BinaryIO
Sent = Callable[[int, int], None]


class File(NamedTuple):
    name: str
    content: BinaryIO


async def transcribe(
    service: Service, recording: Recording, fields: Mapping[str, str], progress: Sent | None
) -> Transcription:
    """One upload and its answer; see `AsyncClient.transcribe`."""
    async with opened(recording) as file:
        make = form_of(service, "/transcribe", file, fields, progress=progress)
        return read(await service.ask(make, repeatable=False))


@asynccontextmanager
async def opened(recording: Recording) -> AsyncIterator[File]:
    """Its name and its bytes. Raises `UnreadableAudio`, also for a failure while it is read."""
    file = await asyncio.to_thread(_open, recording)
    try:
        yield File(_name(recording), file)
    except OSError as exc:
        raise _unreadable(recording, exc) from exc
    finally:
        if file is not recording:
            file.close()


def form_of(
    service: Service,
    path: str,
    file: File,
    fields: Mapping[str, str],
    *,
    progress: Sent | None = None,
    headers: Mapping[str, str] | None = None,
) -> Make:
    """Makes the request that sends `file`, from its start each time."""

    def make() -> httpx.Request:
        files = {"audio_file": (file.name, file.content)}
        form = httpx.Request("POST", service.url(path), data=dict(fields), files=files)
        return service.http.build_request(
            "POST",
            form.url,
            headers={**_headers(form), **(headers or {})},
            content=_body(form, progress),
        )

    return make


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


def read(response: httpx.Response) -> Transcription:
    """The transcript that an answer holds. Raises `UnexpectedAnswer`."""
    try:
        return Transcription.model_validate_json(response.content)
    except ValidationError as exc:
        raise UnexpectedAnswer(f"{response.url} does not answer as a whisper_serve does") from exc
