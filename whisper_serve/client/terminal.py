"""How a transcript that grows is shown: in a terminal, or written to a pipe or a file."""

from __future__ import annotations

import dataclasses
import json
import shutil
import unicodedata
from collections.abc import Callable
from typing import TextIO

from whisper_serve.client.events import Final
from whisper_serve.text.formats import to_srt, to_vtt
from whisper_serve.text.transcript import Segment

CLEAR_LINE = "\r\x1b[2K"
DIM, PLAIN = "\x1b[2m", "\x1b[0m"


class Screen:
    """Writes what is final to `out`, at once. In a terminal a line below it shows, dimmed,
    what may still change.

    `render`: what to write for one more `Final`. `notes`: where remarks go, one a line.
    """

    def __init__(self, out: TextIO, notes: TextIO, render: Callable[[Final], str]) -> None:
        self._out, self._notes, self._render = out, notes, render
        self._is_terminal = out.isatty()
        self._shown = False

    def partial(self, text: str) -> None:
        if not self._is_terminal:
            return
        line = last_columns(printable(text).strip(), shutil.get_terminal_size().columns - 1)
        self._clear()
        self._shown = bool(line)
        if line:
            self._write(f"{DIM}{line}{PLAIN}")

    def final(self, final: Final) -> None:
        text = self._render(final)
        self._clear()
        if text:
            self._write(text)

    def note(self, text: str) -> None:
        self._clear()
        self._notes.write(f"{printable(text)}\n")
        self._notes.flush()

    def close(self) -> None:
        self._clear()

    def _clear(self) -> None:
        if self._shown:
            self._write(CLEAR_LINE)
            self._shown = False

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def text_line(final: Final) -> str:
    line = printable(final.text).strip()
    return f"{line}\n" if line else ""


def json_line(final: Final) -> str:
    fields = dataclasses.asdict(final) | {"words": [word.model_dump() for word in final.words]}
    return json.dumps(fields, ensure_ascii=False) + "\n"


class GrowingSubtitles:
    """What each `Final` adds to a file of subtitles.

    `to_text` makes the whole file; what it makes of some segments begins what it makes of
    these and more.
    """

    def __init__(self, to_text: Callable[[list[Segment]], str]) -> None:
        self._to_text = to_text
        self._segments: list[Segment] = []
        self._written = 0

    def __call__(self, final: Final) -> str:
        self._segments.append(Segment(final.start, final.end, final.text))
        whole = self._to_text(self._segments)
        added, self._written = whole[self._written :], len(whole)
        return added


def renderer(form: str) -> Callable[[Final], str]:
    """For `text`, `json`, `srt` or `vtt`."""
    match form:
        case "srt":
            return GrowingSubtitles(to_srt)
        case "vtt":
            return GrowingSubtitles(to_vtt)
        case "json":
            return json_line
    return text_line


def printable(text: str) -> str:
    """`text` without what a terminal would take for a command."""
    return "".join(char if char.isprintable() else " " for char in text)


def last_columns(text: str, columns: int) -> str:
    """As much of the end of `text` as fits into so many columns of a terminal."""
    start, room = len(text), columns
    for index in range(len(text) - 1, -1, -1):
        room -= columns_of(text[index])
        if room < 0:
            break
        if columns_of(text[index]):  # or an accent would lose its letter
            start = index
    return text[start:]


def columns_of(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
