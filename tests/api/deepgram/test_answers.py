from __future__ import annotations

import re
import uuid
from datetime import datetime

import pytest

from whisper_serve.api.deepgram.answers import ServedModel, Writing, bare_word, created_now
from whisper_serve.text.transcript import Word

WORDS = (Word(" Don't", 0.1004, 0.6, 0.91236), Word(" stop!", 0.6, 1.0, 0.8))
TEXT = " Don't stop!"


@pytest.mark.parametrize(
    ("written", "bare"),
    [
        (" Hello,", "hello"),
        (" don't", "don't"),
        (" \"We'll", "we'll"),
        (" 3.5%", "3.5"),
        (" twenty-one.", "twenty-one"),
        (" ¿Qué?", "qué"),
        (" ΟΔΌΣ", "οδός"),
        (" हिन्दी।", "हिन्दी"),
        ("東京、", "東京"),
        (" ...", ""),
        (" &", ""),
        ("", ""),
    ],
)
def test_a_bare_word_has_lower_case_and_nothing_around_it(written: str, bare: str) -> None:
    assert bare_word(written) == bare


def test_formatted_text_is_whisper_s_own() -> None:
    written = Writing(formatted=True, multilingual=False).alternative(TEXT, WORDS, "en")
    assert written.model_dump(exclude_none=True) == {
        "transcript": "Don't stop!",
        "confidence": 0.8562,
        "words": [
            {
                "word": "don't",
                "start": 0.1,
                "end": 0.6,
                "confidence": 0.9124,
                "punctuated_word": "Don't",
            },
            {
                "word": "stop",
                "start": 0.6,
                "end": 1.0,
                "confidence": 0.8,
                "punctuated_word": "stop!",
            },
        ],
    }


def test_bare_text_is_bare_words() -> None:
    written = Writing(formatted=False, multilingual=False).alternative(TEXT, WORDS, "en")
    assert written.transcript == "don't stop"
    assert [word.punctuated_word for word in written.words] == [None, None]


def test_a_mark_that_nobody_speaks_is_no_word_but_stays_in_formatted_text() -> None:
    words = (WORDS[0], Word(" &", 0.6, 0.7, 0.1), WORDS[1])
    bare, formatted = (
        Writing(formatted, multilingual=False).alternative(" Don't & stop!", words)
        for formatted in (False, True)
    )
    assert bare.transcript == "don't stop"
    assert formatted.transcript == "Don't & stop!"
    assert [word.word for word in formatted.words] == ["don't", "stop"]
    assert bare.confidence == 0.8562


def test_without_words_there_is_no_confidence() -> None:
    written = Writing(formatted=True, multilingual=True).alternative("", (), "en")
    assert written.model_dump(exclude_none=True) == {
        "transcript": "",
        "confidence": 0.0,
        "words": [],
    }


def test_only_multilingual_results_tell_their_language() -> None:
    for multilingual, told in ((True, ["de"]), (False, None)):
        written = Writing(formatted=False, multilingual=multilingual)
        assert written.alternative(TEXT, WORDS, "de").languages == told


def test_a_model_has_the_same_id_everywhere_and_another_model_has_another() -> None:
    assert ServedModel("base").uuid == ServedModel("base").uuid != ServedModel("small").uuid
    assert uuid.UUID(ServedModel("base").uuid).version == 5
    assert ServedModel("base").info.name == "base"


def test_the_time_of_creation_is_told_in_utc() -> None:
    created = created_now()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", created)
    assert datetime.strptime(created, "%Y-%m-%dT%H:%M:%S.%f%z").tzinfo is not None
