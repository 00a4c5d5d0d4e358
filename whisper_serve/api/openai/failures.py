"""How OpenAI's API tells a failure: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

from pydantic import BaseModel
from starlette.responses import JSONResponse

from whisper_serve.api.failures import Failure
from whisper_serve.errors import (
    AudioTooLong,
    EmptyAudio,
    ModelNotFound,
    QuotaExceeded,
    UnreadableAudio,
    UnsupportedFormat,
    UploadTooLarge,
)

NO_QUOTA = "insufficient_quota"
# Or else clients send the file twice more within seconds, whatever `Retry-After` says.
NO_RETRY = {"x-should-retry": "false"}
ABOUT_THE_FILE = (EmptyAudio, UnreadableAudio, UnsupportedFormat, AudioTooLong)


class ErrorFacts(BaseModel):
    """`type` is the kind of error, `code` the one of docs/openai.md, `param` the field that it
    is about."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorOut(BaseModel):
    """The body of every failure."""

    error: ErrorFacts


def openai_failure(failure: Failure) -> JSONResponse:
    """The answer from which OpenAI's clients make the exception that belongs to its status."""
    error = error_out(failure)
    headers = dict(failure.headers or {})
    if error.error.code == NO_QUOTA:
        headers |= NO_RETRY
    return JSONResponse(error.model_dump(), failure.status, headers)


def error_out(failure: Failure) -> ErrorOut:
    facts = ErrorFacts(
        message=_message(failure),
        type=_type(failure),
        param=_param(failure),
        code=_code(failure),
    )
    return ErrorOut(error=facts)


def _code(failure: Failure) -> str:
    if failure.code == QuotaExceeded.code:
        return NO_QUOTA
    return "rate_limit_exceeded" if failure.status == 429 else failure.code


def _message(failure: Failure) -> str:
    if isinstance(failure.cause, UploadTooLarge):
        return f"Maximum content size limit ({failure.cause.limit_bytes}) exceeded"
    return failure.message


def _type(failure: Failure) -> str:
    if failure.status == 429:
        return NO_QUOTA if failure.code == QuotaExceeded.code else "requests"
    return "server_error" if failure.status >= 500 else "invalid_request_error"


def _param(failure: Failure) -> str | None:
    if isinstance(failure.cause, ABOUT_THE_FILE):
        return "file"
    return "model" if isinstance(failure.cause, ModelNotFound) else failure.parameter
