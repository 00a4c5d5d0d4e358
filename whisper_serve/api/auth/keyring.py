"""The keys that are known, by their digests."""

from __future__ import annotations

import hmac
from collections.abc import Iterable

from whisper_serve.api.auth.callers import Caller
from whisper_serve.config import KeyConfig
from whisper_serve.keys.making import digest_of


class Keyring:
    """Finds the holder of a key.

    Keys are kept as sha256, without salt and without a slow hash: those protect what people
    think up, since it can be guessed. A key is 256 random bits, which nobody guesses however fast
    the hash is, and every request has to be answered at once.
    """

    def __init__(self, keys: Iterable[KeyConfig]) -> None:
        self._callers = tuple(map(Caller.of, keys))

    def find(self, key: str) -> Caller | None:
        return self.holder(digest_of(key))

    def named(self, name: str) -> Caller | None:
        """Who has a key of this name."""
        return next((caller for caller in self._callers if caller.name == name), None)

    def holder(self, key_id: str) -> Caller | None:
        """The holder of the key with this sha256. All are compared, and in constant time, so
        that the time of an answer tells nothing about digests."""
        found = None
        for caller in self._callers:
            if hmac.compare_digest(caller.key_id, key_id):
                found = caller
        return found
