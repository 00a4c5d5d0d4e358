from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.api.fakes import SEGMENTS, Lines
from tests.observability.collector import collecting
from whisper_serve.config import TracingConfig
from whisper_serve.engines.base import DecodeTask, Lane
from whisper_serve.errors import EngineFailed
from whisper_serve.observability.context import Bound, current
from whisper_serve.observability.exporting import start_exporting
from whisper_serve.serving.told import told
from whisper_serve.text.transcript import DecodeStats, Hypothesis

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TASK = DecodeTask(
    np.zeros(32_000, np.int16),
    prefix="forced words",
    lane=Lane.LIVE_FINAL,
    request_id="r-1",
    session_id="s-1",
    caller="radio",
    traceparent=f"00-{TRACE}-{PARENT}-01",
)
STATS = DecodeStats(0.5, 0.25, 0.75, batch_size=3, fallbacks=1, temperature=0.2)
HEARD = Hypothesis(SEGMENTS, "de", 0.9, STATS)


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler, logger = Lines(), logging.getLogger("whisper_serve.performance")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


async def heard(
    answer: Hypothesis | Exception = HEARD, *, with_text: bool = False, task: DecodeTask = TASK
) -> Bound:
    """What was bound while the engine worked."""
    seen = []

    async def work() -> Hypothesis:
        await asyncio.sleep(0)
        seen.append(current())
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert await told(task, work(), model="base", with_text=with_text) == answer
    return seen[0]


async def test_a_window_is_one_line(lines: Lines) -> None:
    await heard()
    [record] = lines.records
    assert record.getMessage() == "a window was heard: 2.0 s"
    assert vars(record)["fields"] == {
        "audio_s": 2.0,
        "queued_s": 0.5,
        "encoded_s": 0.25,
        "decoded_s": 0.75,
        "real_time_factor": 0.5,
        "lane": "live_final",
        "batch_size": 3,
        "temperature": 0.2,
        "fallbacks": 1,
        "model": "base",
    }


async def test_what_was_heard_is_told_when_it_may_be(lines: Lines) -> None:
    await heard(with_text=True)
    [record] = lines.records
    fields: dict[str, Any] = vars(record)["fields"]
    assert fields["text"].split() == ["Grüße,", "Welt", "&", "<alle>."]


async def test_the_engine_s_lines_say_whose_window_it_was(lines: Lines) -> None:
    assert await heard() == Bound("r-1", "s-1", "radio", TASK.traceparent)
    assert lines.request_ids == ["r-1"]
    assert await heard(task=DecodeTask(TASK.samples)) == Bound()


async def test_a_window_that_failed_is_no_line(lines: Lines) -> None:
    with pytest.raises(EngineFailed):
        await heard(EngineFailed("CUDA"))
    assert lines.records == []


async def test_the_engine_s_work_is_a_part_of_the_trace() -> None:
    with collecting() as collector:
        exporting = start_exporting(TracingConfig(otlp_endpoint=collector.url), "asr")
        assert exporting is not None
        try:
            await heard()
            spans = {span.name: span for span in collector.spans(5)}
        finally:
            exporting.close()
    engine, batch = spans["engine"], spans["batch"]
    assert (engine.trace_id, engine.parent_id) == (TRACE, PARENT)
    assert {spans[name].parent_id for name in ("queue", "batch")} == {engine.span_id}
    assert {spans[name].parent_id for name in ("encode", "decode")} == {batch.span_id}
    lengths = {name: span.seconds for name, span in spans.items() if name != "engine"}
    assert lengths == pytest.approx({"queue": 0.5, "batch": 1.0, "encode": 0.25, "decode": 0.75})
    assert batch.attributes == {"whisper_serve.batch_size": 3}
    assert spans["decode"].attributes["whisper_serve.temperature"] == 0.2
    assert engine.attributes["whisper_serve.model"] == "base"
    assert not any(b"Welt" in body or b"forced" in body for body in collector.bodies)


async def test_without_a_trace_of_who_asked_there_is_a_new_one() -> None:
    with collecting() as collector:
        exporting = start_exporting(TracingConfig(otlp_endpoint=collector.url), "asr")
        assert exporting is not None
        try:
            await heard(task=replace(TASK, traceparent=""))
            spans = {span.name: span for span in collector.spans(5)}
        finally:
            exporting.close()
    assert spans["engine"].parent_id == ""
