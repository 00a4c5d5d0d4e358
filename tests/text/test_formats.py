from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Sequence
from datetime import timedelta

import pytest
import srt
import webvtt
from hypothesis import example, given

from tests.text.spoken import SEGMENTS, an_hour, timed
from whisper_serve.text.cues import Cue, cues_of
from whisper_serve.text.formats import to_srt, to_vtt
from whisper_serve.text.transcript import Segment

Writer = Callable[[Sequence[Segment]], str]

MILLISECOND = timedelta(milliseconds=1)
TWO_LINES = " Ask <i> & not what your country can do, ask what you can do."


def srt_cues(text: str) -> list[Cue]:
    """As the package `srt` reads them."""
    found = [*srt.parse(text)]
    assert [one.index for one in found] == [*range(1, len(found) + 1)]
    return [
        Cue(one.start // MILLISECOND, one.end // MILLISECOND, (*one.content.split("\n"),))
        for one in found
    ]


def vtt_cues(text: str) -> list[Cue]:
    """As the package `webvtt` reads them."""
    found = webvtt.from_string(text, strict=True).captions
    return [
        Cue(
            one.start_time.in_milliseconds(),
            one.end_time.in_milliseconds(),
            tuple(map(html.unescape, one.lines)),
        )
        for one in found
    ]


def looser_srt_cues(text: str) -> list[Cue]:
    """As `webvtt` reads SRT."""
    found = webvtt.from_buffer(io.StringIO(text), format="srt").captions
    return [
        Cue(one.start_time.in_milliseconds(), one.end_time.in_milliseconds(), (*one.lines,))
        for one in found
    ]


def test_srt_is_written_as_players_expect_it() -> None:
    spoken = [Segment(0.0, 1.5, TWO_LINES), Segment(3661.0, 3662.25, " what")]
    assert to_srt(spoken) == (
        "1\n"
        "00:00:00,000 --> 00:00:01,500\n"
        "Ask <i> & not what your country can do,\n"
        "ask what you can do.\n"
        "\n"
        "2\n"
        "01:01:01,000 --> 01:01:02,250\n"
        "what\n"
    )


def test_vtt_is_written_as_browsers_expect_it() -> None:
    spoken = [Segment(0.0, 1.5, TWO_LINES), Segment(3661.0, 3662.25, " what")]
    assert to_vtt(spoken) == (
        "WEBVTT\n"
        "\n"
        "00:00:00.000 --> 00:00:01.500\n"
        "Ask &lt;i> &amp; not what your country can do,\n"
        "ask what you can do.\n"
        "\n"
        "01:01:01.000 --> 01:01:02.250\n"
        "what\n"
    )


def test_silence_is_a_valid_file_without_cues() -> None:
    assert to_srt([]) == ""
    assert to_vtt([]) == "WEBVTT\n"
    assert vtt_cues(to_vtt([])) == []


@given(SEGMENTS)
@example([Segment(59.9996, 59.9999, "a")])
@example([Segment(1, 2, "--->"), Segment(1, 2, "<-->-->>")])
@example([Segment(0, 9, "1984"), Segment(9, 10, "2\n\n3\n00:00:01,000 --> 00:00:02,000")])
@example(timed((" in", 0, 1), (" 1984", 1, 2), (" 00:00:01,000", 2, 3), (" NOTE", 7, 8)))
def test_written_cues_read_back_as_they_are(spoken: list[Segment]) -> None:
    cues = cues_of(spoken)
    assert srt_cues(to_srt(spoken)) == cues
    assert vtt_cues(to_vtt(spoken)) == cues


@pytest.mark.parametrize("seed", range(3))
def test_an_hour_of_odd_words_reads_back_as_it_is(seed: int) -> None:
    spoken = an_hour(seed)
    cues = cues_of(spoken)
    assert srt_cues(to_srt(spoken)) == cues
    assert looser_srt_cues(to_srt(spoken)) == cues
    assert vtt_cues(to_vtt(spoken)) == cues


@pytest.mark.parametrize("text", ["1984", "00:00:01,000", "00:00:01,000 --> 00:00:02,000", "NOTE"])
def test_a_line_may_look_like_a_number_or_a_time(text: str) -> None:
    spoken = [Segment(0, 2, f"{'x' * 42} {text}"), Segment(2, 4, text)]
    assert [len(cue.lines) for cue in cues_of(spoken)] == [2, 1]
    for cues in (srt_cues(to_srt(spoken)), vtt_cues(to_vtt(spoken))):
        assert [cue.lines[-1] for cue in cues] == [text.replace("-->", "->")] * 2


@pytest.mark.parametrize("write", [to_srt, to_vtt])
def test_no_second_is_ever_sixty(write: Writer) -> None:
    written = write([Segment(59.9995, 119.9999, "a"), Segment(3599.9999, 3600, "b")])
    assert not re.search(r":60|60[.,]|[.,]1000", written)
    assert "00:01:00" in written
    assert "01:00:00" in written
