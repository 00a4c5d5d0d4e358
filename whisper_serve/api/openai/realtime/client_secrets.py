"""What the routes that issue ephemeral keys take and give, in today's form and in the beta's."""

from __future__ import annotations

import uuid
from typing import Any, Literal

from pydantic import Field

from whisper_serve.api.auth.signed import Signed
from whisper_serve.api.openai.realtime.configuration import (
    Include,
    Part,
    SessionConfig,
    Settings,
)
from whisper_serve.api.openai.realtime.ephemeral_keys import DEFAULT_LIFETIME_S
from whisper_serve.api.openai.realtime.flat import FlatSession, flattened
from whisper_serve.api.openai.realtime.server_events import SESSION_OBJECT

# More than all texts that a session can hold.
MAX_BODY_BYTES = 1 << 17


class ExpiresAfter(Settings):
    """How long a key can be used to begin sessions."""

    anchor: Literal["created_at"] = "created_at"
    seconds: int = Field(DEFAULT_LIFETIME_S, ge=10, le=7_200, strict=True)


class ClientSecretRequest(Settings):
    """The body of `POST /v1/realtime/client_secrets`."""

    expires_after: ExpiresAfter = ExpiresAfter()
    session: SessionConfig = SessionConfig()


class ClientSecretWish(Settings):
    expires_at: ExpiresAfter = ExpiresAfter()


class TranscriptionSessionRequest(FlatSession):
    """The body of `POST /v1/realtime/transcription_sessions`."""

    client_secret: ClientSecretWish = ClientSecretWish()


class SessionOut(Part):
    """A session as it will begin. `expires_at` is null: it lasts as long as its client."""

    id: str
    object: Literal["realtime.transcription_session"] = SESSION_OBJECT
    type: Literal["transcription"] = "transcription"
    expires_at: int | None = None
    audio: dict[str, Any]
    include: Include


class ClientSecretOut(Part):
    """A key, and the session that it opens. `expires_at`: seconds since 1970."""

    value: str
    expires_at: int
    session: SessionOut

    @classmethod
    def of(cls, key: Signed, shown: dict[str, Any]) -> ClientSecretOut:
        session = SessionOut(id=new_session_id(), **shown)
        return cls(value=key.value, expires_at=key.expires_at, session=session)


class KeyOut(Part):
    value: str
    expires_at: int


class TranscriptionSessionOut(Part):
    """The same in the beta's form."""

    id: str
    object: Literal["realtime.transcription_session"] = SESSION_OBJECT
    expires_at: int | None = None
    input_audio_format: str
    input_audio_transcription: dict[str, Any]
    turn_detection: dict[str, Any] | None
    input_audio_noise_reduction: None = None
    include: Include
    client_secret: KeyOut

    @classmethod
    def of(cls, key: Signed, shown: dict[str, Any]) -> TranscriptionSessionOut:
        secret = KeyOut(value=key.value, expires_at=key.expires_at)
        return cls(id=new_session_id(), client_secret=secret, **flattened(shown))


def new_session_id() -> str:
    return f"sess_{uuid.uuid4().hex}"


def inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """A JSON schema with each definition where it is used, to stand within another document."""
    definitions = schema.pop("$defs", {})

    def resolved(node: Any) -> Any:
        if isinstance(node, list):
            return [resolved(part) for part in node]
        if not isinstance(node, dict):
            return node
        reference = node.get("$ref", "").removeprefix("#/$defs/")
        rest = {name: resolved(part) for name, part in node.items() if name != "$ref"}
        return {**resolved(definitions[reference]), **rest} if reference else rest

    return resolved(schema)  # type: ignore[no-any-return]
