from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whisper import tokenizer

from whisper_serve.text.languages import LANGUAGES, OTHER_NAMES, language_code


def test_the_table_is_that_of_whisper() -> None:
    assert LANGUAGES == tokenizer.LANGUAGES
    assert list(LANGUAGES) == list(tokenizer.LANGUAGES)


def test_every_name_that_whisper_takes_is_known() -> None:
    names = {name: code for code, name in LANGUAGES.items()} | OTHER_NAMES
    assert names == tokenizer.TO_LANGUAGE_CODE


@pytest.mark.parametrize("code", LANGUAGES)
def test_a_language_goes_by_its_code_and_its_name(code: str) -> None:
    assert language_code(code) == code
    assert language_code(LANGUAGES[code]) == code


@pytest.mark.parametrize("name", OTHER_NAMES)
def test_a_language_goes_by_its_other_names(name: str) -> None:
    assert language_code(name) == OTHER_NAMES[name]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("EN", "en"),
        (" English ", "en"),
        ("en-US", "en"),
        ("pt_BR", "pt"),
        ("zh-Hant-TW", "zh"),
        ("haw-US", "haw"),
        ("Haitian Creole", "ht"),
        ("MANDARIN", "zh"),
    ],
)
def test_case_spaces_and_regions_do_not_matter(text: str, code: str) -> None:
    assert language_code(text) == code


@pytest.mark.parametrize("text", ["", " ", "-", "-en", "xx", "klingon", "e n", "en US", "auto"])
def test_what_whisper_does_not_know_is_an_error_that_names_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"does not know the language") as raised:
        language_code(text)
    assert repr(text) in str(raised.value)


@given(st.text())
def test_whatever_is_asked_for_gives_a_known_code_or_an_error(text: str) -> None:
    try:
        code = language_code(text)
    except ValueError:
        return
    assert code in LANGUAGES
