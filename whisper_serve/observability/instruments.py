"""What is measured: every metric of the service, declared in one table.

`docs/metrics.md` lists the same metrics, and a test holds the two together. Labels have few
values: templates of routes, codes of our own errors, lanes. Never a path that was asked for, a
caller, a request or a stream.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

PREFIX = "whisper_serve_"

# Of a request or a window, in seconds: from 5 ms, which nobody notices, to the minute behind
# which only files take longer.
LATENCY = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0)
# Of a word: close together where a listener begins to mind.
DELAY = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.5, 10.0, 15.0, 30.0, 60.0)
# Of a stream or a job, in seconds, up to a day.
LENGTH = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0)
# Seconds of computing for a second of audio: at 1 an engine only just keeps up.
FACTOR = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0)
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)

Kind = Literal["counter", "gauge", "histogram"]


class Instrument(NamedTuple):
    """A metric as it is exported. `is_read`: its values are read when somebody asks, not
    recorded when something happens."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    is_read: bool = False

    @property
    def full_name(self) -> str:
        """As it is exported; a histogram's series have `_bucket`, `_sum` and `_count` behind it."""
        return PREFIX + self.name


def _counter(name: str, about: str, *labels: str, is_read: bool = False) -> Instrument:
    return Instrument(name, "counter", about, labels, is_read=is_read)


def _reading(name: str, about: str, *labels: str) -> Instrument:
    return Instrument(name, "gauge", about, labels, is_read=True)


def _histogram(name: str, about: str, buckets: tuple[float, ...], *labels: str) -> Instrument:
    return Instrument(name, "histogram", about, labels, buckets)


REQUESTS = (
    _counter("requests_total", "HTTP requests that were answered.", "method", "route", "status"),
    _histogram(
        "request_duration_seconds",
        "From a request's first byte to its answer's last.",
        LATENCY,
        "method",
        "route",
    ),
    Instrument("requests_in_progress", "gauge", "HTTP requests that are being answered."),
    _counter(
        "rejections_total",
        "Requests and streams that were turned away: no key, no right, no room, too many.",
        "reason",
    ),
    _counter("failures_total", "Requests and handshakes that failed, by the error's code.", "code"),
)
STREAMS = (
    _reading("streams_open", "Live streams that are open."),
    _reading("streams_limit", "Live streams that may be open."),
    _counter("streams_begun_total", "Live streams that were admitted.", "route"),
    _counter("streams_resumed_total", "Live streams that went on with an earlier one.", "route"),
    _counter(
        "streams_ended_total",
        "Live streams that ended, by close code; `gone`: the client was not there any more.",
        "route",
        "code",
    ),
    _histogram("stream_duration_seconds", "How long live streams lasted.", LENGTH),
    _histogram(
        "first_word_delay_seconds",
        "From the arrival of a stream's first spoken word to the message that shows it.",
        DELAY,
    ),
    _histogram(
        "word_shown_delay_seconds",
        "From the arrival of a word's audio to the first message that shows it.",
        DELAY,
    ),
    _histogram(
        "word_final_delay_seconds",
        "From the arrival of a word's audio to the message that makes it final.",
        DELAY,
    ),
    _counter("audio_seconds_total", "Audio that was taken: `file`, `stream` or `job`.", "kind"),
)
ASKING = (
    _histogram(
        "window_answer_seconds",
        "From asking the engines for a window to their answer, all attempts included.",
        LATENCY,
        "lane",
    ),
    _counter(
        "window_retries_total",
        "Windows that were asked for once more; `replica_died`: their engine was gone.",
        "reason",
    ),
)
ENGINES = (
    _counter("windows_total", "Windows that left an engine: `ok`, or why not.", "lane", "outcome"),
    _counter(
        "window_audio_seconds_total",
        "Audio in the windows that left an engine.",
        "lane",
        "outcome",
    ),
    _histogram("queue_seconds", "How long windows waited in an engine.", LATENCY, "lane"),
    _histogram("encode_seconds", "How long windows took to be encoded.", LATENCY, "lane"),
    _histogram("decode_seconds", "How long windows took to be decoded.", LATENCY, "lane"),
    _histogram(
        "real_time_factor",
        "Seconds of encoding and decoding for a second of a window's audio.",
        FACTOR,
        "lane",
    ),
    _histogram("batch_size", "Windows in the batch that a window was decoded in.", ROWS),
    _counter(
        "temperature_fallbacks_total",
        "Windows whose text came from a higher temperature than the first.",
        "lane",
    ),
    _reading("windows_waiting", "Windows that wait in an engine."),
    _reading("waiting_audio_seconds", "Audio in the windows that wait in an engine."),
    _reading("windows_running", "Windows that are being decoded."),
    _reading("oldest_window_seconds", "Age of the decode that has run longest."),
    _reading(
        "engine_info",
        "Always 1, one for each model that is loaded.",
        *("engine", "model", "device", "compute_type"),
    ),
)
JOBS = (
    _reading("jobs", "Jobs in the database.", "status"),
    _histogram("job_duration_seconds", "From a job's start to its end.", LENGTH, "status"),
    _counter(
        "webhooks_total",
        "Attempts at webhooks: `delivered`, `put_off` until the next, or `failed` for good.",
        "outcome",
    ),
)
PROCESS = (
    _reading("process_resident_memory_bytes", "Memory that the process has."),
    _reading(
        "process_memory_limit_bytes",
        "Memory with which the process is replaced; `deployment.max_replica_memory_gib`.",
    ),
    _counter("process_cpu_seconds_total", "CPU time that the process has taken.", is_read=True),
    _reading("process_threads", "Threads of the process."),
    _reading("process_open_files", "Files and sockets that the process has open."),
    _reading("process_start_time_seconds", "When the process started, as Unix time."),
    _reading("gpu_memory_used_bytes", "Memory of a GPU that is in use, by anybody.", "gpu"),
    _reading("gpu_memory_total_bytes", "Memory of a GPU.", "gpu"),
    _reading("gpu_utilization_ratio", "Share of the time in which a GPU was computing.", "gpu"),
)
SERVICE = (
    _reading("build_info", "Always 1.", "version"),
    _reading("draining", "1 while nothing new is taken, before the process ends."),
    _reading(
        "breaker_state",
        "Of the circuit breaker before a model's engines: 0 closed, 1 half open, 2 open.",
        "model",
    ),
    _reading("replicas_answering", "Replicas that are in this scrape.", "of"),
    _counter(
        "scrape_misses_total",
        "Replicas that did not tell their metrics in time and were left out of a scrape.",
        "of",
    ),
    _counter("reading_failures_total", "Metrics that could not be read when somebody asked."),
)
INSTRUMENTS = (*REQUESTS, *STREAMS, *ASKING, *ENGINES, *JOBS, *PROCESS, *SERVICE)
