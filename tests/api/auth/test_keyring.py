"""A key opens what its entry says, and only itself does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.api.auth.holders import RADIO, STREAMER, UNKNOWN, key, keyring
from whisper_serve.api.auth.callers import ANYONE, NOBODY, SCOPES, Caller
from whisper_serve.api.auth.keyring import Keyring
from whisper_serve.keys.making import digest_of, new_key


def test_a_key_finds_its_holder() -> None:
    found = keyring(requests_per_minute=60, max_streams=4, daily_audio_s=3600.0).find(RADIO)
    assert found == Caller(
        name="radio",
        scopes=frozenset({"transcribe", "stream", "jobs"}),
        requests_per_minute=60,
        max_streams=4,
        daily_audio_s=3600.0,
        key_id=digest_of(RADIO),
    )


def test_what_an_entry_leaves_out_is_not_limited() -> None:
    found = keyring().find(STREAMER)
    assert found is not None
    assert found.scopes == {"stream"}
    assert (found.requests_per_minute, found.max_streams, found.daily_audio_s) == (None,) * 3


@pytest.mark.parametrize(
    "shown",
    ["", UNKNOWN, RADIO[:-1], RADIO + "x", RADIO.upper(), digest_of(RADIO), "radio"],
    ids=["nothing", "unknown", "too short", "too long", "in capitals", "its digest", "its name"],
)
def test_nothing_else_is_a_key(shown: str) -> None:
    assert keyring().find(shown) is None


@given(st.text())
def test_no_text_is_a_key_by_chance(shown: str) -> None:
    assert keyring().find(shown) is None


def test_two_keys_of_one_name_are_one_caller() -> None:
    """So that one can take the place of the other while both hold."""
    old, new = new_key(), new_key()
    ring = Keyring([key("radio", old), key("radio", new)])
    holders = [ring.find(shown) for shown in (old, new)]
    assert [holder.name for holder in holders if holder] == ["radio", "radio"]
    assert len({holder.key_id for holder in holders if holder}) == 2


def test_a_holder_is_found_by_its_name_too() -> None:
    found = keyring(max_streams=3).named("radio")
    assert found is not None
    assert found.max_streams == 3
    assert keyring().named("press") is None


def test_what_stands_for_a_key_has_no_more_scopes_than_it() -> None:
    holder = keyring(scopes=["stream"]).find(RADIO)
    assert holder is not None
    stood_for = holder.stood_for(frozenset({"stream", "admin"}))
    assert stood_for.scopes == {"stream"}
    assert stood_for.name == "radio"
    assert holder.is_key
    assert not stood_for.is_key


def test_anyone_may_do_all_and_nobody_nothing() -> None:
    assert ANYONE.scopes == SCOPES == {"transcribe", "stream", "jobs", "admin"}
    assert not NOBODY.scopes
