"""A key is found wherever a client may put it, and nothing else is taken for one."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import HTTPConnection

from whisper_serve.api.auth.credentials import SCHEMES, shown_key
from whisper_serve.errors import InvalidKey

# What a subprotocol may be made of. Source: RFC 9110, section 5.6.2.
TOKENS = st.text(string.ascii_letters + string.digits + "-_.~", min_size=1, max_size=60)
LATIN = st.text(st.characters(codec="latin-1"), max_size=40)


def connection(
    headers: Sequence[tuple[str, str]] | Mapping[str, str] = (), offered: Sequence[str] = ()
) -> HTTPConnection:
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in pairs]
    return HTTPConnection({"type": "websocket", "headers": raw, "subprotocols": list(offered)})


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({"Authorization": "Bearer wsk_a"}, "wsk_a"),
        ({"Authorization": "bEARER   wsk_a  "}, "wsk_a"),
        ({"Authorization": "Token wsk_a"}, "wsk_a"),
        ({"X-API-Key": " wsk_a "}, "wsk_a"),
        ({"Authorization": "Bearer wsk_a", "X-API-Key": "wsk_a"}, "wsk_a"),
        ({"Authorization": "Basic dXNlcjpwYXNz", "X-API-Key": "wsk_a"}, "wsk_a"),
        ({"Authorization": "Basic dXNlcjpwYXNz"}, ""),
        ({"Authorization": "wsk_a"}, ""),
        ({"Authorization": "Bearer"}, ""),
        ({"Authorization": "Bearer "}, ""),
        ({"Authorization": ""}, ""),
        ({"X-API-Key": ""}, ""),
        ({}, ""),
    ],
)
def test_a_key_may_be_in_either_header(headers: Mapping[str, str], key: str) -> None:
    assert shown_key(connection(headers)) == key


@pytest.mark.parametrize(
    ("offered", "key"),
    [
        (["whisper-serve", "whisper-serve.key.wsk_a"], "wsk_a"),
        (["whisper-serve.key.wsk_a"], "wsk_a"),
        (["realtime", "openai-insecure-api-key.ek_a.b", "openai-beta.realtime-v1"], "ek_a.b"),
        (["token", "wsk_a"], "wsk_a"),
        (["bearer", "wst_a"], "wst_a"),
        (["Token", "wsk_a"], "wsk_a"),
        (["token"], ""),
        (["whisper-serve"], ""),
        (["whisper-serve.key."], ""),
        (["chat", "token"], ""),
        ([], ""),
    ],
)
def test_a_browser_offers_its_key_as_a_subprotocol(offered: Sequence[str], key: str) -> None:
    assert shown_key(connection(offered=offered)) == key


@pytest.mark.parametrize(
    ("headers", "offered"),
    [
        ([("Authorization", "Bearer a"), ("Authorization", "Bearer b")], []),
        ([("Authorization", "Bearer a"), ("X-API-Key", "b")], []),
        ([("X-API-Key", "a")], ["token", "b"]),
        ([], ["whisper-serve.key.a", "whisper-serve.key.b"]),
    ],
)
def test_two_keys_are_one_too_many(
    headers: Sequence[tuple[str, str]], offered: Sequence[str]
) -> None:
    with pytest.raises(InvalidKey, match="more than one"):
        shown_key(connection(headers, offered))


@given(TOKENS, st.sampled_from(SCHEMES), st.randoms(use_true_random=False))
def test_any_key_comes_back_as_it_was_shown(key: str, scheme: str, random: object) -> None:
    ways = (
        connection({"Authorization": f"{scheme} {key}"}),
        connection({"X-API-Key": key}),
        connection(offered=["whisper-serve", f"whisper-serve.key.{key}"]),
        connection(offered=["realtime", f"openai-insecure-api-key.{key}"]),
        connection(offered=[scheme, key]),
    )
    assert {shown_key(way) for way in ways} == {key}


@given(
    st.lists(st.tuples(st.sampled_from(["Authorization", "X-API-Key"]), LATIN)),
    st.lists(LATIN, max_size=4),
)
def test_whatever_comes_is_a_key_or_none_or_too_many(
    headers: Sequence[tuple[str, str]], offered: Sequence[str]
) -> None:
    try:
        key = shown_key(connection(headers, offered))
    except InvalidKey:
        return
    everything = " ".join([*(value for _, value in headers), *offered])
    assert key in everything
