from __future__ import annotations

import io
import json
from dataclasses import replace
from itertools import pairwise

import pytest
import srt

from whisper_serve.client.answers import Word
from whisper_serve.client.events import Final
from whisper_serve.client.terminal import CLEAR_LINE, DIM, PLAIN, Screen, last_columns, renderer
from whisper_serve.text.formats import to_srt, to_vtt
from whisper_serve.text.transcript import Segment

WORD = Word(word="so", start=0.5, end=1.0, probability=0.5)


def final(text: str, start: float = 0.5, end: float = 1.0) -> Final:
    return Final(start, end, text, (WORD,), "en", 1.0, 0.1)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Pipe(io.StringIO):
    """Remembers what had been written whenever it was flushed."""

    def __init__(self) -> None:
        super().__init__()
        self.flushed: list[str] = []

    def flush(self) -> None:
        self.flushed.append(self.getvalue())


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")


def test_a_partial_is_dimmed_and_takes_the_place_of_the_one_before() -> None:
    out = Terminal()
    screen = Screen(out, out, renderer("text"))
    screen.partial(" so")
    screen.partial(" so it")
    assert out.getvalue() == f"{DIM}so{PLAIN}{CLEAR_LINE}{DIM}so it{PLAIN}"


def test_a_final_takes_the_place_of_the_partial() -> None:
    out = Terminal()
    screen = Screen(out, out, renderer("text"))
    screen.partial("so")
    screen.final(final(" So it is."))
    screen.final(final(" Yes."))
    assert out.getvalue() == f"{DIM}so{PLAIN}{CLEAR_LINE}So it is.\nYes.\n"


def test_an_empty_partial_leaves_nothing() -> None:
    out = Terminal()
    screen = Screen(out, out, renderer("text"))
    screen.partial("so")
    screen.partial("")
    screen.close()
    assert out.getvalue() == f"{DIM}so{PLAIN}{CLEAR_LINE}"


def test_a_remark_does_not_mix_with_a_partial() -> None:
    out, notes = Terminal(), io.StringIO()
    screen = Screen(out, notes, renderer("text"))
    screen.partial("so")
    screen.note("it is\x1b[31m late")
    assert out.getvalue().endswith(CLEAR_LINE)
    assert notes.getvalue() == "it is [31m late\n"


def test_a_partial_that_does_not_fit_shows_its_end() -> None:
    """A line that wraps could not be taken back."""
    out = Terminal()
    Screen(out, out, renderer("text")).partial("one two three four five six")
    assert out.getvalue() == f"{DIM}three four five six{PLAIN}"


def test_what_is_no_terminal_gets_finals_only_and_at_once() -> None:
    out = Pipe()
    screen = Screen(out, out, renderer("text"))
    screen.partial("so")
    screen.final(final(" So it is."))
    screen.partial("yes")
    screen.final(final(" Yes."))
    screen.close()
    assert out.flushed == ["So it is.\n", "So it is.\nYes.\n"]


def test_a_server_cannot_command_the_terminal() -> None:
    out = Terminal()
    screen = Screen(out, out, renderer("text"))
    screen.final(final("so\x1b[2J\r\nit\x07"))
    assert out.getvalue() == "so [2J  it\n"


@pytest.mark.parametrize(("form", "whole"), [("srt", to_srt), ("vtt", to_vtt)])
def test_subtitles_grow_cue_by_cue(form: str, whole: object) -> None:
    out = io.StringIO()
    screen = Screen(out, out, renderer(form))
    segments = [Segment(float(i), i + 0.5, f" Text {i}.") for i in range(12)]
    segments[5] = Segment(5.0, 5.5, " ")
    for count, segment in enumerate(segments, 1):
        screen.final(final(segment.text, segment.start, segment.end))
        assert out.getvalue() == whole(segments[:count])  # type: ignore[operator]


def test_a_long_final_is_cut_into_cues_that_never_overlap_the_next() -> None:
    times = [(i * 0.4, i * 0.4 + 0.3) for i in range(40)]
    words = [Word(word=f"word{i}", start=a, end=b, probability=1) for i, (a, b) in enumerate(times)]
    text = " ".join(word.word for word in words)
    renders = renderer("srt")
    whole = renders(replace(final(text, 0.0, 15.9), words=tuple(words)))
    whole += renders(final("Yes.", 15.9, 16.1))
    cues = list(srt.parse(whole))
    assert len(cues) > 3
    assert all(a.end <= b.start for a, b in pairwise(cues))
    assert " ".join(cue.content.replace("\n", " ") for cue in cues) == f"{text} Yes."


def test_json_is_one_object_a_line() -> None:
    line = renderer("json")(final(" Größe\n"))
    assert line.endswith("\n")
    assert "Größe" in line
    assert json.loads(line) == {
        "start": 0.5,
        "end": 1.0,
        "text": " Größe\n",
        "words": [{"word": "so", "start": 0.5, "end": 1.0, "probability": 0.5}],
        "language": "en",
        "language_probability": 1.0,
        "processing_time": 0.1,
    }


def test_a_final_without_text_is_no_line() -> None:
    assert renderer("text")(final(" ")) == ""


@pytest.mark.parametrize(
    ("text", "columns", "shown"),
    [
        ("abc", 3, "abc"),
        ("abc", 2, "bc"),
        ("abc", 0, ""),
        ("日本語", 5, "本語"),
        ("日本語", 4, "本語"),
        ("e\u0301e\u0301", 1, "e\u0301"),
        ("", 5, ""),
    ],
)
def test_columns_are_counted_as_a_terminal_counts_them(text: str, columns: int, shown: str) -> None:
    assert last_columns(text, columns) == shown
