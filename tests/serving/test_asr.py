from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.serving.multiplexing import shelf
from whisper_serve.config import LoggingConfig
from whisper_serve.engines.base import DecodeTask, Engine
from whisper_serve.engines.build import EngineOptions
from whisper_serve.engines.fake import FakeWorker
from whisper_serve.engines.intake import Limits
from whisper_serve.engines.threaded import ThreadedEngine
from whisper_serve.errors import UnknownModel
from whisper_serve.serving.asr import WhisperASR
from whisper_serve.serving.models import Choice
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


FURTHER = DecodeTask(np.zeros(3 * 16_000, np.int16), model="tuned")
SILENT = LoggingConfig(file=None)


class Held:
    """A replica whose engines decode nothing before they are told to. `models` are the
    options of further ones."""

    def __init__(self, *models: EngineOptions) -> None:
        self.go_on = threading.Event()
        self.begun = threading.Event()
        self.built: list[str] = []
        choice = Choice({Path(options.model).name: options for options in models})
        self.replica = WhisperASR(
            OPTIONS, SILENT, 0.05, self._build, choice, multiplex=shelf(choice.at_once)
        )

    def _build(self, options: EngineOptions) -> Engine:
        self.built.append(options.model)
        return ThreadedEngine(FakeWorker([self._hear]), Limits(max_queued=7, rows=1))

    def _hear(self, _task: DecodeTask) -> Hypothesis:
        self.begun.set()
        assert self.go_on.wait(10)
        return Hypothesis((), "en", 1.0)

    async def hears(self, task: DecodeTask) -> asyncio.Task[Hypothesis]:
        """A window that is being decoded."""
        self.begun.clear()
        asked = asyncio.create_task(self.replica.transcribe(task))
        assert await asyncio.to_thread(self.begun.wait, 10)
        return asked


@pytest.fixture
def tuned(tmp_path: Path) -> EngineOptions:
    """Of a model that looks as if it were there."""
    folder = tmp_path / "tuned"
    folder.mkdir()
    for name in ("model.bin", "config.json"):
        (folder / name).write_text("{}")
    return replace(OPTIONS, model=str(folder), model_dir=tmp_path)


async def test_audio_that_waits_is_told_for_autoscaling() -> None:
    held = Held()
    assert held.replica.record_autoscaling_stats()["waiting_audio_s"] == 0.0
    asked = [asyncio.ensure_future(held.replica.transcribe(TASK)) for _ in range(3)]
    await asyncio.to_thread(held.begun.wait, 10)
    stats = held.replica.record_autoscaling_stats()
    assert (stats["waiting_audio_s"], stats["decoded_audio_s"]) == (4.0, 0.0)
    assert stats["busy_s"] > 0
    held.go_on.set()
    await asyncio.gather(*asked)
    stats = held.replica.record_autoscaling_stats()
    assert (stats["waiting_audio_s"], stats["decoded_audio_s"]) == (0.0, 6.0)


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


# Further models


async def test_only_its_own_model_is_loaded_when_a_replica_starts(tuned: EngineOptions) -> None:
    held = Held(tuned)
    held.go_on.set()
    assert held.built == ["none"]
    await held.replica.transcribe(FURTHER)
    assert held.built == ["none", tuned.model]


def test_a_replica_does_not_start_without_the_weights_of_all_models(tmp_path: Path) -> None:
    held: list[Held] = []
    with pytest.raises(UnknownModel, match="'nowhere'"):
        held.append(Held(replace(OPTIONS, model="nowhere", model_dir=tmp_path)))
    assert held == []


async def test_all_models_count_in_what_there_is_to_do(tuned: EngineOptions) -> None:
    held = Held(tuned)
    asked = [await held.hears(TASK), await held.hears(FURTHER)]
    asked += [asyncio.create_task(held.replica.transcribe(task)) for task in (TASK, FURTHER)]
    await asyncio.sleep(0)
    status = await held.replica.status()
    assert (status.load.running, status.load.waiting, status.load.waiting_s) == (2, 2, 5.0)
    assert held.replica.record_autoscaling_stats()["waiting_audio_s"] == 5.0
    held.go_on.set()
    await asyncio.gather(*asked)


async def test_a_further_model_that_is_stuck_makes_the_replica_unhealthy(
    tuned: EngineOptions,
) -> None:
    held = Held(tuned)
    asked = await held.hears(FURTHER)
    await asyncio.sleep(0.1)
    with pytest.raises(RuntimeError, match="has been running"):
        await held.replica.check_health()
    held.go_on.set()
    await asked
    await held.replica.check_health()
