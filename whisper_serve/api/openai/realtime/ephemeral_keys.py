"""Keys that a client's server asks for and its browsers use: short-lived, with the session's
configuration inside.

Such a key is signed rather than remembered, so any process that has the signing key accepts
it. It holds no secret: whoever has the key can read the configuration.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import NamedTuple

from itsdangerous import BadData, URLSafeSerializer

from whisper_serve.api.openai.realtime.configuration import SessionConfig
from whisper_serve.errors import InvalidKey, InvalidParameter

PREFIX = "ek_"
# HTTP servers and proxies take lines of 8 KiB in a request's head, most of them.
MAX_KEY_CHARS = 8_000
DEFAULT_LIFETIME_S = 600


class EphemeralKey(NamedTuple):
    """`expires_at`: seconds since 1970."""

    value: str
    expires_at: int


class EphemeralKeys:
    """Issues keys and reads them. `now`: seconds since 1970."""

    def __init__(self, signing_key: str, now: Callable[[], float] = time.time) -> None:
        self._serializer = URLSafeSerializer(
            signing_key,
            salt="whisper_serve.realtime",
            signer_kwargs={"digest_method": hashlib.sha256},
        )
        self._now = now

    def issue(self, session: SessionConfig, lifetime_s: int) -> EphemeralKey:
        """Raises `InvalidParameter` for a session that no key can hold."""
        expires_at = int(self._now()) + lifetime_s
        values = {"expires_at": expires_at, "session": session.model_dump(mode="json")}
        key = EphemeralKey(PREFIX + str(self._serializer.dumps(values)), expires_at)
        if len(key.value) > MAX_KEY_CHARS:
            raise InvalidParameter("session", "it is too large for a key; shorten its prompt")
        return key

    def session_of(self, key: str) -> SessionConfig:
        """What `key` was issued for. Raises `InvalidKey`."""
        try:
            values = self._serializer.loads(key.removeprefix(PREFIX))
        except BadData as exc:
            raise InvalidKey("the ephemeral key was not issued by this service") from exc
        if self._now() >= values["expires_at"]:
            raise InvalidKey("the ephemeral key has expired")
        return SessionConfig.model_validate(values["session"])


def is_ephemeral(key: str) -> bool:
    return key.startswith(PREFIX)
