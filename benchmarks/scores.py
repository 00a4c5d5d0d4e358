"""Word errors, after openai-whisper's English normalization of both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import jiwer
from whisper.normalizers import EnglishTextNormalizer

from benchmarks.corpus import Recording


@dataclass(frozen=True, slots=True)
class WordErrors:
    """Errors against `words` words of reference."""

    words: int
    insertions: int
    deletions: int
    substitutions: int

    @property
    def count(self) -> int:
        return self.insertions + self.deletions + self.substitutions

    @property
    def rate(self) -> float:
        return self.count / self.words

    @property
    def kinds(self) -> str:
        return f"{self.insertions} / {self.deletions} / {self.substitutions}"


def word_errors(references: Sequence[str], heard: Sequence[str]) -> WordErrors:
    """Of all texts together; `references` are not empty."""
    return _errors([normalized(text) for text in references], [normalized(text) for text in heard])


def normalized(text: str) -> str:
    result: str = _normalizer()(text)
    return result


@cache
def _normalizer() -> EnglishTextNormalizer:
    return EnglishTextNormalizer()


def spoken_text(recording: Recording, until_s: float, heard: str) -> str:
    """The part of a transcript that was said when a recording is cut off at `until_s`, normalized.

    Passages that end before are said, those that begin later are not. Where in the passage that
    was cut the speech broke off is not known: of all places the one is taken that gives `heard`
    the fewest errors, and of equals the last. So words lost at the very end of a stream count
    as errors only as far as they belong to a whole passage.
    """
    words = normalized(recording.text_beginning_by(until_s)).split()
    said = len(normalized(recording.text_ending_by(until_s)).split())
    texts = [" ".join(words[:count]) for count in range(len(words), max(1, said) - 1, -1)]
    answer = [normalized(heard)]
    return min(texts, key=lambda text: _errors([text], answer).count)


def _errors(references: list[str], heard: list[str]) -> WordErrors:
    found = jiwer.process_words(references, heard)
    return WordErrors(
        words=found.hits + found.substitutions + found.deletions,
        insertions=found.insertions,
        deletions=found.deletions,
        substitutions=found.substitutions,
    )
