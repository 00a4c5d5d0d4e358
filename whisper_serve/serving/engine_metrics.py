"""What an engine replica measures of its windows, and what it has to tell of its engines."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Iterable

from whisper_serve.engines.base import DecodeTask, EngineInfo, EngineLoad
from whisper_serve.errors import WhisperServeError
from whisper_serve.observability.machine import GpuUse
from whisper_serve.observability.metrics import Answered, Metrics, Reading
from whisper_serve.text.transcript import Hypothesis


async def measured(metrics: Metrics, task: DecodeTask, answer: Awaitable[Hypothesis]) -> Hypothesis:
    """The answer to `task`, counted."""
    lane = task.lane.name.lower()
    try:
        hypothesis = await answer
    except BaseException as exc:
        metrics.window_failed(lane, outcome_of(exc), task.duration_s)
        raise
    metrics.window_answered(_answered(lane, task, hypothesis))
    return hypothesis


def outcome_of(exc: BaseException) -> str:
    if isinstance(exc, WhisperServeError):
        return exc.code
    return "cancelled" if isinstance(exc, asyncio.CancelledError) else WhisperServeError.code


def _answered(lane: str, task: DecodeTask, hypothesis: Hypothesis) -> Answered:
    stats = hypothesis.stats
    return Answered(
        lane,
        audio_s=task.duration_s,
        queued_s=stats.queued_s,
        encoded_s=stats.encoded_s,
        decoded_s=stats.decoded_s,
        hotter=stats.temperature > task.temperature.first,
        rows=stats.batch_size,
    )


def load_readings(load: EngineLoad) -> list[Reading]:
    return [
        Reading("windows_waiting", load.waiting),
        Reading("waiting_audio_seconds", load.waiting_s),
        Reading("windows_running", load.running),
        Reading("oldest_window_seconds", load.oldest_running_s),
    ]


def engine_readings(infos: Iterable[EngineInfo]) -> list[Reading]:
    return [
        Reading("engine_info", 1.0, (info.engine, info.model, info.device, info.compute_type))
        for info in infos
    ]


def gpu_use() -> GpuUse:
    """Of this process's GPUs."""
    import pynvml  # noqa: PLC0415 - only where there is a GPU

    return GpuUse(pynvml, os.environ)
