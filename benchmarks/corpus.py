"""The recordings that the benchmarks hear: `librispeech.json` and the files that it names."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from whisper_serve.audio.decode import decode
from whisper_serve.audio.pcm import Samples

PARTS = ("utterances", "long")
MAX_DURATION_S = 3600.0


@dataclass(frozen=True, slots=True)
class Passage:
    """A stretch of a recording of which the text is known, in seconds."""

    start: float
    end: float
    text: str


@dataclass(frozen=True, slots=True)
class Recording:
    """`passages` are known of long recordings; together they are the `text`."""

    path: Path
    text: str
    seconds: float
    passages: tuple[Passage, ...] = ()

    def samples(self) -> Samples:
        """int16 at 16 kHz, shape (n,)."""
        with self.path.open("rb") as file:
            return decode(file, accepted=(".flac", ".wav"), max_duration_s=MAX_DURATION_S)

    def text_ending_by(self, time_s: float) -> str:
        """What has certainly been said at `time_s`."""
        return " ".join(passage.text for passage in self.passages if passage.end <= time_s)

    def text_beginning_by(self, time_s: float) -> str:
        """What can have been said at `time_s`."""
        return " ".join(passage.text for passage in self.passages if passage.start < time_s)


def read_corpus(folder: Path, part: str) -> list[Recording]:
    """`part`: one of `PARTS`."""
    entries = json.loads((folder / "librispeech.json").read_text(encoding="utf-8"))
    return [
        Recording(
            folder / entry["file"],
            entry["text"],
            entry["seconds"],
            tuple(Passage(**passage) for passage in entry.get("segments", ())),
        )
        for entry in entries
        if entry["file"].startswith(f"{part}/")
    ]
