"""What the routes need, built once per process and handed to the application."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from whisper_serve.api.auth.usage import AudioInMemory, CountsAudio
from whisper_serve.api.door import Door
from whisper_serve.api.models import ServedModels
from whisper_serve.api.oversight import Oversees, ThisProcess
from whisper_serve.config import Config
from whisper_serve.engines.base import EngineInfo, EngineLoad
from whisper_serve.jobs.orders import Orders
from whisper_serve.observability.metrics import Metrics
from whisper_serve.pipeline import Transcriber
from whisper_serve.ports import Transcribes


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """What one engine answered when it was asked how it is."""

    info: EngineInfo
    load: EngineLoad


class ChecksEngines(Protocol):
    """Asks the engines how they are, without waiting behind their work."""

    async def status(self) -> EngineStatus:
        """One engine's answer. Raises `EngineUnavailable` when none answers in time."""
        ...


def nobody() -> None:
    """Is there to be told."""


@dataclass(frozen=True)
class Services:
    """`transcriber`, `port` and `engines` reach the same replicas. `signing_key` is shared by
    all processes that answer for the service. `usage` counts the audio of callers."""

    config: Config
    transcriber: Transcriber
    port: Transcribes
    engines: ChecksEngines
    signing_key: str
    oversight: Oversees = field(default_factory=ThisProcess)
    # None: there is no database for jobs.
    jobs: Orders | None = None
    # Told when there is something to do for those who work on jobs.
    nudge_runners: Callable[[], None] = nobody
    usage: CountsAudio = field(default_factory=AudioInMemory)

    @property
    def metrics(self) -> Metrics:
        return self.oversight.metrics

    @cached_property
    def door(self) -> Door:
        return Door(self.config, self.engines)

    @cached_property
    def models(self) -> ServedModels:
        return ServedModels(self.config)
