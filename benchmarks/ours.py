"""Our engine in this process, deployed as the service would deploy it on this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from benchmarks.corpus import Recording
from benchmarks.models import CPUS, Model
from whisper_serve.config import (
    ChunkingConfig,
    Config,
    DeploymentConfig,
    LimitsConfig,
    ModelConfig,
)
from whisper_serve.engines.base import DecodeTask, Engine
from whisper_serve.engines.build import build_engine
from whisper_serve.pipeline import TranscribeOptions, Transcriber
from whisper_serve.ports import Transcribes
from whisper_serve.text.transcript import Hypothesis

MANY_WINDOWS = 10_000


def make_config(model: Model, **settings: Any) -> Config:
    """The defaults, and `settings` of the section `model`; a whole corpus may wait."""
    return Config(
        model=ModelConfig(size=str(model.folder()), device="cpu", **settings),
        deployment=DeploymentConfig(max_queued_windows=MANY_WINDOWS),
    )


def side_by_side(config: Config, window_s: float) -> Config:
    """The same with shorter windows that do not wait for each other: most work at a time."""
    return config.model_copy(
        update={
            "chunking": ChunkingConfig(chunk_duration=window_s, use_context=False),
            "limits": LimitsConfig(max_windows_per_file=8),
        }
    )


def load_engine(config: Config) -> Engine:
    """With as many workers and threads as the service has where all CPUs are the engine's."""
    from whisper_serve.serving.app import engine_options  # noqa: PLC0415 - imports Ray
    from whisper_serve.serving.plan import Node, make_plan  # noqa: PLC0415

    return build_engine(engine_options(config, make_plan(config, [Node(CPUS)])))


class Submits(Protocol):
    """What of an `Engine` a port needs."""

    def submit(self, task: DecodeTask) -> Future[Hypothesis]: ...


class EnginePort:
    """Implements `Transcribes` with an engine in this process."""

    def __init__(self, engine: Submits) -> None:
        self._engine = engine

    async def transcribe(self, task: DecodeTask) -> Hypothesis:
        return await asyncio.wrap_future(self._engine.submit(task))


async def transcribe_all(
    port: Transcribes, config: Config, recordings: Sequence[Recording], at_once: int
) -> list[str]:
    """The texts of English `recordings`, `at_once` of them at the same time. The request id of
    each window is the path of its recording."""
    transcriber, slots = Transcriber(port, config), asyncio.Semaphore(at_once)

    async def transcribe(recording: Recording) -> str:
        options = TranscribeOptions(language="en", request_id=str(recording.path))
        async with slots:
            with recording.path.open("rb") as file:
                return (await transcriber.transcribe(file, options)).text

    return await asyncio.gather(*map(transcribe, recordings))
