"""Load that rises by steps: how many users there are when, and what came of each step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from loadtest.outcome import Outcome, Timed
from loadtest.summary import FINAL_TEXT, WORD_FINAL, Measure, Summary


@dataclass(frozen=True, slots=True)
class Step:
    """`users` from `begins` to `ends`, by the wall's clock."""

    users: int
    begins: float
    ends: float

    @property
    def seconds(self) -> float:
        return self.ends - self.begins

    def holds(self, at: float) -> bool:
        return self.begins <= at < self.ends


def steps_of(users: Sequence[int], began: float, step_s: float) -> list[Step]:
    return [
        Step(number, began + index * step_s, began + (index + 1) * step_s)
        for index, number in enumerate(users)
    ]


class StepFigures:
    """Delays and refusals count where they came; a whole stream, with its words, where its middle
    lies."""

    def __init__(self, summary: Summary, step: Step) -> None:
        self.step = step
        self.whole = Summary(
            [each for each in summary.outcomes if step.holds(_middle(each.outcome))],
            summary.bounds,
        )
        outcomes = [each.outcome for each in summary.outcomes]
        self.finals = Measure(FINAL_TEXT, self._within((o, o.finals) for o in outcomes))
        self.word_finals = Measure(WORD_FINAL, self._within((o, o.word_finals) for o in outcomes))
        self.refused = sum(
            step.holds(each.due_at + refusal.since)
            for each in outcomes
            for refusal in each.refusals
        )
        spans = [span for each in outcomes if (span := each.span)]
        self.let_in = sum(step.holds(begins) for begins, _ in spans)
        self._held_s = sum(_shared_s(span, step) for span in spans)

    @property
    def held(self) -> float:
        """Streams that were let in and not over, on average."""
        return self._held_s / self.step.seconds

    @property
    def refused_share(self) -> float | None:
        """Of the attempts to be let in."""
        attempts = self.refused + self.let_in
        return self.refused / attempts if attempts else None

    def _within(self, timed: Iterable[tuple[Outcome, Sequence[Timed]]]) -> list[float]:
        return [
            each.s
            for outcome, delays in timed
            for each in delays
            if self.step.holds(outcome.due_at + each.since)
        ]


def _middle(outcome: Outcome) -> float:
    begins, ends = outcome.span or (outcome.due_at, outcome.due_at)
    return (begins + ends) / 2


def _shared_s(span: tuple[float, float], step: Step) -> float:
    return max(0.0, min(span[1], step.ends) - max(span[0], step.begins))
