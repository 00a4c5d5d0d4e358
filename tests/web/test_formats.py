from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.web.browser import Modules, loaded_modules
from whisper_serve.text.formats import to_srt, to_vtt
from whisper_serve.text.languages import LANGUAGES
from whisper_serve.text.transcript import Segment

pytestmark = [pytest.mark.browser, pytest.mark.timeout(60)]

CUES = """async (module, paragraphs) => {
  const { Transcript } = await import("/web/transcript.js");
  return module.cuesOf(Object.assign(new Transcript(), { paragraphs }));
}"""


@pytest.fixture(scope="module")
def modules() -> Iterator[Modules]:
    with loaded_modules() as modules:
        yield modules


def written(modules: Modules, segments: list[Segment]) -> tuple[str, str]:
    """The segments as SRT and as WebVTT."""
    cues = [{"start": one.start, "end": one.end, "text": one.text} for one in segments]
    srt, vtt = modules.call("formats.js", "(m, cues) => [m.toSrt(cues), m.toVtt(cues)]", cues)
    return srt, vtt


def segment(start: float, end: float, text: str) -> Segment:
    return Segment(start, end, text, (), (), 0.0, 0.0, 0.0, 1.0, 0.0)


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


TIMES = st.integers(0, 40_000_000).map(lambda ms: ms / 1000)
SEGMENTS = st.lists(
    st.builds(segment, TIMES, TIMES, st.text("ab ->&<\nß語", max_size=12)), max_size=6
)


@given(SEGMENTS)
def test_the_files_are_those_of_the_service(modules: Modules, segments: list[Segment]) -> None:
    assert written(modules, segments) == (to_srt(segments), to_vtt(segments))


# Cues from words

WORDS = st.lists(
    st.tuples(
        st.text("abc", min_size=1, max_size=9).flatmap(lambda w: st.sampled_from([w, w + "."])),
        st.sampled_from([0.0, 0.1, 0.6, 1.5, 9.0]),
        st.floats(0.05, 2),
    ),
    max_size=40,
)


def paragraph(words: list[tuple[str, float, float]]) -> list[dict[str, Any]]:
    pieces, now = [], 0.0
    for text, pause, length in words:
        start, now = now + pause, now + pause + length
        pieces.append({"text": f" {text}", "start": start, "end": now, "probability": 1})
    return [{"start": 0, "language": "en", "pieces": pieces}] if pieces else []


@given(WORDS)
def test_cues_hold_each_word_once_and_are_short(
    modules: Modules, words: list[tuple[str, float, float]]
) -> None:
    paragraphs = paragraph(words)
    cues = modules.call("formats.js", CUES, paragraphs)
    assert "".join(cue["text"] for cue in cues) == "".join(f" {text}" for text, _, _ in words)
    for cue in cues:
        alone = " " not in cue["text"].strip()
        assert alone or (len(cue["text"].strip()) <= 84 and cue["end"] - cue["start"] <= 7)
        assert cue["start"] < cue["end"]


def test_a_pause_ends_a_cue(modules: Modules) -> None:
    cues = modules.call("formats.js", CUES, paragraph([("a", 0, 0.3), ("b", 1.2, 0.3)]))
    assert [cue["text"] for cue in cues] == [" a", " b"]


def test_a_sentence_ends_a_cue_that_is_not_too_short(modules: Modules) -> None:
    words = [("Go.", 0.0, 0.3), ("On", 0.0, 2.0), ("now.", 0.0, 0.3), ("Yes", 0.0, 0.3)]
    cues = modules.call("formats.js", CUES, paragraph(words))
    assert [cue["text"] for cue in cues] == [" Go. On now.", " Yes"]


def test_languages_are_those_of_the_service(modules: Modules) -> None:
    names = modules.call("languages.js", "(module) => module.LANGUAGES")
    assert {code: name.lower() for code, name in names.items()} == LANGUAGES
