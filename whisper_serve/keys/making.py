"""New keys, and what is kept of them."""

from __future__ import annotations

import hashlib
import secrets

PREFIX = "wsk_"
KEY_BYTES = 32


def new_key() -> str:
    """256 random bits, for its holder alone."""
    return PREFIX + secrets.token_urlsafe(KEY_BYTES)


def digest_of(key: str) -> str:
    """The sha256 of any text, as configurations have it."""
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()
