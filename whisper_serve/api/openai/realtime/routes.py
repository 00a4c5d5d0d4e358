"""`WS /v1/realtime`, and the keys that browsers open it with."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, WebSocket

from whisper_serve.api.admission import Admission
from whisper_serve.api.auth.callers import caller_of
from whisper_serve.api.auth.credentials import shown_key
from whisper_serve.api.auth.signed import Signed
from whisper_serve.api.connection import Connection, Dialect, deny, serve
from whisper_serve.api.json_body import checked, read_object
from whisper_serve.api.live import Timing
from whisper_serve.api.openai.catalog import Catalog
from whisper_serve.api.openai.failures import ErrorOut
from whisper_serve.api.openai.realtime.client_secrets import (
    MAX_BODY_BYTES,
    ClientSecretOut,
    ClientSecretRequest,
    TranscriptionSessionOut,
    TranscriptionSessionRequest,
    inlined,
)
from whisper_serve.api.openai.realtime.configuration import Part, SessionConfig
from whisper_serve.api.openai.realtime.ephemeral_keys import EphemeralKeys, is_ephemeral
from whisper_serve.api.openai.realtime.handshake import Handshake
from whisper_serve.api.openai.realtime.peer import RealtimePeer
from whisper_serve.api.services import Services
from whisper_serve.errors import InvalidKey, WhisperServeError
from whisper_serve.observability.context import current_session_id

# What an event of 15 MiB takes, as the API allows it, which is what servers let through.
MAX_EVENT_CHARS = 16 << 20
ERRORS = {
    400: "Something is unknown or impossible; `param` names it.",
    401: "The request shows an ephemeral key, which issues no others.",
    404: "The model is not served here.",
    408: "The body does not come in time.",
    413: "The body is too large.",
}


def realtime_router(
    services: Services, admission: Admission, *, timing: Timing | None = None
) -> APIRouter:
    timing = timing or Timing()
    router = APIRouter(prefix="/v1/realtime", tags=["OpenAI"])
    catalog, keys = Catalog(services), EphemeralKeys(services.signing_key)

    @router.websocket("")
    async def realtime(socket: WebSocket) -> None:
        try:
            handshake = Handshake.of(socket, keys, catalog)
        except WhisperServeError as exc:
            await deny(socket, exc)
            return
        dialect = _dialect(handshake, services, catalog)
        await serve(socket, dialect, services=services, admission=admission, timing=timing)

    @router.post(
        "/client_secrets",
        summary="A key for a browser",
        responses=_responses(),
        openapi_extra=_body(ClientSecretRequest),
    )
    async def client_secrets(request: Request) -> ClientSecretOut:
        """It opens sessions of `WS /v1/realtime` until it expires, as configured here."""
        wish = checked(ClientSecretRequest, await read_object(request, MAX_BODY_BYTES))
        key = _issued(request, wish.session, wish.expires_after.seconds)
        return ClientSecretOut.of(key, wish.session.shown(catalog.names[0]))

    @router.post(
        "/transcription_sessions",
        summary="A key for a browser, as in the API's beta",
        responses=_responses(),
        openapi_extra=_body(TranscriptionSessionRequest),
    )
    async def transcription_sessions(request: Request) -> TranscriptionSessionOut:
        """The same as `client_secrets`."""
        wish = checked(TranscriptionSessionRequest, await read_object(request, MAX_BODY_BYTES))
        key = _issued(request, wish.session, wish.client_secret.expires_at.seconds)
        return TranscriptionSessionOut.of(key, wish.session.shown(catalog.names[0]))

    def _issued(request: Request, session: SessionConfig, lifetime_s: int) -> Signed:
        if is_ephemeral(shown_key(request)):
            raise InvalidKey("an ephemeral key opens sessions and issues no keys")
        catalog.resolve(session.input.transcription.model)
        return keys.issue(session, lifetime_s, caller_of(request).key_id)

    return router


def _dialect(handshake: Handshake, services: Services, catalog: Catalog) -> Dialect:
    def peer(connection: Connection) -> RealtimePeer:
        return RealtimePeer(
            connection,
            handshake.session,
            session_id=f"sess_{current_session_id()}",
            is_beta=handshake.is_beta,
            catalog=catalog,
            max_backlog_s=services.config.streaming.max_backlog_s,
        )

    return Dialect(
        peer,
        max_text_chars=MAX_EVENT_CHARS,
        idle_timeout_s=services.config.openai.idle_timeout_s,
        subprotocol=handshake.subprotocol,
    )


def _responses() -> dict[int | str, dict[str, Any]]:
    return {
        status: {"model": ErrorOut, "description": description}
        for status, description in ERRORS.items()
    }


def _body(model: type[Part]) -> dict[str, Any]:
    """The body, which FastAPI cannot tell by itself since it is read by hand to keep it
    bounded."""
    schema = inlined(model.model_json_schema())
    return {"requestBody": {"content": {"application/json": {"schema": schema}}}}
