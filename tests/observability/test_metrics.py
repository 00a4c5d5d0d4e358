from __future__ import annotations

import threading
import time
import timeit
from collections.abc import Iterator

import pytest

from tests.observability.measured import names_of, value_of
from whisper_serve.observability.instruments import INSTRUMENTS, Instrument
from whisper_serve.observability.metrics import Answered, Metrics, Reading

WINDOW = Answered("file", audio_s=10.0, queued_s=0.1, encoded_s=0.5, decoded_s=2.0)
# Many times what it takes: 10 µs a window, 3 µs a request here.
MOST_RECORDING_S = 0.0002


# What is recorded


def test_a_request_counts_by_its_route_and_status() -> None:
    metrics = Metrics()
    metrics.request_answered("POST", "/transcribe", 200, 0.3)
    metrics.request_answered("POST", "/transcribe", 503, 0.001)
    families = metrics.collect()
    route = {"method": "POST", "route": "/transcribe"}
    assert value_of(families, "requests_total", **route, status="200") == 1
    assert value_of(families, "requests_total", **route, status="503") == 1
    assert value_of(families, "request_duration_seconds_count", **route) == 2
    assert value_of(families, "request_duration_seconds_sum", **route) == pytest.approx(0.301)
    assert value_of(families, "request_duration_seconds_bucket", **route, le="0.25") == 1


def test_a_request_is_in_progress_until_it_ends_however_it_ends() -> None:
    metrics = Metrics()
    with metrics.request():
        assert value_of(metrics.collect(), "requests_in_progress") == 1
    with pytest.raises(ZeroDivisionError), metrics.request():
        raise ZeroDivisionError
    assert value_of(metrics.collect(), "requests_in_progress") == 0


def test_what_was_turned_away_is_a_failure_too() -> None:
    metrics = Metrics()
    metrics.failed("overloaded", rejected=True)
    metrics.failed("engine_failed", rejected=False)
    families = metrics.collect()
    assert value_of(families, "failures_total", code="overloaded") == 1
    assert value_of(families, "failures_total", code="engine_failed") == 1
    assert value_of(families, "rejections_total", reason="overloaded") == 1


@pytest.mark.parametrize(("code", "shown"), [(1000, "1000"), (None, "gone")])
def test_a_stream_counts_by_how_it_ended(code: int | None, shown: str) -> None:
    metrics = Metrics()
    metrics.stream_ended("/stream", code, 12.0)
    families = metrics.collect()
    assert value_of(families, "streams_ended_total", route="/stream", code=shown) == 1
    assert value_of(families, "stream_duration_seconds_sum") == 12.0


def test_an_answered_window_tells_what_it_cost() -> None:
    metrics = Metrics()
    metrics.window_answered(WINDOW._replace(hotter=True, rows=4))
    families = metrics.collect()
    assert value_of(families, "windows_total", lane="file", outcome="ok") == 1
    assert value_of(families, "window_audio_seconds_total", lane="file", outcome="ok") == 10.0
    assert value_of(families, "queue_seconds_sum", lane="file") == 0.1
    assert value_of(families, "encode_seconds_sum", lane="file") == 0.5
    assert value_of(families, "decode_seconds_sum", lane="file") == 2.0
    assert value_of(families, "real_time_factor_sum", lane="file") == 0.25
    assert value_of(families, "batch_size_sum") == 4
    assert value_of(families, "temperature_fallbacks_total", lane="file") == 1


def test_a_window_without_audio_has_no_real_time_factor() -> None:
    metrics = Metrics()
    metrics.window_answered(WINDOW._replace(audio_s=0.0))
    assert "whisper_serve_real_time_factor_count" not in names_of(metrics.collect())


def test_a_window_that_failed_tells_why_and_how_much_audio_it_had() -> None:
    metrics = Metrics()
    metrics.window_failed("live_partial", "superseded", 3.0)
    lost = {"lane": "live_partial", "outcome": "superseded"}
    assert value_of(metrics.collect(), "windows_total", **lost) == 1
    assert value_of(metrics.collect(), "window_audio_seconds_total", **lost) == 3.0


