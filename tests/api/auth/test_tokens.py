"""Tokens stand for their key, for a while, and nobody else can make them."""

from __future__ import annotations

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.api.auth.holders import RADIO, STREAMER, keyring
from whisper_serve.api.auth.callers import ANYONE, Caller
from whisper_serve.api.auth.gate import identify, require
from whisper_serve.api.auth.issuing import Grant, Wish, granted
from whisper_serve.api.auth.keyring import Keyring
from whisper_serve.api.auth.rules import rule_for
from whisper_serve.api.auth.tokens import Tokens
from whisper_serve.api.openai.realtime.configuration import SessionConfig
from whisper_serve.api.openai.realtime.ephemeral_keys import EphemeralKeys
from whisper_serve.errors import InvalidKey, InvalidParameter, ScopeMissing
from whisper_serve.keys.making import digest_of

KEY_ID = digest_of(RADIO)


class Clock:
    now = 1_800_000_000.9

    def __call__(self) -> float:
        return self.now


def caller(shown: str, ring: Keyring | None = None, path: str = "/stream") -> Caller:
    kinds = (Tokens("secret"), EphemeralKeys("secret"))
    return identify(shown, ring or keyring(), kinds, "WS", path)


def test_any_process_with_the_signing_key_reads_what_was_issued() -> None:
    clock = Clock()
    token = Tokens("secret", clock).issue(KEY_ID, ["stream"], 600)
    assert token.value.startswith("wst_")
    assert token.expires_at == 1_800_000_600
    assert Tokens("secret", clock).read(token.value) == (KEY_ID, frozenset({"stream"}), None)


def test_a_token_is_good_until_it_expires() -> None:
    clock = Clock()
    tokens = Tokens("secret", clock)
    token = tokens.issue(KEY_ID, ["stream"], 10)
    clock.now = token.expires_at - 0.01
    assert tokens.read(token.value).key_id == KEY_ID
    clock.now = token.expires_at
    with pytest.raises(InvalidKey, match="the token has expired"):
        tokens.read(token.value)


@given(st.integers(0, 1_000), st.integers(1, 255))
@hypothesis.settings(max_examples=50)
def test_no_byte_of_a_token_can_be_changed(place: int, change: int) -> None:
    tokens = Tokens("secret")
    token = bytearray(tokens.issue(KEY_ID, ["stream"], 600).value.encode())
    at = len("wst_") + place % (len(token) - len("wst_"))
    token[at] = (token[at] + change) % 256
    try:
        read = tokens.read(token.decode("latin-1"))
    except InvalidKey:
        return
    # Base64 has bits at its end that nobody reads.
    assert at == len(token) - 1
    assert read.key_id == KEY_ID


@pytest.mark.parametrize("made", ["wst_", "wst_a.b", "wst_" + "A" * 20_000])
def test_what_was_never_a_token_is_none(made: str) -> None:
    with pytest.raises(InvalidKey):
        caller(made)


def test_a_token_is_no_ephemeral_key_and_the_other_way_round() -> None:
    token = Tokens("secret").issue(KEY_ID, ["stream"], 600).value
    ephemeral = EphemeralKeys("secret").issue(SessionConfig(), 600, KEY_ID).value
    for wrong in (token.replace("wst_", "ek_"), ephemeral.replace("ek_", "wst_")):
        with pytest.raises(InvalidKey, match="not issued"):
            caller(wrong)


def test_its_holder_is_that_of_the_key_with_the_same_limits() -> None:
    ring = keyring(max_streams=3)
    holder = caller(Tokens("secret").issue(KEY_ID, ["stream", "admin"], 600).value, ring)
    assert (holder.name, holder.max_streams) == ("radio", 3)
    assert holder.scopes == {"stream"}
    assert not holder.is_key


def test_the_tokens_of_a_revoked_key_die_with_it() -> None:
    token = Tokens("secret").issue(KEY_ID, ["stream"], 600).value
    ephemeral = EphemeralKeys("secret").issue(SessionConfig(), 600, KEY_ID).value
    for shown, path in ((token, "/stream"), (ephemeral, "/v1/realtime")):
        assert caller(shown, path=path).name == "radio"
        with pytest.raises(InvalidKey, match="not known any more"):
            caller(shown, Keyring(()), path)


def test_an_ephemeral_key_opens_realtime_streams_and_nothing_else() -> None:
    ephemeral = EphemeralKeys("secret").issue(SessionConfig(), 600, KEY_ID).value
    assert caller(ephemeral, path="/v1/realtime").scopes == {"stream"}
    for method, path in [
        ("WS", "/stream"),
        ("WS", "/v1/listen"),
        ("POST", "/transcribe"),
        ("POST", "/v1/realtime/client_secrets"),
        ("GET", "/v1/models"),
    ]:
        with pytest.raises(InvalidKey, match="nothing else"):
            identify(ephemeral, keyring(), [EphemeralKeys("secret")], method, path)


@pytest.mark.parametrize("path", ["/v1/tokens", "/v1/auth/grant", "/v1/realtime/client_secrets"])
def test_only_a_key_itself_issues_anything(path: str) -> None:
    """A token could else live for ever, by others that it asks for."""
    rule = rule_for("POST", path)
    require(caller(RADIO), rule)
    token = Tokens("secret").issue(KEY_ID, ["transcribe", "stream"], 600).value
    with pytest.raises(InvalidKey, match="show the key itself"):
        require(caller(token), rule)


# What is granted


def test_nothing_chosen_is_what_a_page_needs_for_as_long_as_is_allowed() -> None:
    assert granted(Wish(None), caller(RADIO), 600) == Grant(600, ("transcribe", "stream"))
    assert granted(Wish(None), caller(STREAMER), 600) == Grant(600, ("stream",))
    assert granted(Wish(None), ANYONE, 600) == Grant(600, ("transcribe", "stream"))


def test_less_can_be_chosen() -> None:
    wish = Wish(60, ["stream", "stream"])
    assert granted(wish, caller(RADIO), 600) == Grant(60, ("stream",))


def test_more_than_the_key_has_is_refused() -> None:
    with pytest.raises(ScopeMissing, match="'admin'"):
        granted(Wish(60, ["admin"]), caller(RADIO), 600)
    boss = Caller("boss", frozenset({"admin"}))
    with pytest.raises(ScopeMissing):
        granted(Wish(None), boss, 600)
    with pytest.raises(InvalidParameter, match="ttl: at most 600"):
        granted(Wish(601, parameter="ttl"), caller(RADIO), 600)
