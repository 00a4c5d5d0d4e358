"""What an engine replica tells of each window: a line in the performance log, and its part of
the trace."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable
from typing import Any

from whisper_serve.engines.base import DecodeTask, bound_to
from whisper_serve.observability.tracing import Span, SpanKind, Value, is_traced, past_span, span
from whisper_serve.text.transcript import DecodeStats, Hypothesis, text_of

performance = logging.getLogger("whisper_serve.performance")


async def told(
    task: DecodeTask, answer: Awaitable[Hypothesis], *, model: str, with_text: bool
) -> Hypothesis:
    """What `answer` gives. `model`: what decodes it; `with_text`: whether what was heard may be
    in the log."""
    began_ns = time.time_ns()
    headers = {"traceparent": task.traceparent}
    with bound_to(task), span("engine", kind=SpanKind.SERVER, headers=headers) as engine:
        hypothesis = await answer
        facts = _facts(task, hypothesis.stats, model)
        _trace(engine, began_ns, hypothesis.stats, facts)
        _log(facts, hypothesis, with_text=with_text)
    return hypothesis


def _facts(task: DecodeTask, stats: DecodeStats, model: str) -> dict[str, Value]:
    work_s = stats.encoded_s + stats.decoded_s
    return {
        "audio_s": round(task.duration_s, 3),
        "queued_s": round(stats.queued_s, 3),
        "encoded_s": round(stats.encoded_s, 3),
        "decoded_s": round(stats.decoded_s, 3),
        "real_time_factor": round(work_s / task.duration_s, 4),
        "lane": task.lane.name.lower(),
        "batch_size": stats.batch_size,
        "temperature": stats.temperature,
        "fallbacks": stats.fallbacks,
        "model": model,
    }


def _log(facts: dict[str, Value], hypothesis: Hypothesis, *, with_text: bool) -> None:
    fields: dict[str, Any] = dict(facts)
    if with_text:
        fields["text"] = text_of(hypothesis.segments)
    form = "a window was heard: %(audio_s).1f s"
    performance.info(form, fields, extra={"fields": fields})


def _trace(engine: Span, began_ns: int, stats: DecodeStats, facts: dict[str, Value]) -> None:
    """The engine has timed its work itself, on threads of its own."""
    if not is_traced():
        return
    engine.set_attributes({f"whisper_serve.{name}": value for name, value in facts.items()})
    taken_ns = began_ns + int(stats.queued_s * 1e9)
    encoded_ns = taken_ns + int(stats.encoded_s * 1e9)
    past_span("queue", began_ns, stats.queued_s)
    size: dict[str, Value] = {"whisper_serve.batch_size": stats.batch_size}
    work_s = stats.encoded_s + stats.decoded_s
    batch = past_span("batch", taken_ns, work_s, attributes=size)
    past_span("encode", taken_ns, stats.encoded_s, part_of=batch)
    decode: dict[str, Value] = {
        "whisper_serve.temperature": stats.temperature,
        "whisper_serve.fallbacks": stats.fallbacks,
    }
    past_span("decode", encoded_ns, stats.decoded_s, attributes=decode, part_of=batch)
