from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from whisper_serve.text.formats import Cue, cue_text, cues_of, to_srt, to_vtt
from whisper_serve.text.transcript import Segment

Writer = Callable[[Sequence[Segment]], str]

SRT_BLOCK = re.compile(r"(?P<number>\d+)\n(?P<start>\S+) --> (?P<end>\S+)\n(?P<text>.+)\n?")
VTT_BLOCK = re.compile(r"(?P<start>\S+) --> (?P<end>\S+)\n(?P<text>.+)\n?")

# Times as engines give them, those at the edge of a second, and those out of order.
times = st.one_of(
    st.floats(0, 5),
    st.floats(0, 360_000),
    st.integers(0, 7200).map(lambda n: n - 1e-4),
    st.floats(-1, 0),
)
texts = st.one_of(
    st.text(),
    st.text(alphabet="-> \n\r<&;a1"),
    st.sampled_from(["", "  ", "\n", "1\n\n00:00:01,000 --> 00:00:02,000", "NOTE", "WEBVTT"]),
)
segments = st.lists(st.builds(Segment, times, times, texts), max_size=12)


def srt_cues(text: str) -> list[Cue]:
    """What a player reads: blocks between blank lines, numbered from 1."""
    blocks = [b for b in text.split("\n\n") if b]
    found = [re.fullmatch(SRT_BLOCK, block) for block in blocks]
    assert [int(match["number"]) for match in found if match] == [*range(1, len(blocks) + 1)]
    return [
        Cue(milliseconds(match["start"], ","), milliseconds(match["end"], ","), match["text"])
        for match in found
        if match
    ]


def vtt_cues(text: str) -> list[Cue]:
    header, *blocks = text.split("\n\n")
    assert header.rstrip("\n") == "WEBVTT"
    found = [re.fullmatch(VTT_BLOCK, block) for block in blocks]
    assert all(found)
    return [
        Cue(
            milliseconds(match["start"], "."),
            milliseconds(match["end"], "."),
            html.unescape(match["text"]),
        )
        for match in found
        if match
    ]


def milliseconds(stamp: str, point: str) -> int:
    match = re.fullmatch(rf"(\d\d+):([0-5]\d):([0-5]\d){re.escape(point)}(\d{{3}})", stamp)
    assert match, stamp
    hours, minutes, seconds, rest = (int(part) for part in match.groups())
    return ((hours * 60 + minutes) * 60 + seconds) * 1000 + rest


def test_srt_is_written_as_players_expect_it() -> None:
    spoken = [Segment(0.0, 1.5, " Ask not"), Segment(3661.0, 3662.25, " what")]
    assert to_srt(spoken) == (
        "1\n00:00:00,000 --> 00:00:01,500\nAsk not\n\n2\n01:01:01,000 --> 01:01:02,250\nwhat\n"
    )


def test_vtt_is_written_as_browsers_expect_it() -> None:
    spoken = [Segment(0.0, 1.5, " Ask <i> & not"), Segment(3661.0, 3662.25, " what")]
    assert to_vtt(spoken) == (
        "WEBVTT\n"
        "\n"
        "00:00:00.000 --> 00:00:01.500\nAsk &lt;i> &amp; not\n"
        "\n"
        "01:01:01.000 --> 01:01:02.250\nwhat\n"
    )


def test_silence_is_a_valid_file_without_cues() -> None:
    assert to_srt([]) == ""
    assert to_vtt([]) == "WEBVTT\n"


@given(segments)
@example([Segment(59.9996, 59.9999, "a")])
@example([Segment(1, 2, "--->"), Segment(1, 2, "<-->-->>")])
@example([Segment(5, 1, "backwards"), Segment(4, 4, "empty"), Segment(0, 9, "over both")])
def test_written_cues_read_back_as_they_are(spoken: list[Segment]) -> None:
    cues = cues_of(spoken)
    assert srt_cues(to_srt(spoken)) == cues
    assert vtt_cues(to_vtt(spoken)) == cues


@given(segments)
def test_cues_are_in_order_and_never_overlap(spoken: list[Segment]) -> None:
    cues = cues_of(spoken)
    assert all(cue.start_ms < cue.end_ms for cue in cues)
    assert all(cue.end_ms <= later.start_ms for cue, later in pairwise(cues))


@given(segments)
def test_every_segment_that_says_something_has_one_cue(spoken: list[Segment]) -> None:
    said = [" ".join(s.text.split()) for s in spoken if s.text.strip()]
    assert [arrowless(cue.text) for cue in cues_of(spoken)] == [arrowless(text) for text in said]


@given(st.floats(0, 36_000), st.floats(0.01, 30))
def test_times_are_rounded_to_the_nearest_millisecond(start: float, length: float) -> None:
    (cue,) = cues_of([Segment(start, start + length, "a")])
    assert abs(cue.start_ms - start * 1000) <= 0.5001
    assert abs(cue.end_ms - (start + length) * 1000) <= 0.5001


@given(texts)
@example("--->")
@example("- ->-->")
def test_no_text_holds_the_arrow_or_a_line_break(text: str) -> None:
    shown = cue_text(text)
    assert "-->" not in shown
    assert len(shown.splitlines()) <= 1


@pytest.mark.parametrize("write", [to_srt, to_vtt])
def test_no_second_is_ever_sixty(write: Writer) -> None:
    written = write([Segment(59.9995, 119.9999, "a"), Segment(3599.9999, 3600, "b")])
    assert not re.search(r":60|60[.,]", written)


def arrowless(text: str) -> str:
    return re.sub(r"-+>", "", text)
