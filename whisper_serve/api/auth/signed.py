"""Short-lived credentials that a key issues and that stand for it.

They are signed rather than remembered, so any process that has the signing key accepts them.
They hide nothing: whoever has one can read what is in it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from itsdangerous import BadData, URLSafeSerializer

from whisper_serve.errors import InvalidKey


class Signed(NamedTuple):
    """`expires_at`: seconds since 1970."""

    value: str
    expires_at: int


class StandIn(NamedTuple):
    """What stands for the key with the sha256 `key_id`; with a `path` it is good at that
    WebSocket only."""

    key_id: str
    scopes: frozenset[str]
    path: str | None = None


class ReadsStandIns(Protocol):
    """One kind of credential, told by its beginning."""

    prefix: str

    def read(self, credential: str) -> StandIn:
        """Raises `InvalidKey`."""
        ...


class Signer:
    """Signs values of one kind and reads them. `now`: seconds since 1970."""

    def __init__(
        self,
        signing_key: str,
        kind: str,
        *,
        prefix: str,
        noun: str,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`kind` keeps the signatures of one kind apart from those of another; `noun` is what a
        client is told about."""
        self._serializer = URLSafeSerializer(
            signing_key,
            salt=f"whisper_serve.{kind}",
            signer_kwargs={"digest_method": hashlib.sha256},
        )
        self._prefix, self._noun = prefix, noun
        self._now = now

    def sign(self, values: Mapping[str, Any], lifetime_s: int) -> Signed:
        expires_at = int(self._now()) + lifetime_s
        signed = self._serializer.dumps({**values, "expires_at": expires_at})
        return Signed(self._prefix + str(signed), expires_at)

    def read(self, text: str) -> dict[str, Any]:
        """The values. Raises `InvalidKey`."""
        try:
            values: dict[str, Any] = self._serializer.loads(text.removeprefix(self._prefix))
        except BadData as exc:
            raise InvalidKey(f"the {self._noun} was not issued by this service") from exc
        if self._now() >= values["expires_at"]:
            raise InvalidKey(f"the {self._noun} has expired")
        return values