def test_threads_lose_nothing() -> None:
    metrics = Metrics()

    def record() -> None:
        for _ in range(1000):
            metrics.window_answered(WINDOW)

    threads = [threading.Thread(target=record) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert value_of(metrics.collect(), "windows_total", lane="file", outcome="ok") == 4000


def test_two_of_them_know_nothing_of_each_other() -> None:
    one, other = Metrics(), Metrics()
    one.audio_taken("file", 3.0)
    assert "whisper_serve_audio_seconds_total" not in names_of(other.collect())


# What is read


def test_what_is_read_is_read_anew_each_time() -> None:
    metrics, waiting = Metrics(), [1.0]
    metrics.read(lambda: [Reading("windows_waiting", waiting[0])])
    assert value_of(metrics.collect(), "windows_waiting") == 1
    waiting[0] = 7.0
    assert value_of(metrics.collect(), "windows_waiting") == 7


def test_readings_of_one_metric_come_together() -> None:
    metrics = Metrics()
    metrics.read(lambda: [Reading("jobs", 1, ("queued",))])
    metrics.read(lambda: [Reading("jobs", 2, ("failed",))])
    families = metrics.collect()
    assert [family.name for family in families].count("whisper_serve_jobs") == 1
    assert value_of(families, "jobs", status="queued") == 1
    assert value_of(families, "jobs", status="failed") == 2


def test_a_reading_that_fails_takes_no_other_along(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Iterator[Reading]:
        yield Reading("windows_waiting", 1.0)
        raise OSError("no such device")

    metrics = Metrics()
    metrics.read(broken)
    metrics.read(lambda: [Reading("windows_running", 2.0)])
    families = metrics.collect()
    assert value_of(families, "windows_running") == 2
    assert "whisper_serve_windows_waiting" not in names_of(families)
    assert "a metric could not be read" in caplog.text
    assert value_of(metrics.collect(), "reading_failures_total") >= 1


def test_a_reading_with_labels_that_are_not_declared_is_a_mistake() -> None:
    metrics = Metrics()
    metrics.read(lambda: [Reading("windows_waiting", 1.0, ("file",))])
    with pytest.raises(ValueError, match="zip"):
        metrics.collect()


def test_nobody_is_told_when_a_series_began() -> None:
    metrics = Metrics()
    metrics.window_answered(WINDOW)
    assert not any(name.endswith("_created") for name in names_of(metrics.collect()))


# The table


def test_no_name_is_declared_twice() -> None:
    names = [instrument.name for instrument in INSTRUMENTS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("instrument", INSTRUMENTS, ids=lambda instrument: instrument.name)
def test_names_tell_what_they_are(instrument: Instrument) -> None:
    assert instrument.name.endswith("_total") == (instrument.kind == "counter")
    assert bool(instrument.buckets) == (instrument.kind == "histogram")
    assert list(instrument.buckets) == sorted(set(instrument.buckets))
    assert instrument.help.endswith(".")
    # The scrape adds these.
    assert not {"deployment", "replica", "le"} & set(instrument.labels)
    assert not (instrument.kind == "histogram" and instrument.is_read)


def test_recording_takes_microseconds(capsys: pytest.CaptureFixture[str]) -> None:
    metrics, times = Metrics(), 2000
    # Of this thread alone: others compute on the machine too.
    clock = timeit.Timer(lambda: metrics.window_answered(WINDOW), timer=time.thread_time)
    window_s = clock.timeit(times) / times
    clock = timeit.Timer(
        lambda: metrics.request_answered("GET", "/", 200, 0.1), timer=time.thread_time
    )
    request_s = clock.timeit(times) / times
    with capsys.disabled():
        print(f"\n{window_s * 1e6:.1f} µs a window, {request_s * 1e6:.1f} µs a request")  # noqa: T201
    assert max(window_s, request_s) < MOST_RECORDING_S
