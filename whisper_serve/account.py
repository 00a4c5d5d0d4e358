"""What the windows of one recording or one live stream came to."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

from whisper_serve.engines.base import DecodeTask
from whisper_serve.observability.context import NOTHING, current
from whisper_serve.observability.tracing import SpanKind, Value, current_traceparent, span
from whisper_serve.ports import Transcribes
from whisper_serve.text.transcript import DecodeStats, Hypothesis

performance = logging.getLogger("whisper_serve.performance")


class Account:
    """Hears windows through `port`, and adds up what they cost. Each is a span of the current
    trace, and its task tells the engine's process whose it is.

    `windows` were answered, `failures` were not. `queued_s`, `encoded_s` and `decoded_s` are sums,
    `answer_s` is the longest that an answer took, `temperature` the highest that was needed.
    """

    def __init__(self, port: Transcribes) -> None:
        self._port = port
        self.windows = self.failures = self.fallbacks = self.repeats = 0
        self.queued_s = self.encoded_s = self.decoded_s = 0.0
        self.answer_s = self.temperature = 0.0

    async def transcribe(self, task: DecodeTask) -> Hypothesis:
        """Raises what the port raises."""
        began = time.monotonic()
        try:
            hypothesis = await self._traced(task)
        except BaseException:
            self.failures += 1
            raise
        self.answer_s = max(self.answer_s, time.monotonic() - began)
        self._add(hypothesis.stats)
        return hypothesis

    def report(self, what: str, audio_s: float, model: str) -> None:
        """One line for the performance log. `audio_s`: how long it was; `model`: empty is the
        default one."""
        fields = {"audio_s": round(audio_s, 3), **self._costs(audio_s), "model": model or "default"}
        form = f"{what}: %(audio_s).1f s, %(windows)d windows"
        performance.info(form, fields, extra={"fields": fields})

    async def _traced(self, task: DecodeTask) -> Hypothesis:
        attributes: dict[str, Value] = {
            "whisper_serve.audio_s": round(task.duration_s, 3),
            "whisper_serve.lane": task.lane.name.lower(),
            "whisper_serve.model": task.model or "default",
        }
        caller = current().caller
        with span("window", kind=SpanKind.CLIENT, attributes=attributes) as window:
            task = replace(
                task,
                caller="" if caller == NOTHING else caller,
                traceparent=current_traceparent(),
            )
            hypothesis = await self._port.transcribe(task)
            window.set_attribute("whisper_serve.attempts", hypothesis.stats.attempts)
        return hypothesis

    def _add(self, stats: DecodeStats) -> None:
        self.windows += 1
        self.fallbacks += stats.fallbacks
        self.repeats += stats.attempts - 1
        self.queued_s += stats.queued_s
        self.encoded_s += stats.encoded_s
        self.decoded_s += stats.decoded_s
        self.temperature = max(self.temperature, stats.temperature)

    def _costs(self, audio_s: float) -> dict[str, float]:
        work_s = self.encoded_s + self.decoded_s
        return {
            "windows": self.windows,
            "failures": self.failures,
            "repeats": self.repeats,
            "fallbacks": self.fallbacks,
            "temperature": self.temperature,
            "queued_s": round(self.queued_s, 3),
            "encoded_s": round(self.encoded_s, 3),
            "decoded_s": round(self.decoded_s, 3),
            "slowest_answer_s": round(self.answer_s, 3),
            "real_time_factor": round(work_s / audio_s, 4) if audio_s else 0.0,
        }
