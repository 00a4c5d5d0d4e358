"""Reading a request's file, bounded while it comes in.

Small files stay in memory, larger ones go to a temporary file; nothing larger than the limit
is ever taken. Two ways in: a form with the file in `audio_file` (or `file`), and the bare
file as the body.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from whisper_serve.errors import (
    ClientGone,
    EmptyAudio,
    InvalidParameter,
    InvalidRequest,
    UnsupportedMediaType,
    UploadTooLarge,
)

FILE_FIELDS = ("audio_file", "file")
IN_MEMORY_BYTES = 2**20
MAX_FORM_FIELDS = 32


@dataclass(frozen=True, slots=True)
class Upload:
    """The file, rewound, and the fields of query and form together."""

    file: BinaryIO
    size: int
    fields: Mapping[str, str]


@asynccontextmanager
async def receive_upload(request: Request, max_bytes: int) -> AsyncIterator[Upload]:
    """The request's upload, for as long as the context is open.

    Raises `UploadTooLarge` as soon as more than `max_bytes` are announced or have come,
    `UnsupportedMediaType`, `EmptyAudio`, `InvalidRequest` for a broken form, `ClientGone`.
    """
    media_type, _ = parse_options_header(request.headers.get("content-type", ""))
    if media_type == b"multipart/form-data":
        async with receive_form(request, max_bytes) as form:
            yield await _upload(_file_of(form), _merged(request, form))
    elif media_type.startswith(b"audio/") or media_type == b"application/octet-stream":
        async with receive_body(request, max_bytes) as file:
            yield await _upload(file, _merged(request, FormData()))
    else:
        raise UnsupportedMediaType(media_type.decode("latin-1"))


@asynccontextmanager
async def receive_form(
    request: Request, max_bytes: int, *, max_fields: int = MAX_FORM_FIELDS
) -> AsyncIterator[FormData]:
    """The fields of a multipart form, its files open for as long as the context is.

    Raises `UploadTooLarge` as `receive_upload` does, `InvalidRequest` for a broken form,
    `ClientGone`.
    """
    form = await _read_form(request, _bounded(request, max_bytes), max_fields)
    try:
        yield form
    finally:
        await form.close()


@asynccontextmanager
async def receive_body(
    request: Request, max_bytes: int, *, head: bytes = b""
) -> AsyncIterator[UploadFile]:
    """The request's body as a file behind `head`, rewound, for as long as the context is open.

    Raises `UploadTooLarge` as `receive_upload` does, `EmptyAudio`, `ClientGone`.
    """
    spool = cast("BinaryIO", SpooledTemporaryFile(max_size=IN_MEMORY_BYTES))  # noqa: SIM115
    file = UploadFile(spool, size=0)
    try:
        await file.write(head)
        async for chunk in _bounded(request, max_bytes):
            await file.write(chunk)
        if file.size == len(head):
            raise EmptyAudio("the file is empty")
        await file.seek(0)
        yield file
    finally:
        await file.close()


async def _bounded(request: Request, max_bytes: int) -> AsyncGenerator[bytes, None]:
    if _announced_bytes(request) > max_bytes:
        raise UploadTooLarge(max_bytes)
    received = 0
    try:
        async for chunk in request.stream():
            received += len(chunk)
            if received > max_bytes:
                raise UploadTooLarge(max_bytes)
            yield chunk
    except ClientDisconnect as exc:
        raise ClientGone from exc


def _announced_bytes(request: Request) -> int:
    """0 when nothing sensible is announced."""
    try:
        return int(request.headers.get("content-length", "0"))
    except ValueError:
        return 0


class _FormParser(MultiPartParser):
    """Refuses a form that breaks off, of which the library takes what has come."""

    _complete = False

    def on_end(self) -> None:
        self._complete = True

    async def parse(self) -> FormData:
        self.stream = self._to_its_end(self.stream)
        return await super().parse()

    async def _to_its_end(self, stream: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        async for chunk in stream:
            yield chunk
        if not self._complete:
            raise MultiPartException("it breaks off")


async def _read_form(
    request: Request, body: AsyncGenerator[bytes, None], max_fields: int
) -> FormData:
    parser = _FormParser(
        request.headers,
        body,
        max_files=len(FILE_FIELDS),
        max_fields=max_fields,
    )
    try:
        return await parser.parse()
    except MultiPartException as exc:
        raise InvalidRequest(f"the form cannot be read: {exc.message}") from exc


def _file_of(form: FormData) -> UploadFile:
    wanted = repr(FILE_FIELDS[0])
    files = [(name, value) for name, value in form.multi_items() if isinstance(value, UploadFile)]
    if len(files) > 1:
        raise InvalidRequest(f"send one file, in {wanted}")
    for name, file in files:
        if name in FILE_FIELDS:
            return file
    for name in FILE_FIELDS:
        if name in form:  # `curl -F audio_file=recording.wav`, without the @
            raise EmptyAudio(f"{name!r} is text; curl sends a file with {name}=@recording.wav")
    found = f"; found: {', '.join(map(repr, form))}" if form else ""
    raise EmptyAudio(f"the form has no file in {wanted}{found}")


def _merged(request: Request, form: FormData) -> dict[str, str]:
    """Query and form fields; one that is given twice is an error, not a guess."""
    fields: dict[str, str] = {}
    form_fields = [(k, v) for k, v in form.multi_items() if isinstance(v, str)]
    for name, value in [*request.query_params.multi_items(), *form_fields]:
        if name in fields:
            raise InvalidParameter(name, "given more than once")
        fields[name] = value
    return fields


async def _upload(file: UploadFile, fields: Mapping[str, str]) -> Upload:
    if not file.size:
        raise EmptyAudio("the file is empty")
    return Upload(file.file, file.size, fields)
