"""Sending traces to a collector, by OTLP over HTTP, from a thread of its own."""

from __future__ import annotations

import os

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from whisper_serve import __version__
from whisper_serve.config import TracingConfig
from whisper_serve.observability.tracing import spans_go_to

# A process that is killed takes along what it has not sent.
SEND_EVERY_MS = 1000
# Of one attempt to send, so that a collector that hangs does not hold up the end for long.
TIMEOUT_S = 3.0
PATH = "/v1/traces"


class Exporting:
    """Spans of this process go to a collector, until `close`."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._is_closed = False
        spans_go_to(provider.get_tracer("whisper_serve", __version__))

    def flush(self) -> None:
        """Send what waits."""
        self._provider.force_flush()

    def close(self) -> None:
        """Send what waits, and end. It may block for some seconds."""
        if not self._is_closed:
            self._is_closed = True
            spans_go_to(None)
            self._provider.shutdown()


def start_exporting(config: TracingConfig, process: str) -> Exporting | None:
    """Send the spans of the process called `process`; None when there are to be no traces."""
    if config.otlp_endpoint is None:
        return None
    resource = Resource.create(
        {
            "service.name": config.service_name,
            "service.version": __version__,
            "service.instance.id": f"{process}-{os.getpid()}",
            "process.pid": os.getpid(),
        }
    )
    sampler = ParentBased(TraceIdRatioBased(config.sample_ratio))
    provider = TracerProvider(sampler=sampler, resource=resource)
    exporter = OTLPSpanExporter(traces_url(config.otlp_endpoint), timeout=TIMEOUT_S)
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=SEND_EVERY_MS))
    return Exporting(provider)


def traces_url(endpoint: str) -> str:
    """Where traces go, at a collector that is named with or without the path for them."""
    return endpoint.rstrip("/").removesuffix(PATH) + PATH
