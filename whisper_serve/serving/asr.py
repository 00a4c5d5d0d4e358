"""What runs in an engine replica: an engine for each model, stateless between windows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ray import serve

from whisper_serve.api.services import EngineStatus
from whisper_serve.config import LoggingConfig, MetricsConfig, TracingConfig
from whisper_serve.engines.base import DecodeTask, Engine, EngineLoad
from whisper_serve.engines.build import EngineOptions, build_engine, fetch_weights
from whisper_serve.observability.exporting import start_exporting
from whisper_serve.observability.exposition import Snapshot
from whisper_serve.observability.logs import configure_logging
from whisper_serve.observability.metrics import Reading
from whisper_serve.serving.engine_metrics import (
    engine_readings,
    gpu_use,
    load_readings,
    measured,
)
from whisper_serve.serving.memory import FreedMemory, MemoryGuard
from whisper_serve.serving.metrics import ReplicaMetrics
from whisper_serve.serving.models import Choice, FurtherModels, Multiplex, together
from whisper_serve.serving.told import told
from whisper_serve.serving.workload import Workload
from whisper_serve.text.transcript import Hypothesis

EngineBuilder = Callable[[EngineOptions], Engine]
NO_CHOICE = Choice()
USUAL_METRICS = MetricsConfig()
NO_TRACES = TracingConfig()


class WhisperASR:
    """Loads its model before it reports healthy, then answers windows; a model of `choice` is
    loaded when a window names it.

    `stuck_after_s`: a decode that runs longer than this will never end; the replica then
    reports itself unhealthy, and Serve replaces it; so it does when its process has more than
    `max_memory_gib`. `build` makes each engine. `multiplex` is Serve's, which works in replicas
    only.
    """

    def __init__(
        self,
        options: EngineOptions,
        logging: LoggingConfig,
        stuck_after_s: float,
        build: EngineBuilder = build_engine,
        choice: Choice = NO_CHOICE,
        *,
        multiplex: Multiplex | None = None,
        metrics: MetricsConfig = USUAL_METRICS,
        max_memory_gib: float | None = None,
        tracing: TracingConfig = NO_TRACES,
    ) -> None:
        configure_logging(logging, "asr")
        self._exporting = start_exporting(tracing, "asr")
        self._with_text = logging.transcripts
        self._stuck_after_s = stuck_after_s
        self._memory = MemoryGuard(max_memory_gib)
        self._freed = FreedMemory()
        self._workload = Workload()
        for further in choice.options.values():
            fetch_weights(further, progress=False)
        self._engine = build(options)
        multiplex = multiplex or serve.multiplexed(max_num_models_per_replica=choice.at_once)
        self._further = FurtherModels(choice, build, multiplex)
        self._measured = ReplicaMetrics(metrics, max_memory_gib)
        self._measured.metrics.read(self._readings)
        if options.device == "cuda":
            self._measured.metrics.read(gpu_use().read)

    async def transcribe(self, task: DecodeTask) -> Hypothesis:
        """Being cancelled takes the window out of the engine's queue."""
        model = task.model or self._engine.info.model
        answer = told(task, self._transcribe(task), model=model, with_text=self._with_text)
        with self._workload.window(task.duration_s):
            return await measured(self._measured.metrics, task, answer)

    async def _transcribe(self, task: DecodeTask) -> Hypothesis:
        if task.model:
            return await self._further.transcribe(task)
        return await asyncio.wrap_future(self._engine.submit(task))

    async def status(self) -> EngineStatus:
        return EngineStatus(self._engine.info, self._load())

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What `EnginePolicy` looks at: work that waits, in seconds of audio, which says more than
        the number of requests does; and what was done since the start."""
        return {
            "waiting_audio_s": self._load().waiting_s,
            "decoded_audio_s": self._workload.answered_s,
            "busy_s": self._workload.busy_s,
        }

    async def check_health(self) -> None:
        running_s = self._load().oldest_running_s
        if running_s > self._stuck_after_s:
            raise RuntimeError(f"a decode has been running for {running_s:.0f} s")
        await self._freed.give_back()
        self._memory.check()

    async def snapshot(self) -> Snapshot:
        """What this replica measured, for an ingress that gathers it."""
        return await self._measured.snapshot()

    def _readings(self) -> list[Reading]:
        infos = [self._engine.info, *self._further.infos()]
        return [*load_readings(self._load()), *engine_readings(infos)]

    def __del__(self) -> None:
        """Serve calls it before the replica ends."""
        if (exporting := getattr(self, "_exporting", None)) is not None:
            exporting.close()

    def _load(self) -> EngineLoad:
        """Of all engines."""
        return together([self._engine.load(), *self._further.loads()])
