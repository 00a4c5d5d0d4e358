"""Word times from cross-attention alignment, the same for every engine.

Source: `whisper/timing.py` of openai-whisper; the engines give the aligned path, this module
turns it into words.
"""

from __future__ import annotations

import codecs
import string
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
# Written without spaces; here every character is a word.
UNSPACED = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
SENTENCE_ENDS = ".。!！?？"
MAX_MEDIAN_WORD_S = 0.7


@dataclass(frozen=True, slots=True)
class Alignment:
    """A path through text tokens and encoder frames of 20 ms.

    `token_indices` and `frame_indices`: int, shape (path length,), both never fall. The
    indices go from 0 to the number of text tokens, which stands for the end of the text.
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
    # The frame at which the path enters each token, the end of text included.
    enters = np.pad(np.diff(alignment.token_indices), (1, 0), constant_values=1).astype(bool)
    # CTranslate2 gives frame -1 for windows of a few frames.
    times = np.maximum(alignment.frame_indices[enters], 0) * SECONDS_PER_FRAME
    words = []
    first = 0
    for text, tokens in split_words(text_tokens, tokenizer):
        last = first + len(tokens)
        probability = float(np.mean(alignment.probabilities[first:last]))
        words.append(WordTiming(text, tokens, float(times[first]), float(times[last]), probability))
        first = last
    _shorten_around_sentence_ends(words)
    merge_punctuations(words, PREPENDED, APPENDED)
    return [word for word in words if word.tokens]


def split_words(text_tokens: Sequence[int], tokenizer: Tokenizer) -> list[tuple[str, list[int]]]:
    """Words and their tokens. The texts joined are the text of all tokens, and every token is
    in one word; `Tokenizer.split_to_word_tokens` loses tokens that are no whole characters.
    """
    words: list[tuple[str, list[int]]] = []
    for text, tokens in _characters(text_tokens, tokenizer):
        alone = text.startswith(" ") or text.strip() in string.punctuation
        if alone or not words or tokenizer.language in UNSPACED:
            words.append((text, tokens))
        else:
            before, tokens_before = words[-1]
            words[-1] = (before + text, [*tokens_before, *tokens])
    return words


def _characters(text_tokens: Sequence[int], tokenizer: Tokenizer) -> list[tuple[str, list[int]]]:
    """The smallest runs of tokens that are whole characters; one that breaks off at the end
    stays as it is."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    runs: list[tuple[str, list[int]]] = []
    text, tokens = "", []
    for token in text_tokens:
        text += decoder.decode(tokenizer.encoding.decode_single_token_bytes(token))
        tokens.append(token)
        if not decoder.getstate()[0]:
            runs.append((text, tokens))
            text, tokens = "", []
    if tokens:
        runs.append((text + decoder.decode(b"", final=True), tokens))
    return runs


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
    return tuple(Word(t.word, t.start, t.end, t.probability, tuple(t.tokens)) for t in timings)
