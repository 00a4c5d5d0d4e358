from __future__ import annotations

import json
from pathlib import Path

import pytest

from loadtest.judging import Bounds
from loadtest.outcome import Outcome
from loadtest.report import Report
from loadtest.steps import steps_of
from loadtest.summary import Summary
from tests.loadtest.html_pages import parsed
from tests.loadtest.outcomes import BEGAN, delayed, file, refused, stream


def report_of(*outcomes: Outcome, trouble: tuple[str, ...] = ()) -> Report:
    summary = Summary.of(outcomes, Bounds())
    return Report(summary, {"service": "tiny.en"}, BEGAN, trouble=trouble)


def cells(report: Report, first: str) -> list[str]:
    """Of the first row of the text that begins so."""
    rows = [line.strip("| ").split(" | ") for line in report.text().splitlines()]
    return next(row for row in rows if row[0] == first)


def test_a_percentile_of_too_few_samples_shows_how_few_there_were() -> None:
    report = report_of(delayed([0.25] * 7))
    assert cells(report, "final text") == ["final text", "7", "0.250", "n=7", "n=7", "0.250"]


def test_all_that_happened_has_a_line() -> None:
    report = report_of(stream(), refused(0.1, 5.1), file(fault="500 internal_error"))
    assert cells(report, "FileUpload")[:4] == ["FileUpload", "1", "0", "1"]
    assert "| LiveStream | refused with 503 | 2 |" in report.text()
    assert "| FileUpload | failed: 500 internal_error | 1 |" in report.text()
    assert "service: tiny.en" in report.text()


@pytest.mark.parametrize(
    ("report", "code"),
    [
        (report_of(stream()), 0),
        (report_of(), 1),
        (report_of(stream(), file(fault="500")), 1),
        (report_of(stream(late_s=(9.0,) * 100)), 3),
        (report_of(stream(), trouble=("worker a did not tell what it had heard",)), 3),
    ],
)
def test_the_exit_code_tells_how_it_went(report: Report, code: int) -> None:
    assert report.exit_code == code
    assert bool(report.faults) == bool(code)
    assert report.text().splitlines()[-1].startswith("Not passed: " if code else "Passed.")


def test_json_has_the_figures_and_every_sample(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.json"
    report_of(stream(), refused(0.1)).write(json=path, html=None, plot=None)
    kept = json.loads(path.read_text())
    assert kept["passed"] is False
    assert kept["exit_code"] == 1
    assert kept["clients"]["LiveStream"]["measures"]["final text"] == {
        "n": 2,
        "p50": 0.5,
        "p95": None,
        "p99": None,
        "max": 0.75,
    }
    assert kept["clients"]["LiveStream"]["words"]["wer"] == 0.0
    assert [outcome["fault"] for outcome in kept["outcomes"]] == ["", "not admitted: 503"]
    assert kept["outcomes"][0]["finals"] == [{"since": 5.0, "s": 0.75}, {"since": 11.5, "s": 0.25}]


def test_nothing_is_written_that_was_not_named(tmp_path: Path) -> None:
    report_of(stream()).write(json=None, html=None, plot=None)
    assert list(tmp_path.iterdir()) == []


def test_the_page_shows_what_the_text_does_and_pictures_beside(tmp_path: Path) -> None:
    path, report = tmp_path / "report.html", report_of(stream(), stream())
    report.write(json=None, html=path, plot=tmp_path / "delays.svg")
    page = parsed(path)
    assert page.tables[0][1][:3] == ["LiveStream", "2", "2"]
    assert ["final text", "4", "0.500", "n=4", "n=4", "0.750"] in page.tables[1]
    assert page.svgs == len(report.charts())
    assert (tmp_path / "delays.svg").exists()


def test_steps_have_a_row_each_with_the_users_that_were_wanted() -> None:
    summary = Summary.of([stream(), refused(0.1, 5.1)], Bounds())
    report = Report(summary, {}, BEGAN, steps=steps_of([2, 4], BEGAN, 10.0))
    (table,) = [table for table in report.tables() if table.title == "Steps"]
    assert [row[:4] for row in table.rows] == [[2, "0.9", 2, "66.67 %"], [4, "0.2", 0, "-"]]
    delays = report.charts()[0].curves["p50"]
    assert delays == [(2, None), (4, None)]  # one sample each tells no percentile
    assert report.as_json()["steps"][0]["final_text"]["n"] == 1
