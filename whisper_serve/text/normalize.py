"""Words compared without case, punctuation and accents' encoding."""

from __future__ import annotations

import unicodedata


def normalize_word(text: str) -> str:
    """`text` in one Unicode form, case folded, its letters and digits only.

    Marks belong to their letters: without its vowel signs a Hindi or Thai word is another.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    kept = "".join(char for char in folded if char.isalnum() or _is_mark(char))
    return unicodedata.normalize("NFKC", kept)


def _is_mark(char: str) -> bool:
    return unicodedata.category(char).startswith("M")
