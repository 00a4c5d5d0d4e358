"""What became of the words of an undisturbed transcript in a disturbed one, word by word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from whisper_serve.text.normalize import normalize_word


@dataclass(frozen=True, slots=True)
class WordDiff:
    """Of `words` undisturbed words: how many are `missing`, `doubled` (there a second time
    beside themselves) and `other` (heard differently, or added)."""

    words: int = 0
    missing: int = 0
    doubled: int = 0
    other: int = 0

    @property
    def is_whole(self) -> bool:
        return not (self.missing or self.doubled)

    def __add__(self, more: WordDiff) -> WordDiff:
        return WordDiff(
            self.words + more.words,
            self.missing + more.missing,
            self.doubled + more.doubled,
            self.other + more.other,
        )


def word_diff(undisturbed: str, disturbed: str) -> WordDiff:
    """By the alignment that Python's `difflib` finds. Case and punctuation do not count. A
    word for a word is heard differently; what is left of the longer side is missing, or added."""
    before, after = _words(undisturbed), _words(disturbed)
    diff = WordDiff(words=len(before))
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    for kind, first, last, start, end in matcher.get_opcodes():
        if kind != "equal":
            diff += _change(before[first:last], after, start, end)
    return diff


def _change(lost: Sequence[str], after: Sequence[str], start: int, end: int) -> WordDiff:
    """`after[start:end]` stands where `lost` was."""
    added = end - start
    changed = min(len(lost), added)
    doubled = _repeated(after, start + changed, end)
    return WordDiff(
        missing=len(lost) - changed,
        doubled=doubled,
        other=changed + added - changed - doubled,
    )


def _repeated(words: Sequence[str], start: int, end: int) -> int:
    """How many of the added words stand right before or right behind themselves."""
    size = end - start
    piece = words[start:end]
    if size and piece in (words[max(0, start - size) : start], words[end : end + size]):
        return size
    return 0


def _words(text: str) -> list[str]:
    return [word for word in map(normalize_word, text.split()) if word]
