"""What counts as served, after the load: a right answer, and not just any with a 200."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.scores import WordErrors, word_errors

NO_TEXT, WRONG_TEXT = "no text where there is speech", "another text than was spoken"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What may be, for a run to pass. `most_wer`: word errors of one answer above which it counts
    as failed. `most_failed`: share of requests. `most_late_s`: of this program itself."""

    most_wer: float = 0.6
    most_failed: float = 0.0
    most_late_s: float = 0.1


def fault_of(heard: str, errors: WordErrors | None, bounds: Bounds) -> str:
    """Empty for a right answer; `errors` is None where nobody knows what was spoken."""
    if not heard.strip():
        return NO_TEXT
    if errors is not None and errors.rate > bounds.most_wer:
        return WRONG_TEXT
    return ""


def errors_of(spoken: str, heard: str) -> WordErrors | None:
    return word_errors([spoken], [heard]) if spoken else None
