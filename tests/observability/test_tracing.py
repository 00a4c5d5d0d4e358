from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from tests.observability.collector import Collector, collecting
from whisper_serve.config import TracingConfig
from whisper_serve.errors import Overloaded
from whisper_serve.observability.context import bound
from whisper_serve.observability.exporting import Exporting, start_exporting, traces_url
from whisper_serve.observability.tracing import (
    INVALID_SPAN,
    SpanKind,
    current_trace,
    current_traceparent,
    fail,
    is_traced,
    past_span,
    span,
)

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ASKED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
OK, ERROR = 0, 2


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture
def exporting(collector: Collector) -> Iterator[Exporting]:
    exporting = start_exporting(TracingConfig(otlp_endpoint=collector.url), "test")
    assert exporting is not None
    yield exporting
    exporting.close()


# Off


def test_without_a_collector_nothing_is_made_and_nothing_is_traced() -> None:
    assert start_exporting(TracingConfig(), "test") is None
    assert not is_traced()
    with span("one", headers=ASKED) as one:
        assert one is INVALID_SPAN
        assert current_traceparent() == ""
        assert current_trace() == ("-", "-")
        assert past_span("two", 0, 1.0) is INVALID_SPAN
        fail(one, "broken")


def test_a_log_line_knows_the_trace_of_who_asked_all_the_same() -> None:
    with bound(traceparent=ASKED["traceparent"]):
        assert current_trace() == (TRACE, PARENT)


# On


def test_spans_within_each_other_are_a_tree(exporting: Exporting, collector: Collector) -> None:
    with span("outer", kind=SpanKind.SERVER, attributes={"n": 1}), span("inner"):
        pass
    exporting.close()
    inner, outer = collector.spans(2)
    assert (outer.name, inner.name) == ("outer", "inner")
    assert (outer.parent_id, inner.parent_id) == ("", outer.span_id)
    assert inner.trace_id == outer.trace_id
    assert outer.attributes == {"n": 1}
    assert collector.paths == ["/v1/traces"]


def test_they_say_what_they_are_of(exporting: Exporting, collector: Collector) -> None:
    with span("one"):
        pass
    exporting.flush()
    [one] = collector.spans(1)
    assert one.resource["service.name"] == "whisper_serve"
    assert one.resource["service.instance.id"].startswith("test-")


def test_a_trace_of_the_client_goes_on(exporting: Exporting, collector: Collector) -> None:
    with span("one", headers=ASKED):
        assert current_trace()[0] == TRACE
        handed_on = {"traceparent": current_traceparent()}
    with span("two", headers=handed_on):
        pass
    exporting.close()
    one, two = collector.spans(2)
    assert (one.trace_id, one.parent_id) == (TRACE, PARENT)
    assert (two.trace_id, two.parent_id) == (TRACE, one.span_id)


@pytest.mark.parametrize("sent", ["", "00-0-0-01", "x" * 5000, "ff-" + TRACE + "-" + PARENT])
def test_what_is_no_trace_begins_a_new_one(
    sent: str, exporting: Exporting, collector: Collector
) -> None:
    with span("one", headers={"traceparent": sent}):
        pass
    exporting.close()
    [one] = collector.spans(1)
    assert one.parent_id == ""
    assert one.trace_id != TRACE


def test_a_span_with_headers_is_no_part_of_the_one_around_it(
    exporting: Exporting, collector: Collector
) -> None:
    with span("around"), span("asked", headers={}):
        pass
    exporting.close()
    asked, around = collector.spans(2)
    assert asked.parent_id == ""
    assert asked.trace_id != around.trace_id


async def test_tasks_belong_to_the_span_in_which_they_began(
    exporting: Exporting, collector: Collector
) -> None:
    async def work() -> None:
        with span("work"):
            await asyncio.to_thread(_nested)

    def _nested() -> None:
        with span("nested"):
            pass

    with span("request"):
        task = asyncio.create_task(work())
    await task
    exporting.close()
    spans = {each.name: each for each in collector.spans(3)}
    assert spans["work"].parent_id == spans["request"].span_id
    assert spans["nested"].parent_id == spans["work"].span_id


def test_work_that_is_done_is_a_span_too(exporting: Exporting, collector: Collector) -> None:
    with span("engine"):
        batch = past_span("batch", time.time_ns(), 2.5, attributes={"size": 3})
        past_span("decode", time.time_ns(), 1.5, part_of=batch)
    exporting.close()
    spans = {each.name: each for each in collector.spans(3)}
    assert spans["batch"].parent_id == spans["engine"].span_id
    assert spans["decode"].parent_id == spans["batch"].span_id
    assert spans["batch"].seconds == pytest.approx(2.5)
    assert spans["batch"].attributes == {"size": 3}


@pytest.mark.parametrize(
    ("raised", "kind", "status"),
    [
        (Overloaded(1.0), "overloaded", ERROR),
        (ValueError("what was said"), "ValueError", ERROR),
        (asyncio.CancelledError(), None, OK),
    ],
)
def test_a_failure_says_its_kind_and_nothing_that_was_sent(
    raised: BaseException,
    kind: str | None,
    status: int,
    exporting: Exporting,
    collector: Collector,
) -> None:
    with pytest.raises(type(raised)), span("one"):
        raise raised
    exporting.close()
    [one] = collector.spans(1)
    assert one.status == status
    assert one.attributes.get("error.type") == kind
    assert not any(b"what was said" in body for body in collector.bodies)


def test_only_a_part_is_sampled(collector: Collector) -> None:
    config = TracingConfig(otlp_endpoint=collector.url, sample_ratio=0.0)
    exporting = start_exporting(config, "test")
    assert exporting is not None
    with span("not chosen"):
        assert current_trace()[0] != "-"
    with span("the client's wish", headers=ASKED):
        pass
    exporting.close()
    assert [each.name for each in collector.spans(1)] == ["the client's wish"]


# The end


def test_closing_ends_tracing_and_may_be_repeated(exporting: Exporting) -> None:
    exporting.close()
    exporting.close()
    assert not is_traced()
    with span("one") as one:
        assert one is INVALID_SPAN


def test_a_collector_that_is_not_there_holds_nobody_up() -> None:
    exporting = start_exporting(TracingConfig(otlp_endpoint="http://127.0.0.1:9"), "test")
    assert exporting is not None
    began = time.monotonic()
    for _ in range(1000):
        with span("one"):
            pass
    assert time.monotonic() - began < 2.0
    exporting.close()
    assert time.monotonic() - began < 12.0


@pytest.mark.parametrize(
    "endpoint",
    ["http://host:4318", "http://host:4318/", "http://host:4318/v1/traces"],
)
def test_a_collector_is_named_with_or_without_the_path(endpoint: str) -> None:
    assert traces_url(endpoint) == "http://host:4318/v1/traces"


def test_a_collector_behind_a_path_keeps_it() -> None:
    assert traces_url("https://host/otlp") == "https://host/otlp/v1/traces"
