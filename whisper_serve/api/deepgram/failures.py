"""How Deepgram's API tells a failure.

Source: developers.deepgram.com/reference/errors.
"""

from __future__ import annotations

import re

from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

from whisper_serve.api.failures import Failure
from whisper_serve.errors import InvalidParameter, ModelNotFound

REQUEST_ID_HEADER, ERROR_HEADER = "dg-request-id", "dg-error"
MAX_HEADER_CHARS = 1_000
# What clients look for when a model is not there, which is a bad request to that API.
NO_SUCH_MODEL = "No such model/language/tier combination found"
BAD_REQUEST = 400
ERR_CODES = {
    BAD_REQUEST: "Bad Request",
    401: "INVALID_AUTH",
    403: "INSUFFICIENT_PERMISSIONS",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Payload Too Large",
    415: "Unsupported Media Type",
    429: "TOO_MANY_REQUESTS",
    500: "Internal Server Error",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}
UNPRINTABLE = re.compile(r"[^\x20-\x7e]")


class FailureOut(BaseModel):
    """The body of every failure behind `/v1/listen`."""

    err_code: str = Field(description="What went wrong, for programs.")
    err_msg: str = Field(description="What went wrong, for people; it names the parameter.")
    request_id: str


def deepgram_failure(failure: Failure) -> JSONResponse:
    """The shape of `FailureOut`; id and message are in headers too, for clients that see no body
    of a refused handshake."""
    status, message = failure.status, failure.message
    if failure.code == ModelNotFound.code:
        status, message = BAD_REQUEST, f"{NO_SUCH_MODEL}: {message}"
    body = FailureOut(
        err_code=_err_code(failure.code, status), err_msg=message, request_id=failure.request_id
    )
    headers = {
        **(failure.headers or {}),
        REQUEST_ID_HEADER: failure.request_id,
        ERROR_HEADER: UNPRINTABLE.sub("?", message)[:MAX_HEADER_CHARS],
    }
    return JSONResponse(body.model_dump(), status, headers)


def _err_code(code: str, status: int) -> str:
    if code == InvalidParameter.code:
        return "INVALID_QUERY_PARAMETER"
    return ERR_CODES.get(status, code)
