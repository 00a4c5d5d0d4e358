from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisper_serve.text.normalize import normalize_word


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (" Ask", "ask,"),
        (" don't", "Don’t"),
        (" (well-known)", "wellknown"),
        (" STRASSE", "Straße"),
        (" café", "cafe\N{COMBINING ACUTE ACCENT}"),
        (" Ｗｈｉｓｐｅｒ", "Whisper"),  # noqa: RUF001
        (" ΟΔΟΣ", "οδος"),
        (" 1,000", "1000."),
    ],
)
def test_words_that_sound_the_same_compare_equal(one: str, other: str) -> None:
    assert normalize_word(one) == normalize_word(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("ask", "asked"), ("cafe", "café"), ("1", "2"), ("की", "का"), ("นา", "นี")],
)
def test_words_that_sound_different_do_not(one: str, other: str) -> None:
    assert normalize_word(one) != normalize_word(other)


def test_punctuation_alone_is_nothing() -> None:
    assert normalize_word(" -- ...?!") == ""


@given(st.text())
def test_a_normal_word_is_its_own_normal_form(text: str) -> None:
    once = normalize_word(text)
    assert normalize_word(once) == once


@given(st.text())
def test_the_encoding_of_accents_does_not_matter(text: str) -> None:
    decomposed = unicodedata.normalize("NFD", text)
    assert normalize_word(decomposed) == normalize_word(unicodedata.normalize("NFC", text))
