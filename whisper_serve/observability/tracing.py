"""Traces: what was done for a request, where, and how long each part of it took.

All of this does nothing until `spans_go_to` names a tracer, which `exporting.py` makes. A span is
a piece of work; those of one request form a tree over all processes. Another process goes on from
a `traceparent`. Source: W3C Trace Context, https://www.w3.org/TR/trace-context/.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from whisper_serve.observability.context import NOTHING, current

__all__ = ["INVALID_SPAN", "Span", "SpanKind"]

Value = str | bool | int | float
NANOSECONDS = 1_000_000_000
_UNTRACED = nullcontext(INVALID_SPAN)
_W3C = TraceContextTextMapPropagator()


class Destination:
    """Where the spans of this process go; nowhere without a tracer."""

    tracer: Tracer | None = None


_destination = Destination()


def spans_go_to(tracer: Tracer | None) -> None:
    _destination.tracer = tracer


def is_traced() -> bool:
    return _destination.tracer is not None


def span(
    name: str,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    attributes: Mapping[str, Value] | None = None,
    headers: Mapping[str, str] | None = None,
) -> AbstractContextManager[Span]:
    """A span as long as the context; what is begun in it is part of it. One that is left by an
    exception says which kind, and not what it tells.

    `headers`: those of whoever asked for the work, in lower case; else it is part of the span
    around it.
    """
    tracer = _destination.tracer
    if tracer is None:
        return _UNTRACED
    parent = None if headers is None else _W3C.extract(headers, Context())
    return _begun(
        tracer.start_as_current_span(
            name,
            parent,
            kind,
            attributes,
            record_exception=False,
            set_status_on_exception=False,
        )
    )


@contextmanager
def _begun(current_span: AbstractContextManager[Span]) -> Iterator[Span]:
    with current_span as begun:
        try:
            yield begun
        except BaseException as exc:
            if isinstance(exc, Exception):  # else nobody waits for it any more
                fail(begun, getattr(exc, "code", type(exc).__name__))
            raise


def fail(failed: Span, kind: str) -> None:
    """`kind`: a code or the name of a class, and nothing that may hold what a client sent."""
    failed.set_attribute("error.type", kind)
    failed.set_status(Status(StatusCode.ERROR))


def past_span(
    name: str,
    began_ns: int,
    seconds: float,
    *,
    attributes: Mapping[str, Value] | None = None,
    part_of: Span | None = None,
) -> Span:
    """Work that is done, as somebody else has timed it. `began_ns`: since 1970. `part_of`: of
    the current span without it."""
    if _destination.tracer is None:
        return INVALID_SPAN
    parent = None if part_of is None else trace.set_span_in_context(part_of)
    done = _destination.tracer.start_span(name, parent, attributes=attributes, start_time=began_ns)
    done.end(began_ns + int(seconds * NANOSECONDS))
    return done


def current_traceparent() -> str:
    """What another process needs to go on with the trace; empty when there is none."""
    headers: dict[str, str] = {}
    if is_traced():
        _W3C.inject(headers)
    return headers.get("traceparent", "")


def current_trace() -> tuple[str, str]:
    """The ids of the trace and of its span, as hex, for the log; `-` when there is none."""
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        return trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id)
    traceparent = current().traceparent
    if traceparent == NOTHING:
        return NOTHING, NOTHING
    _, trace_id, span_id, _ = traceparent.split("-")
    return trace_id, span_id
