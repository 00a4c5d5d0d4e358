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
from whisper_serve.errors import (
    EngineUnavailable,
    InvalidParameter,
    Overloaded,
    TooManyStreams,
    WhisperServeError,
)

RETRIED = (Overloaded, EngineUnavailable, TooManyStreams)


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
        headers = {}
        if isinstance(exc, RETRIED):
            headers["Retry-After"] = str(math.ceil(exc.retry_after_s))
        return cls(
            status=exc.http_status,
            code=exc.code,
            message=str(exc),
            request_id=request_id,
            latency_s=latency_s,
            parameter=exc.parameter if isinstance(exc, InvalidParameter) else None,
            headers=headers,
            cause=exc,
        )


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
    app = connection.scope.get("app")
    shapes: Shapes = app.state.failure_shapes if app else {}
    path = path_of(connection.scope)
    shape = next((shapes[start] for start in shapes if path.startswith(start)), native_failure)
    return shape(failure)


def path_of(scope: Scope) -> str:
    """The path within the application, wherever it is mounted."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))
