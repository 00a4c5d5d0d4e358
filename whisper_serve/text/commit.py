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


def drop_heard(before: Sequence[Segment], segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """`segments`, heard in a window that reaches back over `before`, without what `before`
    already has: all up to the last word that both heard, or, when they share none, all
    whose middle lies before the end of the last word of `before`."""
    known, words = words_of(before), words_of(segments)
    if not known:
        return tuple(segments)
    shared = _last_shared(known, words)
    first = sum(_middle(w) <= known[-1].end for w in words) if shared is None else shared + 1
    return keep_words(segments, first, len(words))


def _last_shared(known: Sequence[Word], words: Sequence[Word]) -> int | None:
    """Index in `words` of the latest word of `known` that is there too."""
    for word in reversed(known):
        same = [i for i, other in enumerate(words) if _is_same(word, other)]
        if same:
            return min(same, key=lambda i: abs(_middle(words[i]) - _middle(word)))
        if words and word.end < words[0].start - SAME_WORD_S:
            return None
    return None


def _is_same(word: Word, other: Word) -> bool:
    return abs(_middle(word) - _middle(other)) < SAME_WORD_S and normalize_word(
        word.text
    ) == normalize_word(other.text)


def _middle(word: Word) -> float:
    return (word.start + word.end) / 2
