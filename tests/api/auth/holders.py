"""Keys for tests, their holders, and services that ask for one."""

from __future__ import annotations

from typing import Any

from whisper_serve.api.auth.gate import Gate
from whisper_serve.api.auth.keyring import Keyring
from whisper_serve.api.auth.signed import ReadsStandIns
from whisper_serve.config import AuthConfig, KeyConfig
from whisper_serve.keys.making import digest_of, new_key

# Nobody can have them by chance, and they open nothing anywhere else.
RADIO, STREAMER, BOSS, UNKNOWN = (new_key() for _ in range(4))


def entry(name: str, key: str, **values: Any) -> dict[str, Any]:
    return {"name": name, "sha256": digest_of(key), **values}


def settings(**radio: Any) -> dict[str, Any]:
    """A service that knows three keys; `radio` says more about the first one's."""
    keys = [
        entry("radio", RADIO, **radio),
        entry("streamer", STREAMER, scopes=["stream"]),
        entry("boss", BOSS, scopes=["admin"]),
    ]
    return {"auth": {"keys": keys}}


def auth(**radio: Any) -> AuthConfig:
    return AuthConfig.model_validate(settings(**radio)["auth"])


def keyring(**radio: Any) -> Keyring:
    return Keyring(auth(**radio).keys)


def key(name: str, shown: str, **values: Any) -> KeyConfig:
    return KeyConfig.model_validate(entry(name, shown, **values))


def gate(*stand_ins: ReadsStandIns, **radio: Any) -> Gate:
    return Gate(auth(**radio), stand_ins)


def bearer(shown: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {shown}"}
