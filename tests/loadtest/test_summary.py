from __future__ import annotations

import pytest

from loadtest.judging import NO_TEXT, WRONG_TEXT, Bounds
from loadtest.outcome import CUT, Outcome, Refusal
from loadtest.summary import FINAL_TEXT, Measure, Summary
from tests.loadtest.outcomes import BEGAN, SAID, delayed, file, refused, stream


def summary_of(*outcomes: Outcome, bounds: Bounds | None = None) -> Summary:
    return Summary.of(outcomes, bounds or Bounds())


def measure(summary: Summary, name: str) -> Measure:
    (found,) = [each for each in summary.measures if each.name == name]
    return found


def test_percentiles_are_of_all_samples_as_they_were_and_not_rounded() -> None:
    found = measure(summary_of(*[delayed([0.0012345 * n for n in range(10)])] * 10), FINAL_TEXT)
    assert len(found.values) == 100
    assert found.quantiles[0] == pytest.approx(0.0012345 * 4.5)
    assert found.quantiles[2] == pytest.approx(0.0012345 * 9)


@pytest.mark.parametrize(
    ("samples", "known"),
    [
        (1, [False, False, False]),
        (19, [True, False, False]),
        (20, [True, True, False]),
        (99, [True, True, False]),
        (100, [True, True, True]),
    ],
)
def test_a_percentile_of_too_few_samples_is_not_told(samples: int, known: list[bool]) -> None:
    found = measure(summary_of(delayed([1.0] * samples)), FINAL_TEXT)
    assert [value is not None for value in found.quantiles] == known
    assert found.as_json()["n"] == samples


def test_a_measure_that_nobody_could_take_is_left_out() -> None:
    assert [each.name for each in summary_of(file()).measures] == ["answer", "real-time factor"]


def test_refusals_count_by_attempt_and_the_client_by_how_it_ended() -> None:
    let_in_late = stream(refusals=(Refusal(0.1, 503, 5.0), Refusal(5.2, 503, 5.0)))
    summary = summary_of(let_in_late, refused(0.1, 5.1))
    assert summary.counts == {
        "begun": 2,
        "served": 1,
        "failed": 1,
        "cut off": 0,
        "refused attempts": 4,
        "without Retry-After": 0,
    }
    assert summary.failed == {"not admitted: 503": 1}
    assert summary.refused == {503: 4}


def test_a_refusal_that_does_not_say_when_to_come_back_is_a_fault() -> None:
    summary = summary_of(stream(refusals=(Refusal(0.1, 503, None), Refusal(1.1, 401, None))))
    assert summary.untold == 1
    assert summary.failures() == ["1 refusals did not say when to come back"]


def test_word_errors_are_of_all_words_together() -> None:
    lost_two = SAID.replace("no matter ", "")
    errors = summary_of(stream(), stream(text=lost_two)).errors
    assert errors is not None
    assert (errors.words, errors.deletions, errors.rate) == pytest.approx((20, 2, 0.1))


def test_case_and_marks_are_no_errors() -> None:
    errors = summary_of(stream(text=SAID.title() + ".")).errors
    assert errors is not None
    assert errors.count == 0


@pytest.mark.parametrize(
    ("text", "fault"), [("", NO_TEXT), ("  ", NO_TEXT), ("quite another text", WRONG_TEXT)]
)
def test_an_answer_that_is_none_has_failed_whatever_its_status(text: str, fault: str) -> None:
    for outcome in (stream(text=text), file(text=text)):
        summary = summary_of(outcome)
        assert summary.failed == {fault: 1}
        assert summary.served == 0


def test_a_stream_that_was_cut_before_a_passage_ended_may_be_silent() -> None:
    cut = stream(text="", audio_s=3.0, fault=CUT)
    summary = summary_of(stream(), cut)
    assert summary.cut == 1
    assert summary.failures() == []
    assert summary.errors is not None
    assert summary.errors.deletions == 0


def test_what_was_said_up_to_the_cut_is_what_counts() -> None:
    errors = summary_of(stream(text="ever tried ever failed", audio_s=4.0)).errors
    assert errors is not None
    assert (errors.words, errors.count) == (4, 0)


def test_words_of_a_stream_that_broke_off_are_lost() -> None:
    errors = summary_of(stream(text="ever tried", fault="closed with 1011")).errors
    assert errors is not None
    assert errors.deletions == 8


def test_nothing_served_is_a_failure_even_when_nothing_failed() -> None:
    assert summary_of().failures() == ["nothing was served"]
    assert summary_of(stream(fault=CUT)).failures() == ["nothing was served"]


def test_more_failures_than_allowed_are_told_with_both_numbers() -> None:
    outcomes = [*[stream()] * 8, *[stream(fault="closed with 1011")] * 2, stream(fault=CUT)]
    assert summary_of(*outcomes, bounds=Bounds(most_failed=0.2)).failures() == []
    (failure,) = summary_of(*outcomes, bounds=Bounds(most_failed=0.1)).failures()
    assert failure == "2 of 10 failed (allowed: 10 %)"


def test_a_late_generator_is_doubted() -> None:
    late = [stream(late_s=(0.0,) * 98), stream(late_s=(0.3, 0.3))]
    assert summary_of(*late, bounds=Bounds(most_late_s=0.4)).doubts() == []
    (doubt,) = summary_of(*late, bounds=Bounds(most_late_s=0.2)).doubts()
    assert "0.300 s" in doubt


def test_streams_that_are_held_are_told_over_time() -> None:
    summary = summary_of(stream(), stream(begins=2.0), refused(0.1), file())
    held = [(at - BEGAN, number) for at, number in summary.held]
    assert held == [(1, 1), (3, 2), (12, 1), (14, 0)]
    assert summary.most_held == 2
    assert summary.of_kind("FileUpload").most_held == 0


def test_each_kind_of_client_has_its_own_figures() -> None:
    summary = summary_of(stream(), file(), file())
    assert summary.kinds == ["FileUpload", "LiveStream"]
    assert summary.of_kind("FileUpload").begun == 2
    assert measure(summary.of_kind("FileUpload"), "real-time factor").values == [0.2, 0.2]
    assert measure(summary.of_kind("LiveStream"), "real-time factor").values == [1.1]
