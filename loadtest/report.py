"""What a load test with Locust came to: as text, as JSON, and as a page with pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.figures import heading, percent, row, shown, write_json
from loadtest.page import Page, Picture, Table, write_page
from loadtest.plots import Chart, Points, draw_to, drawn
from loadtest.steps import Step, StepFigures
from loadtest.summary import SHARES, Measure, Summary

TITLE = "Load test"
COUNT_COLUMNS = (
    "clients", "begun", "served", "failed", "cut off", "refused attempts", "without Retry-After",
    "most held at once",
)  # fmt: skip
MEASURE_COLUMNS = ("figure", "n", "p50", "p95", "p99", "max")
WORD_COLUMNS = ("clients", "words spoken", "WER", "lost", "inserted", "substituted")
STEP_COLUMNS = (
    "users", "streams held", "refused", "share refused", "final texts",
    "final text p50 / p95 / p99, s", "words", "word final p50 / p95 / p99, s", "WER", "words lost",
    "failed",
)  # fmt: skip
NOTE = (
    "Seconds, of all samples; the real-time factor has no unit. Where a percentile would rest on "
    "no sample beyond it (p95 needs 20, p99 100), n is shown instead."
)


@dataclass(frozen=True)
class Report:
    """`facts`: what was measured, for people. `began`: by the wall's clock. `trouble`: what went
    wrong with the load test itself."""

    summary: Summary
    facts: Mapping[str, str]
    began: float
    steps: Sequence[Step] = ()
    trouble: Sequence[str] = field(default=())

    # Verdict

    @property
    def faults(self) -> list[str]:
        return [*self.summary.failures(), *self._doubts]

    @property
    def exit_code(self) -> int:
        """0: passed; 1: too much failed; 3: the figures are not to be believed."""
        if self.summary.failures():
            return 1
        return 3 if self._doubts else 0

    @property
    def _doubts(self) -> list[str]:
        return [*self.trouble, *self.summary.doubts()]

    # As text

    def text(self) -> str:
        facts = [f"{name}: {value}" for name, value in self.facts.items()]
        tables = [_text_of(table) for table in self.tables()]
        verdict = [f"Not passed: {fault}" for fault in self.faults] or ["Passed."]
        return "\n".join([TITLE, "", *facts, "", *tables, *verdict])

    def tables(self) -> list[Table]:
        summaries = {kind: self.summary.of_kind(kind) for kind in self.summary.kinds}
        measured = [
            Table(f"{kind}: delays", MEASURE_COLUMNS, _measured(summary), NOTE)
            for kind, summary in summaries.items()
        ]
        counted = [
            [kind, *summary.counts.values(), summary.most_held or "-"]
            for kind, summary in summaries.items()
        ]
        causes = list(_causes(summaries))
        return [
            Table("Clients", COUNT_COLUMNS, counted),
            *([Table("Causes", ("clients", "what", "times"), causes)] if causes else []),
            *measured,
            Table("Words", WORD_COLUMNS, list(_words(summaries))),
            *([Table("Steps", STEP_COLUMNS, self._step_rows())] if self.steps else []),
        ]

    def _step_rows(self) -> list[list[object]]:
        return [_step_row(figures) for figures in self._figures]

    @property
    def _figures(self) -> list[StepFigures]:
        return [StepFigures(self.summary, step) for step in self.steps]

    # As a page and as pictures

    def charts(self) -> list[Chart]:
        return [*(_by_users(self._figures) if self.steps else []), *self._over_time()]

    def _over_time(self) -> list[Chart]:
        outcomes = [each.outcome for each in self.summary.outcomes]
        finals = sorted(
            (each.due_at + timed.since - self.began, timed.s)
            for each in outcomes
            for timed in each.finals
        )
        held = [(at - self.began, float(number)) for at, number in self.summary.held]
        return [
            Chart(
                "Streams that are held",
                "seconds",
                "streams",
                {"streams": held},
                stairs=frozenset({"streams"}),
            ),
            Chart(
                "Delay of final text",
                "seconds",
                "delay, s",
                {"final text": finals},
                dots=frozenset({"final text"}),
            ),
        ]

    def page(self) -> Page:
        pictures = [Picture(chart.title, drawn([chart])) for chart in self.charts()]
        return Page(TITLE, self.facts, self.faults, self.tables(), pictures)

    def as_json(self) -> dict[str, Any]:
        kinds = {kind: self.summary.of_kind(kind).as_json() for kind in self.summary.kinds}
        return {
            "facts": dict(self.facts),
            "passed": not self.faults,
            "faults": self.faults,
            "exit_code": self.exit_code,
            "clients": kinds,
            "steps": [_step_json(figures) for figures in self._figures],
            "outcomes": [
                {**each.outcome.as_json(), "fault": each.fault} for each in self.summary.outcomes
            ],
        }

    def write(self, *, json: Path | None, html: Path | None, plot: Path | None) -> None:
        """To those that are named."""
        write_json(json, self.as_json() if json else {})
        if html is not None:
            write_page(html, self.page())
        if plot is not None:
            draw_to(plot, self.charts())


def _text_of(table: Table) -> str:
    lines = [table.title, "", heading(table.columns), *(row(cells) for cells in table.rows)]
    return "\n".join([*lines, ""])


def _measured(summary: Summary) -> list[list[object]]:
    rows = [_measure_row(measure) for measure in summary.measures]
    late = summary.lateness
    return [*rows, *([_measure_row(late)] if late.values else [])]


def _measure_row(measure: Measure) -> list[object]:
    return [measure.name, len(measure.values), *_quantiles(measure), shown(measure.largest, 3)]


def _quantiles(measure: Measure) -> list[str]:
    few = f"n={len(measure.values)}"
    return [few if value is None else shown(value, 3) for value in measure.quantiles]


def _causes(summaries: Mapping[str, Summary]) -> Iterable[list[object]]:
    for kind, summary in summaries.items():
        told = {
            **{f"failed: {fault}": number for fault, number in summary.failed.items()},
            **{f"refused with {status}": number for status, number in summary.refused.items()},
            **{f"told: {code}": number for code, number in summary.told.items()},
        }
        yield from ([kind, what, times] for what, times in told.items())


def _words(summaries: Mapping[str, Summary]) -> Iterable[list[object]]:
    for kind, summary in summaries.items():
        if (errors := summary.errors) is not None:
            kinds = (errors.deletions, errors.insertions, errors.substitutions)
            yield [kind, errors.words, percent(errors.rate), *kinds]


def _step_row(figures: StepFigures) -> list[object]:
    errors, share = figures.whole.errors, figures.refused_share
    return [
        figures.step.users,
        f"{figures.held:.1f}",
        figures.refused,
        "-" if share is None else percent(share),
        len(figures.finals.values),
        " / ".join(_quantiles(figures.finals)),
        len(figures.word_finals.values),
        " / ".join(_quantiles(figures.word_finals)),
        "-" if errors is None else percent(errors.rate),
        "-" if errors is None else errors.deletions,
        figures.whole.failed.total(),
    ]


def _step_json(figures: StepFigures) -> dict[str, Any]:
    return {
        "users": figures.step.users,
        "held": figures.held,
        "refused": figures.refused,
        "refused_share": figures.refused_share,
        "final_text": figures.finals.as_json(),
        "word_final": figures.word_finals.as_json(),
        "whole": figures.whole.as_json(),
    }


def _by_users(figures: Sequence[StepFigures]) -> list[Chart]:
    users = "users"
    return [
        Chart("Delay of final text by users", users, "delay, s", _delay_curves(figures)),
        Chart(
            "Refused attempts and word errors by users",
            users,
            "share",
            {
                "refused": [(each.step.users, each.refused_share) for each in figures],
                "WER": [(each.step.users, _rate(each)) for each in figures],
            },
        ),
        Chart(
            "Streams that were held by users",
            users,
            "streams",
            {
                "held": [(each.step.users, each.held) for each in figures],
                "wanted": [(each.step.users, float(each.step.users)) for each in figures],
            },
        ),
    ]


def _delay_curves(figures: Sequence[StepFigures]) -> dict[str, Points]:
    return {
        f"p{100 * share:.0f}": [(each.step.users, each.finals.quantiles[at]) for each in figures]
        for at, share in enumerate(SHARES)
    }


def _rate(figures: StepFigures) -> float | None:
    errors = figures.whole.errors
    return None if errors is None else errors.rate
