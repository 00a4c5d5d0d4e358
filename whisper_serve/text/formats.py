"""Subtitles: transcripts as SRT and WebVTT.

Times are rounded to whole milliseconds once, and everything is worked out from those, so
that no second is ever 60.000 and cues never overlap.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from whisper_serve.text.transcript import Segment

ARROW = re.compile("--+>")


@dataclass(frozen=True, slots=True)
class Cue:
    """`text` is shown from `start_ms` up to `end_ms`."""

    start_ms: int
    end_ms: int
    text: str


def cues_of(segments: Iterable[Segment]) -> list[Cue]:
    """One cue a segment, in order, each at least a millisecond long and none before the end
    of the one before."""
    cues: list[Cue] = []
    earliest = 0
    for segment in segments:
        text = cue_text(segment.text)
        if not text:
            continue
        start = max(earliest, round(segment.start * 1000))
        end = max(start + 1, round(segment.end * 1000))
        cues.append(Cue(start, end, text))
        earliest = end
    return cues


def cue_text(text: str) -> str:
    """`text` on one line, without the arrow that stands in a cue's header."""
    return " ".join(ARROW.sub("->", text).split())


def to_srt(segments: Sequence[Segment]) -> str:
    blocks = [
        f"{number}\n{_srt_time(cue.start_ms)} --> {_srt_time(cue.end_ms)}\n{cue.text}\n"
        for number, cue in enumerate(cues_of(segments), start=1)
    ]
    return "\n".join(blocks)


def to_vtt(segments: Sequence[Segment]) -> str:
    blocks = [
        f"{_vtt_time(cue.start_ms)} --> {_vtt_time(cue.end_ms)}\n{_escape(cue.text)}\n"
        for cue in cues_of(segments)
    ]
    return "\n".join(["WEBVTT\n", *blocks])


def _escape(text: str) -> str:
    """WebVTT reads `&` and `<` as markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _srt_time(milliseconds: int) -> str:
    return _vtt_time(milliseconds).replace(".", ",")


def _vtt_time(milliseconds: int) -> str:
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}.{milliseconds:03d}"
