"""Folders of speech that tests understand, see `tests.streaming.speaker`."""

from __future__ import annotations

import wave
from pathlib import Path

from tests.api.streams import said, words
from whisper_serve.audio.pcm import SAMPLE_RATE


def write_speech(folder: Path, *counts: int) -> Path:
    """A recording of so many words each, half a second a word, with its transcript."""
    folder.mkdir(exist_ok=True)
    for number, count in enumerate(counts):
        with wave.open(str(folder / f"{number}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(SAMPLE_RATE)
            file.writeframes(words(count).tobytes())
        (folder / f"{number}.txt").write_text(f"{said(count)}\n")
    return folder
