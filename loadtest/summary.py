"""What many outcomes say together. Every percentile is of all samples, and each has its count.

summary = Summary.of(outcomes, bounds)
summary.counts, summary.measures, summary.errors
summary.failures(), summary.doubts()  # in words; none when the load test passed
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from benchmarks.corpus import Recording
from benchmarks.figures import quantile
from benchmarks.scores import WordErrors, spoken_text
from loadtest.judging import Bounds, errors_of, fault_of
from loadtest.outcome import Outcome, Timed

SHARES = (0.5, 0.95, 0.99)
WORD_FINAL, FINAL_TEXT, ANSWER = "word final", "final text", "answer"


@dataclass(frozen=True, slots=True)
class Measure:
    """All samples of one figure, in seconds or, of the real-time factor, without a unit."""

    name: str
    values: Sequence[float]

    @property
    def quantiles(self) -> list[float | None]:
        """By `SHARES`; None where there are too few samples to tell."""
        return [quantile(self.values, share) for share in SHARES]

    @property
    def largest(self) -> float | None:
        return max(self.values, default=None)

    def as_json(self) -> dict[str, Any]:
        found = zip(SHARES, self.quantiles, strict=True)
        named = {f"p{100 * share:.0f}": each for share, each in found}
        return {"n": len(self.values), **named, "max": self.largest}


@dataclass(frozen=True, slots=True)
class Judged:
    """An outcome and its word errors, None where nobody knows what was spoken. `fault` counts a
    wrong answer too."""

    outcome: Outcome
    errors: WordErrors | None
    fault: str


def judged(outcome: Outcome, bounds: Bounds) -> Judged:
    if not outcome.passages:
        return Judged(outcome, None, outcome.fault)
    said = Recording(Path(outcome.name), "", outcome.audio_s, outcome.passages)
    errors = errors_of(spoken_text(said, outcome.audio_s, outcome.text), outcome.text)
    is_certain = bool(said.text_ending_by(outcome.audio_s))
    wrong = fault_of(outcome.text, errors, bounds) if is_certain else ""
    return Judged(outcome, errors, outcome.fault or wrong)


@dataclass(frozen=True)
class Summary:
    """Of one kind of client, or of all. `late_s` is of this program, not of the service."""

    outcomes: Sequence[Judged]
    bounds: Bounds

    @classmethod
    def of(cls, outcomes: Iterable[Outcome], bounds: Bounds) -> Summary:
        return cls([judged(outcome, bounds) for outcome in outcomes], bounds)

    def of_kind(self, kind: str) -> Summary:
        return Summary([each for each in self.outcomes if each.outcome.kind == kind], self.bounds)

    @property
    def kinds(self) -> list[str]:
        return sorted({each.outcome.kind for each in self.outcomes})

    # Counts

    @property
    def begun(self) -> int:
        return len(self.outcomes)

    @property
    def served(self) -> int:
        return sum(not each.fault for each in self.outcomes)

    @property
    def cut(self) -> int:
        """Those that the end of the load test cut off: neither served nor failed."""
        return sum(each.outcome.is_cut for each in self.outcomes)

    @property
    def failed(self) -> Counter[str]:
        faults = (each.fault for each in self.outcomes if not each.outcome.is_cut)
        return Counter(fault for fault in faults if fault)

    @property
    def refused(self) -> Counter[int]:
        """Attempts, by status; a client that tries again counts each time."""
        return Counter(refusal.status for each in self._all for refusal in each.refusals)

    @property
    def untold(self) -> int:
        """Refusals of the busy that did not say when to come back."""
        return sum(
            refusal.retry_after_s is None
            for each in self._all
            for refusal in each.refusals
            if refusal.status in {429, 503}
        )

    @property
    def told(self) -> Counter[str]:
        return Counter(told for each in self._all for told in each.told)

    @property
    def counts(self) -> dict[str, int]:
        return {
            "begun": self.begun,
            "served": self.served,
            "failed": self.failed.total(),
            "cut off": self.cut,
            "refused attempts": self.refused.total(),
            "without Retry-After": self.untold,
        }

    # Measures

    @property
    def measures(self) -> list[Measure]:
        """Those that have samples."""
        found = [
            Measure("wait for a place", _known(each.waited_s for each in self._all)),
            Measure("handshake", _known(each.connect_s for each in self._all)),
            Measure("first word", _known(each.first_word_s for each in self._all)),
            Measure("word shown", _seconds(each.shown for each in self._all)),
            Measure(WORD_FINAL, _seconds(each.word_finals for each in self._all)),
            Measure(FINAL_TEXT, _seconds(each.finals for each in self._all)),
            Measure("last words", _known(each.tail_s for each in self._served)),
            Measure(ANSWER, _known(each.took_s for each in self._served if not each.is_stream)),
            Measure("real-time factor", self._real_time_factors),
        ]
        return [measure for measure in found if measure.values]

    @property
    def lateness(self) -> Measure:
        """Of this program: how long after it was spoken each piece was sent."""
        return Measure("generator late", [s for each in self._all for s in each.late_s])

    @property
    def errors(self) -> WordErrors | None:
        """Of all that is known to have been spoken, by the served and the failed: what a service
        loses on the way counts."""
        heard = [each for each in self.outcomes if not each.outcome.is_cut]
        found = [each.errors for each in heard if each.errors is not None]
        return _sum(found) if found else None

    @property
    def audio_s(self) -> float:
        return sum(each.audio_s for each in self._served)

    @property
    def held(self) -> list[tuple[float, int]]:
        """(time, streams that were let in and not over from then on), by the wall's clock."""
        changes = sorted(change for each in self._all for change in _changes(each))
        counts = accumulate(by for _, by in changes)
        return [(at, number) for (at, _), number in zip(changes, counts, strict=True)]

    @property
    def most_held(self) -> int:
        """Streams at once; 0 of files, which are not held."""
        return max((number for _, number in self.held), default=0)

    @property
    def _all(self) -> list[Outcome]:
        return [each.outcome for each in self.outcomes]

    @property
    def _served(self) -> list[Outcome]:
        return [each.outcome for each in self.outcomes if not each.fault]

    @property
    def _real_time_factors(self) -> list[float]:
        return [each.took_s / each.audio_s for each in self._served if each.took_s and each.audio_s]

    # Verdict

    def failures(self) -> list[str]:
        """Why the load test did not pass, in words."""
        found, ended = [], self.begun - self.cut
        if not self.served:
            found.append("nothing was served")
        if (failed := self.failed.total()) > self.bounds.most_failed * ended:
            share = f"{100 * self.bounds.most_failed:g} %"
            found.append(f"{failed} of {ended} failed (allowed: {share})")
        if self.untold:
            found.append(f"{self.untold} refusals did not say when to come back")
        return found

    def doubts(self) -> list[str]:
        """Why its figures are not those of the load that was asked for, in words."""
        late = self.lateness
        late_s = late.quantiles[-1] if late.quantiles[-1] is not None else late.largest
        if late_s is None or late_s <= self.bounds.most_late_s:
            return []
        found = (
            f"this program was late itself, by {late_s:.3f} s in 1 of 100 pieces (allowed: "
            f"{self.bounds.most_late_s:g} s): it needs more CPU, or a machine of its own"
        )
        return [found]

    def as_json(self) -> dict[str, Any]:
        errors = self.errors
        return {
            "counts": self.counts,
            "faults": dict(self.failed),
            "refused": {str(status): number for status, number in self.refused.items()},
            "told": dict(self.told),
            "measures": {measure.name: measure.as_json() for measure in self.measures},
            "generator_late_s": self.lateness.as_json(),
            "words": None if errors is None else _words(errors),
            "audio_s": self.audio_s,
        }


def _seconds(several: Iterable[Sequence[Timed]]) -> list[float]:
    return [timed.s for each in several for timed in each]


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _changes(outcome: Outcome) -> list[tuple[float, int]]:
    return [] if outcome.span is None else [(outcome.span[0], 1), (outcome.span[1], -1)]


def _sum(errors: Sequence[WordErrors]) -> WordErrors:
    return WordErrors(
        words=sum(each.words for each in errors),
        insertions=sum(each.insertions for each in errors),
        deletions=sum(each.deletions for each in errors),
        substitutions=sum(each.substitutions for each in errors),
    )


def _words(errors: WordErrors) -> Mapping[str, float]:
    return {
        "spoken": errors.words,
        "lost": errors.deletions,
        "inserted": errors.insertions,
        "substituted": errors.substitutions,
        "wer": errors.rate,
    }
