from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.web.browser import Modules, loaded_modules
from whisper_serve.text.formats import to_srt, to_vtt
from whisper_serve.text.languages import LANGUAGES
from whisper_serve.text.transcript import Segment, Word

pytestmark = [pytest.mark.browser, pytest.mark.timeout(60)]

WRITE = "(module, pieces) => [module.toSrt({ pieces }), module.toVtt({ pieces })]"


@pytest.fixture(scope="module")
def modules() -> Iterator[Modules]:
    with loaded_modules() as modules:
        yield modules


def pieces_of(segments: list[Segment]) -> list[dict[str, Any]]:
    """What the page has of them: words, or a segment whose words have no times."""
    return [
        {
            "text": one.text,
            "start": one.start,
            "end": one.end,
            "probability": one.probability if isinstance(one, Word) else None,
        }
        for segment in segments
        for one in (segment.words or (segment,))
    ]


def written(modules: Modules, segments: list[Segment]) -> tuple[str, str]:
    """The segments as SRT and as WebVTT."""
    srt, vtt = modules.call("formats.js", WRITE, pieces_of(segments))
    return srt, vtt


def segment(start: float, end: float, text: str) -> Segment:
    return Segment(start, end, text)


def spoken(words: list[tuple[str, float, float]]) -> Segment:
    """A segment of (text, pause before it in s, length in s)."""
    found, now = [], 0.0
    for text, pause_s, length_s in words:
        start, now = now + pause_s, now + pause_s + length_s
        found.append(Word(text, start, now, 1.0))
    return Segment(0.0, now, "".join(text for text, _, _ in words), tuple(found))


def test_no_second_is_ever_a_thousand_milliseconds(modules: Modules) -> None:
    srt, vtt = written(modules, [segment(3599.9996, 3659.9999, " Now & <then>")])
    assert srt == "1\n01:00:00,000 --> 01:01:00,000\nNow & <then>\n"
    assert vtt == "WEBVTT\n\n01:00:00.000 --> 01:01:00.000\nNow &amp; &lt;then>\n"


def test_an_arrow_in_the_text_is_not_that_of_a_header(modules: Modules) -> None:
    for text in written(modules, [segment(0, 1, "a --> b\n---> c")]):
        assert text.count("-->") == 1
        assert "a -> b -> c" in text


def test_nothing_said_is_a_file_all_the_same(modules: Modules) -> None:
    assert written(modules, []) == ("", "WEBVTT\n")


def test_a_cue_has_two_lines_of_at_most_42_columns(modules: Modules) -> None:
    text = "It was the best of times, it was the worst of times, it was the age of wisdom."
    words = [(f" {word}", 0.0, 0.3) for word in text.split()]
    srt, _ = written(modules, [spoken(words)])
    assert srt == (
        "1\n00:00:00,000 --> 00:00:05,400\n"
        "It was the best of times, it was the worst\nof times, it was the age of wisdom.\n"
    )


# The same as the service writes

MARKS = ["", "", "", ".", ",", "?", "...", '."', "!)", ":", "-", "。", "、", "»", "…"]
LETTERS = "abcABCßéжЯ語日本ぁッเ一가🎉'\u0301\u200d\u00ad\ufe0f²½ªⅧ()<&¿«-—.,0٣\ue000"
TOKENS = st.one_of(
    st.text("abcdefgh", min_size=1, max_size=14),
    st.sampled_from(
        ["Mr.", "Dr.", "A.", "e.g.", "I.", "3", ".5", "O'", "-", "—", "»", "¿Qué", "!"]
    ),
    st.text(LETTERS, min_size=1, max_size=8),
    st.text("日本語のッ、。", min_size=1, max_size=60),
    st.just("Donaudampfschifffahrtsgesellschaftskapitänsmütze"),
)
TEXTS = st.builds(
    lambda space, token, mark, end: f"{space}{token}{mark}{end}",
    st.sampled_from([" ", " ", " ", "", "\n", "\u00a0", "\u3000", " \t"]),
    TOKENS,
    st.sampled_from(MARKS),
    st.sampled_from(["", "", "", " "]),
)
WORDS = st.lists(
    st.tuples(TEXTS, st.sampled_from([0.0, 0.0, 0.02, 0.3, 0.6, 1.5, 9.0]), st.floats(0.0, 2.0)),
    min_size=1,
    max_size=60,
)


@given(WORDS)
def test_cues_of_words_are_those_of_the_service(
    modules: Modules, words: list[tuple[str, float, float]]
) -> None:
    segments = [spoken(words)]
    assert written(modules, segments) == (to_srt(segments), to_vtt(segments))


SENTENCES = """
It was the best of times, it was the worst of times, it was the age of wisdom;
Mr. A. Smith said: “No — never!” (He'd left at 3 p.m., I think.) ¿Qué tal? Très bien !
Donaudampfschifffahrt ist lang. 日本語の文章は、空白なしで書かれます。 はい。
"""


@pytest.mark.parametrize("longest_s", [0.1, 0.25, 0.6, 1.6, 3.0])
def test_long_speech_is_cut_as_the_service_cuts_it(modules: Modules, longest_s: float) -> None:
    """However fast somebody speaks: the one is too fast to read, the other too slow for a cue."""
    chance, words_said = random.Random(f"{longest_s}"), SENTENCES.split()
    words = [
        (
            f" {chance.choice(words_said)}",
            chance.choice([0.0, 0.0, 0.0, 0.05, 0.31, 1.2]),
            chance.uniform(0.3 * longest_s, longest_s),
        )
        for _ in range(600)
    ]
    segments = [spoken(words[:300]), segment(2000.0, 2003.0, " without words."), spoken(words)]
    assert written(modules, segments) == (to_srt(segments), to_vtt(segments))


TIMES = st.one_of(
    st.integers(0, 40_000_000).map(lambda ms: ms / 1000),
    st.sampled_from([-1.0, 0.0625, 0.1875, 1e9]),  # half a millisecond; what is no time
)
SEGMENTS = st.lists(
    st.one_of(
        st.builds(segment, TIMES, TIMES, st.text("ab ->&<\nß語\x85\ufeff", max_size=12)),
        st.builds(segment, TIMES, TIMES, st.lists(TEXTS, max_size=30).map("".join)),
        WORDS.map(lambda words: spoken(words[:5])),
    ),
    max_size=6,
)


@given(SEGMENTS)
def test_the_files_are_those_of_the_service(modules: Modules, segments: list[Segment]) -> None:
    kept = [one for one in segments if one.words or one.text]
    assert written(modules, kept) == (to_srt(kept), to_vtt(kept))


def test_languages_are_those_of_the_service(modules: Modules) -> None:
    names = modules.call("languages.js", "(module) => module.LANGUAGES")
    assert {code: name.lower() for code, name in names.items()} == LANGUAGES
