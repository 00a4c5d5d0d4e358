"""Subtitles: transcripts as SRT and WebVTT.

Times are whole milliseconds before they are written, so that no second is ever 60.000.
"""

from __future__ import annotations

from collections.abc import Sequence

from whisper_serve.text.cues import Cue, cues_of
from whisper_serve.text.transcript import Segment


def to_srt(segments: Sequence[Segment]) -> str:
    """Cues of at most two lines (`text/cues.py` says how they are cut) as SRT."""
    return srt_of(cues_of(segments))


def to_vtt(segments: Sequence[Segment]) -> str:
    """The same as WebVTT."""
    return vtt_of(cues_of(segments))


def srt_of(cues: Sequence[Cue]) -> str:
    blocks = [
        f"{number}\n{_srt_time(cue.start_ms)} --> {_srt_time(cue.end_ms)}\n{cue.text}\n"
        for number, cue in enumerate(cues, start=1)
    ]
    return "\n".join(blocks)


def vtt_of(cues: Sequence[Cue]) -> str:
    blocks = [
        f"{_vtt_time(cue.start_ms)} --> {_vtt_time(cue.end_ms)}\n{_escape(cue.text)}\n"
        for cue in cues
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
