"""Words compared without case, punctuation and accents' encoding."""

from __future__ import annotations

import unicodedata


def normalize_word(text: str) -> str:
    """`text` in one Unicode form, case folded, its letters and digits only."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(char for char in folded if char.isalnum())
