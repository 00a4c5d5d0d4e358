"""Every failure becomes an answer, with the status that its class names."""

from __future__ import annotations

import logging

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from whisper_serve.api.failures import Failure, Shapes, answer_failure, told_of
from whisper_serve.errors import WhisperServeError

logger = logging.getLogger(__name__)


def install_error_handlers(app: FastAPI, shapes: Shapes) -> None:
    """All but `unforeseen`, which the middleware calls."""
    app.state.failure_shapes = shapes
    app.add_exception_handler(WhisperServeError, _known)
    app.add_exception_handler(HTTPException, _http)


async def _known(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, WhisperServeError)
    log_failure(exc)
    return answer_failure(Failure.of(exc, request), request)


def log_failure(exc: WhisperServeError) -> None:
    """What is our fault belongs into the log; what is the client's, it is told itself."""
    if exc.http_status == 500:
        logger.error("%s: %s", type(exc).__name__, getattr(exc, "detail", exc), exc_info=exc)
    elif exc.http_status > 500:
        logger.warning("%s: %s", type(exc).__name__, exc)


async def _http(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(exc.status_code, "http_error")
    request_id, latency_s = told_of(request)
    headers = dict(exc.headers) if exc.headers else None
    failure = Failure(
        exc.status_code, code, str(exc.detail), request_id, latency_s, headers=headers
    )
    return answer_failure(failure, request)


def unforeseen(request: Request, exc: Exception) -> Response:
    """The answer to a fault of ours."""
    return answer_failure(unforeseen_failure(request, exc), request)


def unforeseen_failure(request: Request, exc: Exception) -> Failure:
    """A fault of ours, which is told in the log only."""
    logger.error("unforeseen failure", exc_info=exc)
    request_id, latency_s = told_of(request)
    message = "the service failed unexpectedly"
    return Failure(500, WhisperServeError.code, message, request_id, latency_s)
