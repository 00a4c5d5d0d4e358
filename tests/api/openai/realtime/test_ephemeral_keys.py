"""Keys hold what they were issued for, for a while, and nobody else can make them."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.api.openai.realtime.lines import session
from whisper_serve.api.openai.realtime.configuration import SessionConfig
from whisper_serve.api.openai.realtime.ephemeral_keys import (
    MAX_KEY_CHARS,
    EphemeralKeys,
    is_ephemeral,
)
from whisper_serve.errors import InvalidKey, InvalidParameter

# What a subprotocol may be made of. Source: RFC 9110, section 5.6.2.
TOKEN = set(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~")
SOME = session(
    format={"type": "audio/pcmu"},
    transcription={"model": "tiny", "languages": ["de"], "keywords": ["Grüezi"]},
    turn_detection=None,
).updated({"include": ["item.input_audio_transcription.logprobs"]})


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.9

    def __call__(self) -> float:
        return self.now


def test_any_process_with_the_signing_key_reads_what_was_issued() -> None:
    clock = Clock()
    key = EphemeralKeys("secret", clock).issue(SOME, 600)
    assert is_ephemeral(key.value)
    assert key.expires_at == 1_800_000_600
    assert EphemeralKeys("secret", clock).session_of(key.value) == SOME


@given(st.text(max_size=300), st.lists(st.text(max_size=20), max_size=5))
def test_a_key_fits_where_browsers_put_it(prompt: str, keywords: list[str]) -> None:
    keys = EphemeralKeys("secret")
    try:
        config = session(transcription={"prompt": prompt, "keywords": keywords})
    except InvalidParameter:  # half of a surrogate pair
        return
    key = keys.issue(config, 600).value
    assert set(key) <= TOKEN
    assert keys.session_of(key) == config


def test_a_key_is_good_until_it_expires() -> None:
    clock = Clock()
    keys = EphemeralKeys("secret", clock)
    key = keys.issue(SessionConfig(), 10)
    clock.now = key.expires_at - 0.01
    assert keys.session_of(key.value) == SessionConfig()
    clock.now = key.expires_at
    with pytest.raises(InvalidKey, match="expired"):
        keys.session_of(key.value)


def test_the_key_of_another_service_is_none() -> None:
    key = EphemeralKeys("another").issue(SessionConfig(), 600).value
    with pytest.raises(InvalidKey, match="not issued"):
        EphemeralKeys("secret").session_of(key)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_no_byte_of_a_key_can_be_changed(place: int, change: int) -> None:
    keys = EphemeralKeys("secret")
    key = bytearray(keys.issue(SOME, 600).value.encode())
    at = len("ek_") + place % (len(key) - len("ek_"))
    key[at] = (key[at] + change) % 256
    try:
        assert keys.session_of(key.decode("latin-1")) == SOME
    except InvalidKey:
        return
    # Base64 has bits at its end that nobody reads.
    assert at == len(key) - 1


@pytest.mark.parametrize("key", ["ek_", "ek_.", "ek_a.b", "ek_ä", "ek_" + "A" * 20_000])
def test_what_was_never_a_key_is_none(key: str) -> None:
    with pytest.raises(InvalidKey):
        EphemeralKeys("secret").session_of(key)


def test_a_key_that_no_header_holds_is_not_issued() -> None:
    prompt = "".join(chr(0x4E00 + number * 7 % 20_000) for number in range(4_000))
    with pytest.raises(InvalidParameter, match="prompt") as refused:
        EphemeralKeys("secret").issue(session(transcription={"prompt": prompt}), 600)
    assert refused.value.parameter == "session"
    long = "A quick brown fox jumps over the lazy dog. " * 90
    key = EphemeralKeys("secret").issue(session(transcription={"prompt": long}), 600)
    assert len(key.value) < MAX_KEY_CHARS
