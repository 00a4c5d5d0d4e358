from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import numpy as np
import pytest

from whisper_serve.config import LoggingConfig
from whisper_serve.engines.base import DecodeTask, Engine
from whisper_serve.engines.build import EngineOptions
from whisper_serve.engines.fake import FakeWorker
from whisper_serve.engines.intake import Limits
from whisper_serve.engines.threaded import ThreadedEngine
from whisper_serve.serving.app import most_windows
from whisper_serve.serving.asr import WhisperASR
from whisper_serve.text.transcript import Hypothesis

OPTIONS = EngineOptions(
    model="none",
    model_dir=Path(),
    sources=("model_dir",),
    engine="ctranslate2",
    device="cpu",
    compute_type="int8",
    workers=2,
    max_queued=7,
    rows=4,
)
TASK = DecodeTask(np.zeros(2 * 16_000, np.int16))


class Held:
    """A replica whose engine decodes nothing before it is told to."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.begun = threading.Event()
        logging = LoggingConfig(file=None)
        self.replica = WhisperASR(OPTIONS, logging, stuck_after_s=0.05, build=self._build)

    def _build(self, _options: EngineOptions) -> Engine:
        return ThreadedEngine(FakeWorker([self._hear]), Limits(max_queued=7, rows=1))

    def _hear(self, _task: DecodeTask) -> Hypothesis:
        self.begun.set()
        assert self.go_on.wait(10)
        return Hypothesis((), "en", 1.0)


async def test_audio_that_waits_is_told_for_autoscaling() -> None:
    held = Held()
    assert held.replica.record_autoscaling_stats()["waiting_audio_s"] == 0.0
    asked = [asyncio.ensure_future(held.replica.transcribe(TASK)) for _ in range(3)]
    await asyncio.to_thread(held.begun.wait, 10)
    stats = held.replica.record_autoscaling_stats()
    assert stats == {"waiting_audio_s": 4.0, "waiting_windows": 2.0}
    held.go_on.set()
    await asyncio.gather(*asked)


async def test_a_decode_that_never_ends_makes_the_replica_unhealthy() -> None:
    held = Held()
    await held.replica.check_health()
    asked = asyncio.ensure_future(held.replica.transcribe(TASK))
    await asyncio.to_thread(held.begun.wait, 10)
    await asyncio.sleep(0.1)
    with pytest.raises(RuntimeError, match="has been running"):
        await held.replica.check_health()
    held.go_on.set()
    await asked


def test_serve_lets_through_what_an_engine_can_hold() -> None:
    assert most_windows(OPTIONS) == 3 * 7 + 2 * 4
