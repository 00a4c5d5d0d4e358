"""A collector of traces: takes what OpenTelemetry's exporter sends, over HTTP, on a real socket."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

PATIENCE_S = 20.0


@dataclass(frozen=True)
class Taken:
    """A span as it came. `kind` and `status` are the numbers of the protocol."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    status: int
    seconds: float
    attributes: dict[str, Any]
    resource: dict[str, Any]


class Collector:
    """`spans` have come; `url` is where they go to."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.paths: list[str] = []
        self.bodies: list[bytes] = []
        self._spans: list[Taken] = []
        self._came = threading.Condition()

    def take(self, path: str, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        with self._came:
            self.paths.append(path)
            self.bodies.append(body)
            self._spans += _spans_of(request)
            self._came.notify_all()

    def spans(self, count: int) -> list[Taken]:
        """So many at least, in the order in which they came."""
        deadline = time.monotonic() + PATIENCE_S
        with self._came:
            self._came.wait_for(lambda: len(self._spans) >= count, deadline - time.monotonic())
            return [*self._spans]


def _spans_of(request: ExportTraceServiceRequest) -> Iterator[Taken]:
    for group in request.resource_spans:
        resource = {each.key: _plain(each.value) for each in group.resource.attributes}
        for scope in group.scope_spans:
            for span in scope.spans:
                yield Taken(
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.kind,
                    span.status.code,
                    (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                    {each.key: _plain(each.value) for each in span.attributes},
                    resource,
                )


def _plain(value: AnyValue) -> Any:
    return getattr(value, value.WhichOneof("value") or "string_value")


@contextmanager
def collecting() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.take(self.path, body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        collector = Collector(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()
