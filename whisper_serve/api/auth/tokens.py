"""Tokens: what a key's holder gives to browsers instead of the key."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from whisper_serve.api.auth.signed import Signed, Signer, StandIn

PREFIX = "wst_"


class Tokens:
    """Issues tokens and reads them. `now`: seconds since 1970."""

    prefix = PREFIX

    def __init__(self, signing_key: str, now: Callable[[], float] = time.time) -> None:
        self._signer = Signer(signing_key, "token", prefix=PREFIX, noun="token", now=now)

    def issue(self, key_id: str, scopes: Iterable[str], lifetime_s: int) -> Signed:
        return self._signer.sign({"key": key_id, "scopes": sorted(scopes)}, lifetime_s)

    def read(self, credential: str) -> StandIn:
        """Raises `InvalidKey`."""
        values = self._signer.read(credential)
        return StandIn(values["key"], frozenset(values["scopes"]))
