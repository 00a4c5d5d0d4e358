"""What became of requests that came at times of their own: who is refused goes away, and what was
not sent counts too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from benchmarks.overload import REFUSALS
from benchmarks.scores import WordErrors
from loadtest.conversation import NOT_ADMITTED
from loadtest.judging import Bounds
from loadtest.outcome import Outcome, Timed
from loadtest.summary import Judged, judged


@dataclass(slots=True)
class Tally:
    """What became of `due` requests; the counts add up to it.

    `refused`: went away without a text. `refusals`: every 429 and 503 on the way, `untold` of
    which did not say when to come back. `delays_s`: of files, from when each was due until its
    text; of streams, from the end of each word in the audio until it was final, and `shown_s`
    until it was first shown, with all waiting to be let in. `errors`: of all texts that came,
    those that are wrong included.
    """

    due: int = 0
    served: int = 0
    refused: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    unfinished: int = 0
    not_sent: int = 0
    refusals: int = 0
    untold: int = 0
    audio_s: float = 0.0
    delays_s: list[float] = field(default_factory=list)
    shown_s: list[float] = field(default_factory=list)
    errors: list[WordErrors] = field(default_factory=list)

    @property
    def faults(self) -> int:
        """Neither served nor refused in order."""
        return self.failed.total() + self.unfinished

    @property
    def without_text(self) -> int:
        return self.due - self.served

    @property
    def wer(self) -> float | None:
        """Of all words together."""
        words = sum(errors.words for errors in self.errors)
        return sum(errors.count for errors in self.errors) / words if words else None

    @property
    def deletions(self) -> int:
        return sum(errors.deletions for errors in self.errors)

    def share(self, count: int) -> float | None:
        return count / self.due if self.due else None

    def why_failed(self, bounds: Bounds) -> list[str]:
        """In words; none when it passed."""
        found = []
        if self.due and not self.served:
            found.append("not one request was served")
        if self.faults > bounds.most_failed * self.due:
            found.append(
                f"{self.faults} of {self.due} failed (allowed: {100 * bounds.most_failed:g} %)"
            )
        if self.untold:
            found.append(f"{self.untold} refusals did not say when to come back")
        return found


def tally_of(outcomes: Iterable[Outcome], bounds: Bounds, *, not_sent: int = 0) -> Tally:
    """Of all that were sent, and those that were not."""
    tally = Tally(due=not_sent, not_sent=not_sent)
    for outcome in outcomes:
        _add(tally, judged(outcome, bounds))
    return tally


def _add(tally: Tally, each: Judged) -> None:
    outcome = each.outcome
    tally.due += 1
    refusals = [refusal for refusal in outcome.refusals if refusal.status in REFUSALS]
    tally.refusals += len(refusals)
    tally.untold += sum(refusal.retry_after_s is None for refusal in refusals)
    if outcome.is_served and each.errors is not None:
        tally.errors.append(each.errors)
    if outcome.is_cut:
        tally.unfinished += 1
    elif outcome.fault.startswith(NOT_ADMITTED):
        tally.refused += 1
    elif each.fault:
        tally.failed[each.fault] += 1
    else:
        _add_served(tally, outcome)


def _add_served(tally: Tally, outcome: Outcome) -> None:
    tally.served += 1
    tally.audio_s += outcome.audio_s
    if outcome.is_stream:
        tally.delays_s += _delays(outcome, outcome.word_finals)
        tally.shown_s += _delays(outcome, outcome.shown)
    elif outcome.ended_s is not None:
        tally.delays_s.append(outcome.ended_s)


def _delays(outcome: Outcome, timed: Iterable[Timed]) -> list[float]:
    """Who has to wait before he may speak waits for each word."""
    return [each.s + (outcome.waited_s or 0.0) for each in timed]
