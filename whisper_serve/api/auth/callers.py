"""Who asks: the holder of a key, or of something that stands for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import get_args

from starlette.requests import HTTPConnection

from whisper_serve.config import KeyConfig, KeyScope

SCOPES: frozenset[str] = frozenset(get_args(KeyScope))


@dataclass(frozen=True, slots=True)
class Caller:
    """A client and what it may do; a limit of None is none. `daily_audio_s` counts seconds a UTC
    day. `key_id` is the sha256 of the key; `is_key` says whether it was shown itself."""

    name: str
    scopes: frozenset[str]
    requests_per_minute: int | None = None
    max_streams: int | None = None
    daily_audio_s: float | None = None
    key_id: str = ""
    is_key: bool = True

    @classmethod
    def of(cls, key: KeyConfig) -> Caller:
        return cls(
            name=key.name,
            scopes=frozenset(key.scopes),
            requests_per_minute=key.requests_per_minute,
            max_streams=key.max_streams,
            daily_audio_s=key.daily_audio_s,
            key_id=key.sha256,
        )

    def stood_for(self, scopes: frozenset[str]) -> Caller:
        """The holder of what this key has issued, with no more scopes than the key has now."""
        return replace(self, scopes=self.scopes & scopes, is_key=False)


# Everybody, where no keys are asked for; and who shows none where none is needed.
ANYONE = Caller("anyone", SCOPES)
NOBODY = Caller("nobody", frozenset())


def caller_of(connection: HTTPConnection) -> Caller:
    """Whom `AuthMiddleware` has let in."""
    caller: Caller = connection.state.caller
    return caller
