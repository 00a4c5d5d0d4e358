"""How a transcript that grows is shown: in a terminal, or written to a pipe or a file."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TextIO

from whisper_serve.client.answers import spoken
from whisper_serve.client.events import Final
from whisper_serve.text.cues import Cue, cues_of
from whisper_serve.text.formats import srt_of, vtt_of
from whisper_serve.text.lines import columns_of

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

    `write` makes the whole file of its cues; what it makes of some begins what it makes of these
    and more. So a cue ends with its `Final` at the latest, though it may be short then.
    """

    def __init__(self, write: Callable[[Sequence[Cue]], str]) -> None:
        self._write = write
        self._cues: list[Cue] = []
        self._written = 0

    def __call__(self, final: Final) -> str:
        segment = spoken(final.text, final.start, final.end, deque(final.words))
        self._cues += [_ending_by(final.end, cue) for cue in cues_of([segment])]
        whole = self._write(self._cues)
        added, self._written = whole[self._written :], len(whole)
        return added


def _ending_by(end_s: float, cue: Cue) -> Cue:
    return replace(cue, end_ms=max(cue.start_ms + 1, min(cue.end_ms, round(end_s * 1000))))


def renderer(form: str) -> Callable[[Final], str]:
    """For `text`, `json`, `srt` or `vtt`."""
    match form:
        case "srt":
            return GrowingSubtitles(srt_of)
        case "vtt":
            return GrowingSubtitles(vtt_of)
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
