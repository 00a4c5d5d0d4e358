"""Word times from cross-attention alignment, the same for every engine.

Source: `whisper/timing.py` of openai-whisper; the engines give the aligned path, this module
turns it into words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from whisper.timing import WordTiming, merge_punctuations
from whisper.tokenizer import Tokenizer

from whisper_serve.text.transcript import Word

SECONDS_PER_FRAME = 0.02
PREPENDED = "\"'“¿([{-"
APPENDED = "\"'.。,，!！?？:：”)]}、"
SENTENCE_ENDS = ".。!！?？"
MAX_MEDIAN_WORD_S = 0.7


@dataclass(frozen=True, slots=True)
class Alignment:
    """A path through text tokens and encoder frames of 20 ms.

    `token_indices` and `frame_indices`: int, shape (path length,), both never fall.
    `probabilities`: of each text token, shape (text tokens,).
    """

    token_indices: npt.NDArray[np.int64]
    frame_indices: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]


def words_from_alignment(
    alignment: Alignment, text_tokens: Sequence[int], tokenizer: Tokenizer
) -> list[WordTiming]:
    """Words with the tokens they are made of, punctuation merged into its neighbours.

    Every token of `text_tokens` is in exactly one word; a word that was merged away is
    left out.
    """
    texts, tokens = tokenizer.split_to_word_tokens([*text_tokens, tokenizer.eot])
    texts, tokens = texts[:-1], tokens[:-1]
    if not texts:
        return []
    firsts = np.cumsum([0, *(len(t) for t in tokens)])
    # The frame at which the path enters each token, the end of text included.
    enters = np.pad(np.diff(alignment.token_indices), (1, 0), constant_values=1).astype(bool)
    times = alignment.frame_indices[enters] * SECONDS_PER_FRAME
    words = [
        WordTiming(
            text,
            list(word_tokens),
            float(times[first]),
            float(times[last]),
            float(np.mean(alignment.probabilities[first:last])),
        )
        for text, word_tokens, first, last in zip(
            texts, tokens, firsts[:-1], firsts[1:], strict=True
        )
    ]
    _shorten_around_sentence_ends(words)
    merge_punctuations(words, PREPENDED, APPENDED)
    return [word for word in words if word.tokens]


def _shorten_around_sentence_ends(words: list[WordTiming]) -> None:
    """The aligner gives the pause at a sentence's end to the mark before it or the word
    behind it; neither may be longer than twice the usual word."""
    durations = [word.end - word.start for word in words if word.end > word.start]
    if not durations:
        return
    longest = 2 * min(MAX_MEDIAN_WORD_S, float(np.median(durations)))
    for previous, word in pairwise(words):
        if word.end - word.start <= longest:
            continue
        if word.word in SENTENCE_ENDS:
            word.end = word.start + longest
        elif previous.word in SENTENCE_ENDS:
            word.start = word.end - longest


def to_words(timings: Sequence[WordTiming]) -> tuple[Word, ...]:
    return tuple(Word(t.word, t.start, t.end, t.probability) for t in timings)
