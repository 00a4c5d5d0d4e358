"""The FastAPI application, put together from its services."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from whisper_serve import __version__
from whisper_serve.api.admission import Admission
from whisper_serve.api.auth.description import describe_keys
from whisper_serve.api.auth.gate import Gate
from whisper_serve.api.auth.middleware import AuthMiddleware
from whisper_serve.api.auth.tokens import Tokens
from whisper_serve.api.deepgram.failures import deepgram_failure
from whisper_serve.api.deepgram.grant import grant_router
from whisper_serve.api.deepgram.routes import listen_router
from whisper_serve.api.dialects.routes import dialects_router
from whisper_serve.api.draining import DrainMiddleware
from whisper_serve.api.error_handlers import install_error_handlers
from whisper_serve.api.failures import native_failure
from whisper_serve.api.live import Timing
from whisper_serve.api.measuring import MeasuringMiddleware, room_of
from whisper_serve.api.middleware import RequestContextMiddleware
from whisper_serve.api.openai.failures import openai_failure
from whisper_serve.api.openai.files import files_router
from whisper_serve.api.openai.models import models_router
from whisper_serve.api.openai.realtime.ephemeral_keys import EphemeralKeys
from whisper_serve.api.openai.realtime.routes import realtime_router
from whisper_serve.api.origins import SocketOriginMiddleware
from whisper_serve.api.pace import UploadPace, UploadPaceMiddleware
from whisper_serve.api.routes.health import health_router
from whisper_serve.api.routes.jobs import jobs_router
from whisper_serve.api.routes.metrics import metrics_router
from whisper_serve.api.routes.status import status_router
from whisper_serve.api.routes.stream import stream_router
from whisper_serve.api.routes.tokens import tokens_router
from whisper_serve.api.routes.transcribe import transcribe_router
from whisper_serve.api.routes.web import web_router
from whisper_serve.api.security_headers import SecurityHeadersMiddleware
from whisper_serve.api.services import Services

ENDPOINTS = {
    "POST /transcribe": "a recording in, its text out",
    "POST /v1/transcribe": "the same",
    "WS /stream": "live audio in, text out while it is spoken",
    "WS /v1/stream": "the same",
    "POST /v1/audio/transcriptions": "the same for clients of OpenAI's API",
    "POST /v1/audio/translations": "a recording in, its text in English out",
    "GET /v1/models": "which models there are",
    "WS /v1/realtime": "live audio in, text out, for clients of OpenAI's Realtime API",
    "POST /v1/listen": "a recording in, its text out, for clients of Deepgram's API",
    "WS /v1/listen": "live audio in, text out, for clients of Deepgram's API",
    "POST /v1/jobs": "a recording in, its text when it is done",
    "GET /v1/jobs": "your jobs, and what became of them",
    "POST /v1/tokens": "a key in, a short-lived token for browsers out",
    "GET /health": "does an engine answer",
    "GET /v1/status": "models, replicas, load and room",
    "GET /metrics": "numbers for Prometheus",
    "GET /docs": "this API, described and to try",
}
# Keys are shown in headers and never in cookies, so origins get no credentials.
CORS: dict[str, Any] = {
    "allow_methods": ["GET", "POST", "DELETE"],
    "allow_headers": ["*"],
    "expose_headers": ["Location", "Retry-After", "X-Request-ID", "dg-request-id", "dg-error"],
}
# The first beginning that fits counts.
FAILURE_SHAPES = {
    **dict.fromkeys(
        ("/v1/transcribe", "/v1/stream", "/v1/jobs", "/v1/tokens", "/v1/status"), native_failure
    ),
    "/v1/listen": deepgram_failure,
    "/v1/auth/": deepgram_failure,
    "/v1/": openai_failure,
}


def create_app(
    services: Services, *, send_request_id: bool = True, timing: Timing | None = None
) -> FastAPI:
    """`send_request_id`: whether answers get an `X-Request-ID` here, not from a proxy. `timing`:
    how patient live streams are, if not as usual."""
    app = FastAPI(
        title="whisper_serve",
        version=__version__,
        summary="Self-hosted speech to text with OpenAI Whisper.",
    )
    _add_guards(app, services)
    app.add_middleware(RequestContextMiddleware, send_id=send_request_id)
    has_tls = services.config.server.tls_cert is not None
    app.add_middleware(SecurityHeadersMiddleware, has_tls=has_tls)
    app.add_middleware(MeasuringMiddleware, metrics=services.metrics)
    install_error_handlers(app, FAILURE_SHAPES)
    app.include_router(tokens_router(services))
    app.include_router(transcribe_router(services))
    streaming = services.config.streaming
    admission = Admission(streaming.max_sessions, streaming.max_sessions_per_client)
    services.metrics.read(room_of(admission, streaming.max_sessions, services.door.drain))
    app.include_router(stream_router(services, admission, timing=timing))
    app.include_router(dialects_router(services, admission, timing=timing))
    app.include_router(grant_router(services))
    app.include_router(listen_router(services, admission, timing=timing))
    app.include_router(files_router(services))
    app.include_router(models_router(services))
    app.include_router(realtime_router(services, admission, timing=timing))
    app.include_router(jobs_router(services))
    app.include_router(health_router(services))
    app.include_router(metrics_router(services))
    app.include_router(status_router(services))
    about = {"service": "whisper_serve", "version": __version__, "endpoints": ENDPOINTS}
    app.include_router(web_router(about))
    undescribed = app.openapi
    app.openapi = lambda: describe_keys(undescribed())  # type: ignore[method-assign]
    return app


def _add_guards(app: FastAPI, services: Services) -> None:
    """Who may ask at all; the last is asked first."""
    config, key = services.config, services.signing_key
    gate = Gate(config.auth, (Tokens(key), EphemeralKeys(key)), usage=services.usage)
    app.add_middleware(UploadPaceMiddleware, pace=UploadPace(config.limits.upload_timeout_s))
    app.add_middleware(DrainMiddleware, drain=services.door.drain)
    app.add_middleware(AuthMiddleware, gate=gate)
    origins = config.server.allowed_origins
    app.add_middleware(SocketOriginMiddleware, allowed=origins)
    if origins:
        app.add_middleware(CORSMiddleware, allow_origins=origins, **CORS)
