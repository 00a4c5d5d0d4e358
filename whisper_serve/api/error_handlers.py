"""Every failure becomes one JSON shape, with the status that its class names."""

from __future__ import annotations

import logging
import math
import time

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from whisper_serve.api.schemas import TranscriptionOut
from whisper_serve.errors import EngineUnavailable, Overloaded, WhisperServeError

logger = logging.getLogger(__name__)


def install_error_handlers(app: FastAPI) -> None:
    """All but `unforeseen`, which the middleware calls."""
    app.add_exception_handler(WhisperServeError, _known)
    app.add_exception_handler(HTTPException, _http)


def failure(
    request: Request, status: int, code: str, error: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    """The answer to a request that failed, in the shape of `TranscriptionOut`."""
    body = TranscriptionOut.failure(
        error=error,
        code=code,
        latency_s=time.monotonic() - request.state.began,
        request_id=request.state.request_id,
    )
    return JSONResponse(body.model_dump(), status, headers)


async def _known(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, WhisperServeError)
    if exc.http_status == 500:
        logger.error("%s: %s", type(exc).__name__, getattr(exc, "detail", exc), exc_info=exc)
    elif exc.http_status > 500:
        logger.warning("%s: %s", type(exc).__name__, exc)
    headers = {}
    if isinstance(exc, (Overloaded, EngineUnavailable)):
        headers["Retry-After"] = str(math.ceil(exc.retry_after_s))
    return failure(request, exc.http_status, exc.code, str(exc), headers)


async def _http(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(exc.status_code, "http_error")
    headers = dict(exc.headers) if exc.headers else None
    return failure(request, exc.status_code, code, str(exc.detail), headers)


def unforeseen(request: Request, exc: Exception) -> JSONResponse:
    """The answer to a fault of ours: it is told in the log only."""
    logger.error("unforeseen failure", exc_info=exc)
    return failure(request, 500, WhisperServeError.code, "the service failed unexpectedly")
