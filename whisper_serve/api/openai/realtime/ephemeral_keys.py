"""Keys that a client's server asks for and its browsers use: short-lived, with the session's
configuration inside. They stand for the key that asked for them, at `/v1/realtime` alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from whisper_serve.api.auth.signed import Signed, Signer, StandIn
from whisper_serve.api.openai.realtime.configuration import SessionConfig
from whisper_serve.errors import InvalidParameter

PREFIX = "ek_"
PATH = "/v1/realtime"
# HTTP servers and proxies take lines of 8 KiB in a request's head, most of them.
MAX_KEY_CHARS = 8_000
DEFAULT_LIFETIME_S = 600


class EphemeralKeys:
    """Issues keys and reads them. `now`: seconds since 1970."""

    prefix = PREFIX

    def __init__(self, signing_key: str, now: Callable[[], float] = time.time) -> None:
        self._signer = Signer(signing_key, "realtime", prefix=PREFIX, noun="ephemeral key", now=now)

    def issue(self, session: SessionConfig, lifetime_s: int, key_id: str = "") -> Signed:
        """`key_id`: of the key that asks. Raises `InvalidParameter` for a session that no key
        can hold."""
        values = {"key": key_id, "session": session.model_dump(mode="json")}
        key = self._signer.sign(values, lifetime_s)
        if len(key.value) > MAX_KEY_CHARS:
            raise InvalidParameter("session", "it is too large for a key; shorten its prompt")
        return key

    def session_of(self, key: str) -> SessionConfig:
        """What `key` was issued for. Raises `InvalidKey`."""
        return SessionConfig.model_validate(self._signer.read(key)["session"])

    def read(self, credential: str) -> StandIn:
        """Raises `InvalidKey`."""
        return StandIn(self._signer.read(credential)["key"], frozenset({"stream"}), PATH)


def is_ephemeral(key: str) -> bool:
    return key.startswith(PREFIX)
