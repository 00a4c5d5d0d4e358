"""What a client says before its session begins: its key, its model, how it speaks."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import WebSocket

from whisper_serve.api.auth.credentials import offered_by, shown_key
from whisper_serve.api.openai.catalog import Catalog
from whisper_serve.api.openai.realtime.configuration import SessionConfig
from whisper_serve.api.openai.realtime.ephemeral_keys import EphemeralKeys, is_ephemeral
from whisper_serve.errors import InvalidParameter

SUBPROTOCOL = "realtime"
# Browsers cannot set headers, so they say it as a subprotocol.
BETA_SUBPROTOCOL = "openai-beta.realtime-v1"
BETA_HEADER, BETA = "OpenAI-Beta", "realtime=v1"
PARAMETERS = ("intent", "model")


@dataclass(frozen=True, slots=True)
class Handshake:
    """A client that may have a session."""

    session: SessionConfig
    is_beta: bool
    subprotocol: str | None

    @classmethod
    def of(cls, socket: WebSocket, keys: EphemeralKeys, catalog: Catalog) -> Handshake:
        """Raises `InvalidKey`, `InvalidParameter` or `ModelNotFound`."""
        offered = offered_by(socket)
        key = shown_key(socket)
        session = keys.session_of(key) if is_ephemeral(key) else SessionConfig()
        _require_intent(socket, has_key=is_ephemeral(key))
        model = socket.query_params.get("model")
        if model:
            catalog.resolve(model)
            chosen = {"audio": {"input": {"transcription": {"model": model}}}}
            session = session.updated(chosen)
        return cls(
            session,
            is_beta=BETA in socket.headers.get(BETA_HEADER, "") or BETA_SUBPROTOCOL in offered,
            subprotocol=SUBPROTOCOL if SUBPROTOCOL in offered else None,
        )


def _require_intent(socket: WebSocket, *, has_key: bool) -> None:
    for name, _ in socket.query_params.multi_items():
        if name not in PARAMETERS:
            raise InvalidParameter(name, f"unknown parameter; known: {', '.join(PARAMETERS)}")
    intent = socket.query_params.get("intent")
    # What a key was issued for is known.
    if intent != "transcription" and not (intent is None and has_key):
        raise InvalidParameter("intent", "only 'transcription' is served")
