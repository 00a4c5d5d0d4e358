"""Which words of a window are final, and which of them the window before already gave.

A word is final when it lies before the window's cut. Nothing is searched for duplicates,
except where two windows that were decoded independently share the speech around a cut.
"""

from __future__ import annotations

from collections.abc import Sequence

from whisper_serve.text.normalize import normalize_word
from whisper_serve.text.transcript import Segment, Word, words_of

# The middles of two hearings of one word lie nearer to each other than this, in seconds.
SAME_WORD_S = 0.4
# A word that begins nearer to a window's start than this may be the rest of one.
EDGE_S = 0.1
# Nobody speaks words that are shorter than this on average: the decode made them up.
MIN_MEAN_WORD_S = 0.06
# A decode that left out less than this may well have heard all there is.
SHORT_REST_S = 2.0
# Whisper's own threshold for text that it had better decode again.
DOUBTED_LOGPROB = -1.0
# So many words in a row without time are no matter of the aligner.
RUSHED_WORDS = 4


def speakable(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """The segments without words that nobody can have spoken in their time.

    Whisper repeats the text before when it is asked about a breath, and sometimes a sentence
    that it has just written; the aligner then has no time for the words.
    """
    kept = [_speakable(segment) for segment in segments if _has_time(segment.words)]
    return tuple(segment for segment in kept if segment is not None)


def _speakable(segment: Segment) -> Segment | None:
    words = segment.words
    rushed = {
        index
        for first in range(len(words) - RUSHED_WORDS + 1)
        if not _has_time(words[first : first + RUSHED_WORDS])
        for index in range(first, first + RUSHED_WORDS)
    }
    if not rushed:
        return segment
    kept = [word for index, word in enumerate(words) if index not in rushed]
    return segment.with_words(kept) if kept else None


def _has_time(words: Sequence[Word]) -> bool:
    return not words or words[-1].end - words[0].start >= MIN_MEAN_WORD_S * (len(words) - 1)


def is_guess(segments: Sequence[Segment], rest_s: float) -> bool:
    """Whether this is no more than a guess at what was said in the last `rest_s` seconds of speech
    that a decode has left out before: they are few, and the model doubts its text."""
    doubted = any(segment.avg_logprob < DOUBTED_LOGPROB for segment in segments)
    return rest_s < SHORT_REST_S and doubted


def keep_words(segments: Sequence[Segment], first: int, last: int) -> tuple[Segment, ...]:
    """The segments cut down to words number `first` up to, not including, `last`."""
    kept: list[Segment] = []
    position = 0
    for segment in segments:
        words = segment.words[max(0, first - position) : max(0, last - position)]
        position += len(segment.words)
        if words:
            kept.append(segment.with_words(words))
    return tuple(kept)


def commit(segments: Sequence[Segment], cut_s: float, *, at_pause: bool) -> tuple[Segment, ...]:
    """The segments up to the last word before `cut_s`.

    At a pause the word's middle decides, because the aligner may set its end into the pause.
    Within speech the word must end before the cut, or half of it may be missing.
    """
    final = [
        index
        for index, word in enumerate(words_of(segments))
        if (_middle(word) if at_pause else word.end) <= cut_s
    ]
    return keep_words(segments, 0, final[-1] + 1) if final else ()


def drop_heard(
    before: Sequence[Segment], segments: Sequence[Segment], start_s: float
) -> tuple[Segment, ...]:
    """`segments`, heard in a window from `start_s` that reaches back over `before`, without
    what `before` already has.

    That is everything up to the last word of `before`. Where this word was not heard again,
    it is everything up to the latest that was, and every word whose middle lies before the
    end of `before`, or whose beginning the window's edge cut off.
    """
    known, words = words_of(before), words_of(segments)
    if not known or not words:
        return tuple(segments)
    # A word of `before` that the window's edge divides is none of its words.
    whole = [word for word in known if word.start >= start_s]
    if whole and (behind_last := _behind(known[-1], words)):
        return keep_words(segments, behind_last, len(words))
    half = words[0].start < min(start_s + EDGE_S, known[-1].end)
    if half and known[-1].start < start_s:
        # It is the rest of the last word, and all behind it is new, however short.
        return keep_words(segments, 1, len(words))
    earlier = sum(_middle(word) <= known[-1].end for word in words)
    first = max(int(half), earlier, *(_behind(word, words) for word in whole))
    return keep_words(segments, first, len(words))


def _behind(known: Word, words: Sequence[Word]) -> int:
    """Number of the word that follows the hearing of `known` in `words`, 0 without one."""
    same = [index for index, word in enumerate(words) if _is_same(known, word)]
    return 1 + min(same, key=lambda i: abs(_middle(words[i]) - _middle(known)), default=-1)


def _is_same(word: Word, other: Word) -> bool:
    return abs(_middle(word) - _middle(other)) < SAME_WORD_S and normalize_word(
        word.text
    ) == normalize_word(other.text)


def _middle(word: Word) -> float:
    return (word.start + word.end) / 2
