"""Speech that a test can understand: each word is a run of samples of one value.

`hear` is an engine for it. It reads words from the samples it is given, so that a word that
no window holds whole is lost, one that two windows give is doubled, and one that a window's
edge divides is misheard.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from hypothesis import strategies as st

from whisper_serve.audio.pcm import SAMPLE_RATE, Samples, seconds, to_samples
from whisper_serve.audio.vad import FRAME_SAMPLES
from whisper_serve.streaming.listener import LiveWindow, Probabilities
from whisper_serve.text.transcript import Hypothesis, Segment, Word

# Sounds of `speech` are louder than this.
SOUND = 100


def speech(words: Sequence[tuple[float, float]]) -> Samples:
    """Word number i is `words[i]` = (seconds of silence before it, its seconds)."""
    parts = [
        np.full(to_samples(time_s), value, np.int16)
        for number, (silence_s, spoken_s) in enumerate(words)
        for time_s, value in ((silence_s, 0), (spoken_s, SOUND + number))
    ]
    return np.concatenate(parts) if parts else np.zeros(0, np.int16)


def text_of(count: int) -> list[str]:
    """The words that `speech` of `count` words says."""
    return [f"w{number}" for number in range(count)]


class Ears:
    """Voice activity detection that is never wrong."""

    def __init__(self) -> None:
        self._rest = np.zeros(0, np.int16)

    def push(self, samples: Samples) -> Probabilities:
        pending = np.concatenate([self._rest, samples])
        whole = len(pending) // FRAME_SAMPLES * FRAME_SAMPLES
        self._rest = pending[whole:]
        frames = pending[:whole].reshape(-1, FRAME_SAMPLES)
        probabilities: Probabilities = (frames != 0).any(axis=1).astype(np.float32)
        return probabilities

    def finish(self) -> Probabilities:
        return self.push(np.zeros(-len(self._rest) % FRAME_SAMPLES, np.int16))


def hear(window: LiveWindow, *, spoken_s: dict[str, float] | None = None) -> Hypothesis:
    """What is said in `window` behind its prefix. `spoken_s`: how long each word is; one that
    the window holds less of is misheard."""
    words = heard_words(window.samples, spoken_s or {})
    known = window.prefix.split()
    said = [word.text.strip() for word in words[: len(known)]]
    assert said == known, f"the window says {said}, its prefix {known}"
    new = words[len(known) :]
    segments = (Segment(0.0, window.duration_s, "").with_words(new),) if new else ()
    return Hypothesis(segments, "en", 1.0)


def heard_words(samples: Samples, spoken_s: dict[str, float]) -> list[Word]:
    words: list[Word] = []
    at = 0
    for value, run in groupby(samples.tolist()):
        length = len(list(run))
        if value:
            text = f"w{value - SOUND}"
            whole = seconds(length) >= spoken_s.get(text, 0.0) - 1 / SAMPLE_RATE
            shown = f" {text}" if whole else f" half-of-{text}"
            words.append(Word(shown, seconds(at), seconds(at + length), 0.9))
        at += length
    return words


def lengths(words: Sequence[tuple[float, float]]) -> dict[str, float]:
    return {f"w{number}": spoken_s for number, (_, spoken_s) in enumerate(words)}


def utterances(
    *, max_words: int = 40, max_silence_s: float = 4.0
) -> st.SearchStrategy[list[tuple[float, float]]]:
    """Words with silences before them: none, a breath, a pause, or a long one."""
    silence = st.one_of(
        st.just(0.0), st.floats(0.05, 0.25), st.floats(0.3, 1.0), st.floats(1.0, max_silence_s)
    )
    # As long as words are, rounded to whole samples.
    word = st.tuples(silence, st.floats(0.15, 0.7)).map(
        lambda pair: (to_samples(pair[0]) / SAMPLE_RATE, to_samples(pair[1]) / SAMPLE_RATE)
    )
    return st.lists(word, max_size=max_words)


def cuts(samples: Samples, sizes: Sequence[int]) -> list[Samples]:
    """`samples` in pieces of `sizes`, over and over."""
    pieces, at, turn = [], 0, 0
    while at < len(samples):
        size = sizes[turn % len(sizes)] if sizes else len(samples)
        pieces.append(samples[at : at + size])
        at, turn = at + size, turn + 1
    return pieces
