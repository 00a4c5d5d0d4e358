"""The form that `/v1/audio` takes: a recording, and what shall be done with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import BinaryIO

from fastapi import Request
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile

from whisper_serve.api.openai.parameters import FileParameters
from whisper_serve.api.upload import receive_form
from whisper_serve.errors import EmptyAudio, InvalidParameter, InvalidRequest, UploadTooLarge

# What the other fields, and all that stands between fields, may have together. It does not
# count as a part of the file.
FORM_ROOM_BYTES = 2**20
MAX_FIELDS = 256


@dataclass(frozen=True, slots=True)
class Recording:
    """The file, rewound, and the fields beside it."""

    file: BinaryIO
    parameters: FileParameters


@asynccontextmanager
async def receive_recording(request: Request, max_bytes: int) -> AsyncIterator[Recording]:
    """What the request's form holds, for as long as the context is open.

    Raises `UploadTooLarge` for a file of more than `max_bytes`, as soon as that is sure,
    `InvalidParameter` for a field that is wrong or missing, `EmptyAudio`, `InvalidRequest` for
    what is no form, `ClientGone`.
    """
    _check_form(request)
    try:
        async with receive_form(
            request, max_bytes + FORM_ROOM_BYTES, max_fields=MAX_FIELDS
        ) as form:
            texts = [(name, text) for name, text in form.multi_items() if isinstance(text, str)]
            parameters = FileParameters.parse((n, t) for n, t in texts if n != "file")
            yield Recording(_file_of(form, max_bytes), parameters)
    except UploadTooLarge as exc:
        raise UploadTooLarge(max_bytes) from exc


def _check_form(request: Request) -> None:
    content_type = request.headers.get("content-type", "")
    media_type, _ = parse_options_header(content_type)
    if media_type != b"multipart/form-data":
        found = f"Content-Type {content_type!r} is not accepted" if content_type else "no form"
        raise InvalidRequest(f"{found}: send multipart/form-data with the recording in 'file'")
    for name in request.query_params:
        raise InvalidParameter(name, "parameters are fields of the form, not of the query")


def _file_of(form: FormData, max_bytes: int) -> BinaryIO:
    if isinstance(form.get("file"), str):
        raise InvalidParameter("file", "it is text; curl sends a file with file=@recording.wav")
    files = [(name, value) for name, value in form.multi_items() if isinstance(value, UploadFile)]
    for name, _ in files:
        if name != "file":
            raise InvalidParameter(name, "it is a file; the recording belongs into 'file'")
    if len(files) != 1:
        raise InvalidParameter("file", "given more than once" if files else "it is missing")
    [(_, file)] = files
    if not file.size:
        raise EmptyAudio("the file is empty")
    if file.size > max_bytes:
        raise UploadTooLarge(max_bytes)
    return file.file
