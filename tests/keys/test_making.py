"""Keys are random, fit into headers and subprotocols, and are kept as digests."""

from __future__ import annotations

import hashlib
import string

from hypothesis import given
from hypothesis import strategies as st

from whisper_serve.keys.making import digest_of, new_key


def test_a_key_has_256_random_bits() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(key.startswith("wsk_") and len(key) == len("wsk_") + 43 for key in keys)


def test_a_key_can_be_a_header_s_value_and_a_subprotocol() -> None:
    allowed = set(string.ascii_letters + string.digits + "-_")
    assert all(set(new_key()) <= allowed for _ in range(100))


def test_its_digest_is_what_any_tool_prints() -> None:
    assert digest_of("wsk_a") == hashlib.sha256(b"wsk_a").hexdigest()


@given(st.text(st.characters()))
def test_any_text_has_a_digest(text: str) -> None:
    assert len(digest_of(text)) == 64
