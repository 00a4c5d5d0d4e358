"""The numbers of one process: how much, how fast, how often it fails.

A process has one `Metrics`, which is passed in where something happens. Recording takes a few
microseconds and never waits; what has to be looked up (queues, memory, GPUs) is read when
somebody asks. `instruments.py` says what there is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from whisper_serve.observability.instruments import INSTRUMENTS, Instrument

logger = logging.getLogger(__name__)

READ = {instrument.name: instrument for instrument in INSTRUMENTS if instrument.is_read}


class Reading(NamedTuple):
    """The value of a metric now; `labels` in the order in which the table declares them."""

    name: str
    value: float
    labels: tuple[str, ...] = ()


Read = Callable[[], Iterable[Reading]]


class Answered(NamedTuple):
    """A window that an engine answered. `hotter`: its text is of a higher temperature than the
    first; `rows`: how many were decoded together."""

    lane: str
    audio_s: float
    queued_s: float
    encoded_s: float
    decoded_s: float
    hotter: bool = False
    rows: int = 1


class Metrics:
    """Thread-safe. Names and labels are those of `instruments.py`, without their prefix."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        recorded = [instrument for instrument in INSTRUMENTS if not instrument.is_read]
        self._counters = {i.name: self._counter(i) for i in recorded if i.kind == "counter"}
        self._gauges = {i.name: self._gauge(i) for i in recorded if i.kind == "gauge"}
        self._histograms = {i.name: self._histogram(i) for i in recorded if i.kind == "histogram"}
        self._reads: list[Read] = []

    def read(self, read: Read) -> None:
        """Have `read` asked whenever somebody wants to know. It is called in a thread."""
        self._reads.append(read)

    def collect(self) -> list[Metric]:
        """All that is known by now. It may block for a few milliseconds."""
        read = families_of(reading for read in self._reads for reading in self._asked(read))
        return [*map(_without_creation, self._registry.collect()), *read]

    # Requests

    @contextmanager
    def request(self) -> Iterator[None]:
        """While a request is being answered."""
        with self._gauges["requests_in_progress"].track_inprogress():
            yield

    def request_answered(self, method: str, route: str, status: int, duration_s: float) -> None:
        self._counters["requests_total"].labels(method, route, status).inc()
        self._histograms["request_duration_seconds"].labels(method, route).observe(duration_s)

    def failed(self, code: str, *, rejected: bool) -> None:
        """`rejected`: it was turned away at the door."""
        self._counters["failures_total"].labels(code).inc()
        if rejected:
            self._counters["rejections_total"].labels(code).inc()

    # Streams and files

    def stream_began(self, route: str) -> None:
        self._counters["streams_begun_total"].labels(route).inc()

    def stream_resumed(self, route: str) -> None:
        self._counters["streams_resumed_total"].labels(route).inc()

    def stream_ended(self, route: str, code: int | None, duration_s: float) -> None:
        """`code`: its close code, None when the client was gone."""
        shown = "gone" if code is None else str(code)
        self._counters["streams_ended_total"].labels(route, shown).inc()
        self._histograms["stream_duration_seconds"].observe(duration_s)

    def first_word(self, delay_s: float) -> None:
        self._histograms["first_word_delay_seconds"].observe(delay_s)

    def word_shown(self, delay_s: float) -> None:
        self._histograms["word_shown_delay_seconds"].observe(delay_s)

    def word_final(self, delay_s: float) -> None:
        self._histograms["word_final_delay_seconds"].observe(delay_s)

    def audio_taken(self, kind: str, audio_s: float) -> None:
        """`kind`: `file`, `stream` or `job`."""
        self._counters["audio_seconds_total"].labels(kind).inc(audio_s)

    # Windows

    def window_came(self, lane: str, answer_s: float) -> None:
        """The engines have answered, whatever it was."""
        self._histograms["window_answer_seconds"].labels(lane).observe(answer_s)

    def window_retried(self, reason: str) -> None:
        self._counters["window_retries_total"].labels(reason).inc()

    def window_answered(self, window: Answered) -> None:
        lane, histograms = window.lane, self._histograms
        self._window_left(lane, "ok", window.audio_s)
        histograms["queue_seconds"].labels(lane).observe(window.queued_s)
        histograms["encode_seconds"].labels(lane).observe(window.encoded_s)
        histograms["decode_seconds"].labels(lane).observe(window.decoded_s)
        histograms["batch_size"].observe(window.rows)
        if window.audio_s > 0:
            factor = (window.encoded_s + window.decoded_s) / window.audio_s
            histograms["real_time_factor"].labels(lane).observe(factor)
        if window.hotter:
            self._counters["temperature_fallbacks_total"].labels(lane).inc()

    def window_failed(self, lane: str, outcome: str, audio_s: float) -> None:
        """`outcome`: the code of the error, or `cancelled`."""
        self._window_left(lane, outcome, audio_s)

    def _window_left(self, lane: str, outcome: str, audio_s: float) -> None:
        self._counters["windows_total"].labels(lane, outcome).inc()
        self._counters["window_audio_seconds_total"].labels(lane, outcome).inc(audio_s)

    # Jobs

    def job_ended(self, status: str, duration_s: float) -> None:
        self._histograms["job_duration_seconds"].labels(status).observe(duration_s)

    def webhook_sent(self, outcome: str) -> None:
        """`outcome`: `delivered`, `put_off` or `failed`."""
        self._counters["webhooks_total"].labels(outcome).inc()

    # Scrapes

    def replica_missed(self, deployment: str) -> None:
        self._counters["scrape_misses_total"].labels(deployment).inc()

    # In between

    def _asked(self, read: Read) -> list[Reading]:
        """One that fails must not take the others with it."""
        try:
            return [*read()]
        except Exception:
            self._counters["reading_failures_total"].inc()
            logger.exception("a metric could not be read")
            return []

    def _counter(self, instrument: Instrument) -> Counter:
        return Counter(
            instrument.full_name, instrument.help, instrument.labels, registry=self._registry
        )

    def _gauge(self, instrument: Instrument) -> Gauge:
        return Gauge(
            instrument.full_name, instrument.help, instrument.labels, registry=self._registry
        )

    def _histogram(self, instrument: Instrument) -> Histogram:
        return Histogram(
            instrument.full_name,
            instrument.help,
            instrument.labels,
            buckets=instrument.buckets,
            registry=self._registry,
        )


def families_of(readings: Iterable[Reading]) -> list[Metric]:
    """The readings as what is exported, those of one metric together."""
    families: dict[str, Metric] = {}
    for reading in readings:
        instrument = READ[reading.name]
        family = families.setdefault(reading.name, _family(instrument))
        labels = dict(zip(instrument.labels, reading.labels, strict=True))
        family.add_sample(instrument.full_name, labels, reading.value)
    return list(families.values())


def _family(instrument: Instrument) -> Metric:
    if instrument.kind == "counter":
        return CounterMetricFamily(instrument.full_name, instrument.help)
    return GaugeMetricFamily(instrument.full_name, instrument.help)


def _without_creation(family: Metric) -> Metric:
    """Without the times at which its series began, which nobody asks for."""
    family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
    return family
