"""How a failure is told, in the words of whichever API the client speaks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from whisper_serve.api.schemas import TranscriptionOut
from whisper_serve.errors import InvalidKey, InvalidParameter, UploadTooSlow, WhisperServeError


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong with a request. `parameter` is what it was about, if anything; `cause`
    the error of ours, if it was one."""

    status: int
    code: str
    message: str
    request_id: str
    latency_s: float = 0.0
    parameter: str | None = None
    headers: Mapping[str, str] | None = None
    cause: WhisperServeError | None = None

    @classmethod
    def of(cls, exc: WhisperServeError, connection: HTTPConnection) -> Failure:
        request_id, latency_s = told_of(connection)
        connection.state.failure_code = exc.code
        return cls(
            status=exc.http_status,
            code=exc.code,
            message=str(exc),
            request_id=request_id,
            latency_s=latency_s,
            parameter=exc.parameter if isinstance(exc, InvalidParameter) else None,
            headers=_headers_of(exc),
            cause=exc,
        )


def _headers_of(exc: WhisperServeError) -> dict[str, str]:
    headers = {}
    if (retry_after_s := getattr(exc, "retry_after_s", None)) is not None:
        headers["Retry-After"] = str(math.ceil(retry_after_s))
    if isinstance(exc, InvalidKey):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(exc, UploadTooSlow):
        headers["Connection"] = "close"  # the rest of the body would still come
    return headers


Shape = Callable[[Failure], Response]
# Beginnings of paths, and the shape of failures behind each; the first that fits counts.
Shapes = Mapping[str, Shape]


def told_of(connection: HTTPConnection) -> tuple[str, float]:
    """The request's id, and the seconds since it began."""
    state = connection.state
    return state.request_id, time.monotonic() - state.began


def native_failure(failure: Failure) -> JSONResponse:
    """The shape of `TranscriptionOut`."""
    body = TranscriptionOut.failure(
        error=failure.message,
        code=failure.code,
        latency_s=failure.latency_s,
        request_id=failure.request_id,
    )
    return JSONResponse(body.model_dump(), failure.status, failure.headers)


def answer_failure(failure: Failure, connection: HTTPConnection) -> Response:
    """`failure` as the API behind the connection's path tells it."""
    connection.state.failure_code = failure.code
    app = connection.scope.get("app")
    shapes: Shapes = app.state.failure_shapes if app else {}
    path = path_of(connection.scope)
    shape = next((shapes[start] for start in shapes if path.startswith(start)), native_failure)
    return shape(failure)


def failure_code_of(scope: Scope) -> str | None:
    """What a client was told that went wrong, if it was told of anything."""
    code: str | None = scope.get("state", {}).get("failure_code")
    return code


def path_of(scope: Scope) -> str:
    """The path within the application, wherever it is mounted; what it is to the router."""
    path: str = scope["path"]
    inner = path.removeprefix(scope.get("root_path", ""))
    return inner if inner == "" or inner.startswith("/") else path
