from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.observability.measured import names_of, value_of
from whisper_serve.api.delays import MAX_PIECES, PIECE_S, Arrivals, StreamMeter
from whisper_serve.observability.metrics import Metrics
from whisper_serve.streaming.messages import Failed, Final, Partial, ResumePoint
from whisper_serve.text.transcript import Word


def words(*ends: float) -> tuple[Word, ...]:
    return tuple(Word(" w", end - 0.3, end, 0.9) for end in ends)


def partial(*ends: float) -> Partial:
    return Partial(0.0, ends[-1], "w", words(*ends))


def final(*ends: float) -> Final:
    return Final("w", words(*ends), "en", 0.9, 0.1, ResumePoint(committed_until=ends[-1]))


class Stream:
    """A stream whose audio came when it was spoken, and the numbers that were measured of it."""

    def __init__(self, spoken_s: int = 10) -> None:
        self.metrics = Metrics()
        self.meter = StreamMeter(self.metrics, "/stream")
        for second in range(1, spoken_s + 1):
            self.meter.arrived(1.0, float(second), now=float(second))

    def sum(self, name: str) -> float:
        return value_of(self.metrics.collect(), f"{name}_delay_seconds_sum")

    def count(self, name: str) -> float:
        return value_of(self.metrics.collect(), f"{name}_delay_seconds_count")


# Arrivals


def test_nothing_has_come_yet() -> None:
    assert Arrivals().time_of(1.0) is None


def test_a_place_came_with_the_piece_that_holds_it() -> None:
    arrivals = Arrivals()
    arrivals.add(1.0, now=10.0)
    arrivals.add(2.0, now=20.0)
    assert [arrivals.time_of(at) for at in (0.0, 1.0, 1.1, 2.0)] == [10.0, 10.0, 20.0, 20.0]


def test_a_word_that_reaches_over_the_end_of_the_audio_came_with_it() -> None:
    arrivals = Arrivals()
    arrivals.add(1.0, now=10.0)
    assert arrivals.time_of(1.5) == 10.0


def test_what_is_forgotten_does_not_touch_the_rest() -> None:
    arrivals = Arrivals()
    for second in range(1, 6):
        arrivals.add(float(second), now=10.0 * second)
    arrivals.forget(3.0)
    assert arrivals.time_of(3.0) == 30.0
    assert arrivals.time_of(4.5) == 50.0


@given(st.lists(st.floats(0.0001, 3.0), min_size=1, max_size=200))
def test_small_pieces_are_late_by_no_more_than_what_came_within_a_moment(
    pieces: list[float],
) -> None:
    arrivals, end = Arrivals(), 0.0
    ends = []
    for piece in pieces:
        end += piece
        ends.append(end)
        arrivals.add(end, now=end)  # audio that comes as it is spoken
    for at in ends:
        came_at = arrivals.time_of(at)
        assert came_at is not None
        assert at <= came_at <= at + PIECE_S + max(pieces)


def test_hours_of_tiny_pieces_take_no_more_memory_than_minutes() -> None:
    arrivals = Arrivals()
    for number in range(3 * MAX_PIECES):
        arrivals.add(number * PIECE_S * 1.01, now=float(number))
    assert len(arrivals._ends_s) <= MAX_PIECES
    assert arrivals.time_of(1e9) == 3 * MAX_PIECES - 1


# Words


def test_a_word_is_late_by_what_passed_since_its_audio_came() -> None:
    stream = Stream()
    stream.meter.told(partial(2.0), now=2.5)
    stream.meter.told(final(2.0), now=4.0)
    assert stream.sum("word_shown") == pytest.approx(0.5)
    assert stream.sum("word_final") == pytest.approx(2.0)
    assert stream.sum("first_word") == pytest.approx(0.5)


def test_a_word_is_shown_once() -> None:
    stream = Stream()
    stream.meter.told(partial(1.0, 2.0), now=2.5)
    stream.meter.told(partial(1.0, 2.0, 3.0), now=3.5)
    stream.meter.told(final(1.0, 2.0, 3.0), now=5.0)
    assert stream.count("word_shown") == 3
    assert stream.count("word_final") == 3
    assert stream.sum("word_shown") == pytest.approx(1.5 + 0.5 + 0.5)


def test_a_word_whose_end_moves_is_shown_once() -> None:
    stream = Stream()
    stream.meter.told(partial(1.9), now=2.5)
    stream.meter.told(partial(2.0), now=3.0)
    assert stream.count("word_shown") == 1


def test_without_partials_a_word_is_shown_when_it_is_final() -> None:
    stream = Stream()
    stream.meter.told(final(3.0), now=5.0)
    assert stream.sum("word_shown") == stream.sum("first_word") == pytest.approx(2.0)


def test_only_the_first_word_is_the_first() -> None:
    stream = Stream()
    stream.meter.told(final(1.0), now=2.0)
    stream.meter.told(final(2.0), now=4.0)
    assert stream.count("first_word") == 1


def test_an_empty_partial_shows_nothing() -> None:
    stream = Stream()
    stream.meter.told(Partial(1.0, 1.0, ""), now=3.0)
    assert stream.count("word_shown") == 0


def test_words_of_the_stream_that_is_resumed_are_not_new() -> None:
    metrics = Metrics()
    meter = StreamMeter(metrics, "/stream")
    meter.resumed(5.0)
    meter.arrived(1.0, 6.0, now=100.0)
    meter.told(partial(4.8, 5.9), now=101.0)
    families = metrics.collect()
    assert value_of(families, "word_shown_delay_seconds_sum") == 1.0
    assert value_of(families, "streams_resumed_total", route="/stream") == 1


def test_words_without_any_audio_are_not_measured() -> None:
    metrics = Metrics()
    StreamMeter(metrics).told(final(1.0), now=3.0)
    assert value_of(metrics.collect(), "word_final_delay_seconds_count") == 0


def test_failures_that_a_client_is_told_of_count() -> None:
    stream = Stream()
    stream.meter.told(Failed("engine_failed", "it broke", fatal=False), now=1.0)
    families = stream.metrics.collect()
    assert value_of(families, "failures_total", code="engine_failed") == 1
    assert "whisper_serve_rejections_total" not in names_of(families)


# The whole


def test_audio_and_how_it_ended_are_counted() -> None:
    stream = Stream(spoken_s=4)
    with stream.meter.stream():
        stream.meter.code = 1000
    families = stream.metrics.collect()
    assert value_of(families, "audio_seconds_total", kind="stream") == 4.0
    assert value_of(families, "streams_begun_total", route="/stream") == 1
    assert value_of(families, "streams_ended_total", route="/stream", code="1000") == 1


def test_a_stream_that_breaks_has_ended_too() -> None:
    stream = Stream()
    with pytest.raises(ZeroDivisionError), stream.meter.stream():
        raise ZeroDivisionError
    assert value_of(stream.metrics.collect(), "streams_ended_total", code="gone") == 1
