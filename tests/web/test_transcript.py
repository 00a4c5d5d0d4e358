from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.web.browser import Modules, loaded_modules
from tests.web.scripted import ANSWER, SEGMENTS

pytestmark = [pytest.mark.browser, pytest.mark.timeout(60)]

PIECES = "(module, message) => module.piecesOf(message)"
HEAR = """(module, finals) => {
  const transcript = new module.Transcript();
  for (const final of finals) final === "break" ? transcript.break() : transcript.hear(final);
  const { text, paragraphs, isEmpty } = transcript;
  return { text, isEmpty, starts: paragraphs.map(({ start }) => start) };
}"""
OF = """(module, answer) => {
  const transcript = module.Transcript.of(answer);
  return { text: transcript.text, paragraphs: transcript.paragraphs };
}"""


@pytest.fixture(scope="module")
def modules() -> Iterator[Modules]:
    with loaded_modules() as modules:
        yield modules


def word(text: str, start: float = 0.0, end: float = 0.5) -> dict[str, Any]:
    return {"word": text, "start": start, "end": end, "probability": 0.5}


def final(text: str, start: float = 0.0, end: float = 0.5) -> dict[str, Any]:
    words = [word(one, start, end) for one in text.split()]
    return {"text": text, "words": words, "start": start, "end": end, "language": "en"}


# Words in a text


def pieces(modules: Modules, text: str, *words: str) -> list[str] | None:
    found = modules.call("transcript.js", PIECES, {"text": text, "words": list(map(word, words))})
    return None if found is None else [one["text"] for one in found]


def test_words_keep_the_space_before_them(modules: Modules) -> None:
    assert pieces(modules, " one, two ", "one,", "two") == [" one,", " two "]


def test_there_need_be_no_space(modules: Modules) -> None:
    assert pieces(modules, "你好吗", "你", "好", "吗") == ["你", "好", "吗"]


@pytest.mark.parametrize("words", [[], ["one"], ["two"], ["one", "two", "three"], [""]])
def test_words_that_are_not_those_of_the_text_are_not_used(
    modules: Modules, words: list[str]
) -> None:
    assert pieces(modules, "one two", *words) is None


@given(st.lists(st.tuples(st.sampled_from(["", " "]), st.text("abß語.", min_size=1)), min_size=1))
def test_pieces_joined_are_the_text(modules: Modules, words: list[tuple[str, str]]) -> None:
    text = "".join(space + one for space, one in words)
    assert pieces(modules, text, *[one for _, one in words]) == [s + one for s, one in words]


# A stream


def heard(modules: Modules, *finals: Any) -> dict[str, Any]:
    return dict(modules.call("transcript.js", HEAR, finals))


def test_before_the_first_word_there_is_nothing(modules: Modules) -> None:
    assert heard(modules) == {"text": "", "isEmpty": True, "starts": []}


def test_finals_are_joined(modules: Modules) -> None:
    transcript = heard(modules, final("One"), final(" two", 0.5, 1), final(" three", 1, 2))
    assert transcript["text"] == "One two three"
    assert transcript["starts"] == [0]


def test_a_text_without_words_is_text(modules: Modules) -> None:
    transcript = heard(modules, final("One"), {**final(" two", 1, 2), "words": None})
    assert transcript["text"] == "One two"


def test_a_long_pause_begins_a_paragraph(modules: Modules) -> None:
    transcript = heard(modules, final("One"), final(" two", 2.5, 3), final(" three", 4.9, 5))
    assert (transcript["text"], transcript["starts"]) == ("One\ntwo three", [0, 2.5])


def test_a_long_paragraph_ends_with_its_sentence(modules: Modules) -> None:
    texts = ["One.", " two.", " three,", " four.", " five"]
    finals = [final(text, 20.0 * i, 20.0 * i + 19) for i, text in enumerate(texts)]
    assert heard(modules, *finals)["starts"] == [0, 80]


def test_another_recording_begins_a_paragraph(modules: Modules) -> None:
    transcript = heard(modules, "break", final("One"), "break", final("two", 0.5, 1))
    assert transcript["text"] == "One\ntwo"


# A file


def test_a_translation_is_in_english(modules: Modules) -> None:
    of = "(m, answer) => m.Transcript.of(answer, 'en').paragraphs.map(({ language }) => language)"
    assert modules.call("transcript.js", of, {**ANSWER, "language": "de"}) == ["en", "en"]


def test_each_segment_of_a_file_is_a_paragraph_with_its_words(modules: Modules) -> None:
    transcript = modules.call("transcript.js", OF, ANSWER)
    assert transcript["text"].split("\n") == [text for _, text in SEGMENTS]
    words = [one["text"].strip() for p in transcript["paragraphs"] for one in p["pieces"]]
    assert words == [one["word"] for one in ANSWER["words"]]


def test_a_segment_whose_words_do_not_fit_is_shown_without_them(modules: Modules) -> None:
    words = [word("Odd", 0.3, 0.5), *[one for one in ANSWER["words"] if one["start"] > 2]]
    transcript = modules.call("transcript.js", OF, {**ANSWER, "words": words})
    first, second = transcript["paragraphs"]
    assert [one["probability"] for one in first["pieces"]] == [None]
    assert len(second["pieces"]) > 1
    assert transcript["text"].split("\n") == [text for _, text in SEGMENTS]


def test_an_answer_without_speech_is_empty(modules: Modules) -> None:
    answer = {**ANSWER, "text": "", "segments": [], "words": []}
    assert modules.call("transcript.js", OF, answer) == {"text": "", "paragraphs": []}
