"""What two hypotheses about the same speech agree on.

LocalAgreement-2: the longest common prefix of two successive hypotheses is taken as final.
Source: Liu et al., "Low-Latency Sequence-to-Sequence Speech Recognition and Translation by
Partial Hypothesis Selection", Interspeech 2020; for Whisper: Macháček et al., "Turning Whisper
into Real-Time Transcription System", IJCNLP-AACL 2023.
"""

from __future__ import annotations

from collections.abc import Sequence

from whisper_serve.text.normalize import normalize_word
from whisper_serve.text.transcript import Word


def agreed(before: Sequence[Word], words: Sequence[Word]) -> int:
    """How many of the first `words` are those of `before`, but for case and punctuation."""
    count = 0
    for earlier, word in zip(before, words, strict=False):
        if normalize_word(earlier.text) != normalize_word(word.text):
            break
        count += 1
    return count
