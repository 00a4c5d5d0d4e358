"""The FastAPI application, put together from its services."""

from __future__ import annotations

from fastapi import FastAPI

from whisper_serve import __version__
from whisper_serve.api.admission import Admission
from whisper_serve.api.deepgram.failures import deepgram_failure
from whisper_serve.api.deepgram.routes import listen_router
from whisper_serve.api.dialects.routes import dialects_router
from whisper_serve.api.error_handlers import install_error_handlers
from whisper_serve.api.failures import native_failure
from whisper_serve.api.middleware import RequestContextMiddleware
from whisper_serve.api.openai.failures import openai_failure
from whisper_serve.api.openai.files import files_router
from whisper_serve.api.openai.models import models_router
from whisper_serve.api.openai.realtime.routes import realtime_router
from whisper_serve.api.routes.health import health_router
from whisper_serve.api.routes.stream import stream_router
from whisper_serve.api.routes.transcribe import transcribe_router
from whisper_serve.api.routes.web import web_router
from whisper_serve.api.services import Services

ENDPOINTS = {
    "POST /transcribe": "a recording in, its text out",
    "WS /stream": "live audio in, text out while it is spoken",
    "POST /v1/audio/transcriptions": "the same for clients of OpenAI's API",
    "POST /v1/audio/translations": "a recording in, its text in English out",
    "GET /v1/models": "which models there are",
    "WS /v1/realtime": "live audio in, text out, for clients of OpenAI's Realtime API",
    "POST /v1/listen": "a recording in, its text out, for clients of Deepgram's API",
    "WS /v1/listen": "live audio in, text out, for clients of Deepgram's API",
    "GET /health": "does an engine answer",
    "GET /docs": "this API, described and to try",
}
# The first beginning that fits counts.
FAILURE_SHAPES = {
    **dict.fromkeys(
        ("/v1/transcribe", "/v1/stream", "/v1/jobs", "/v1/tokens", "/v1/status"), native_failure
    ),
    "/v1/listen": deepgram_failure,
    "/v1/": openai_failure,
}


def create_app(services: Services, *, send_request_id: bool = True) -> FastAPI:
    """`send_request_id`: whether answers get an `X-Request-ID` here, not from a proxy."""
    app = FastAPI(
        title="whisper_serve",
        version=__version__,
        summary="Self-hosted speech to text with OpenAI Whisper.",
    )
    app.add_middleware(RequestContextMiddleware, send_id=send_request_id)
    install_error_handlers(app, FAILURE_SHAPES)
    app.include_router(transcribe_router(services))
    streaming = services.config.streaming
    admission = Admission(streaming.max_sessions, streaming.max_sessions_per_client)
    app.include_router(stream_router(services, admission))
    app.include_router(dialects_router(services, admission))
    app.include_router(listen_router(services, admission))
    app.include_router(files_router(services))
    app.include_router(models_router(services))
    app.include_router(realtime_router(services, admission))
    app.include_router(health_router(services))
    about = {"service": "whisper_serve", "version": __version__, "endpoints": ENDPOINTS}
    app.include_router(web_router(about))
    return app
