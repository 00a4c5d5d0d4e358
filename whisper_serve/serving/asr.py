"""What runs in an engine replica: one engine per replica, stateless between windows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from whisper_serve.api.services import EngineStatus
from whisper_serve.config import LoggingConfig
from whisper_serve.engines.base import DecodeTask, Engine
from whisper_serve.engines.build import EngineOptions, build_engine
from whisper_serve.observability.logs import configure_logging
from whisper_serve.text.transcript import Hypothesis

EngineBuilder = Callable[[EngineOptions], Engine]


class WhisperASR:
    """Loads its model before it reports healthy, then answers windows.

    `stuck_after_s`: a decode that runs longer than this will never end; the replica then
    reports itself unhealthy, and Serve replaces it.
    """

    def __init__(
        self,
        options: EngineOptions,
        logging: LoggingConfig,
        stuck_after_s: float,
        build: EngineBuilder = build_engine,
    ) -> None:
        configure_logging(logging, "asr")
        self._stuck_after_s = stuck_after_s
        self._engine = build(options)

    async def transcribe(self, task: DecodeTask) -> Hypothesis:
        """Being cancelled takes the window out of the engine's queue."""
        return await asyncio.wrap_future(self._engine.submit(task))

    async def status(self) -> EngineStatus:
        return EngineStatus(self._engine.info, self._engine.load())

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What an autoscaling policy of Serve may look at: work that waits, in seconds of audio,
        which says more than the number of requests does."""
        load = self._engine.load()
        return {"waiting_audio_s": load.waiting_s, "waiting_windows": float(load.waiting)}

    async def check_health(self) -> None:
        running_s = self._engine.load().oldest_running_s
        if running_s > self._stuck_after_s:
            raise RuntimeError(f"a decode has been running for {running_s:.0f} s")
