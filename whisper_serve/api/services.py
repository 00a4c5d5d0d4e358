"""What the routes need, built once per process and handed to the application."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from whisper_serve.api.models import ServedModels
from whisper_serve.config import Config
from whisper_serve.engines.base import EngineInfo, EngineLoad
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


@dataclass(frozen=True)
class Services:
    """`transcriber`, `port` and `engines` reach the same replicas. `signing_key` is shared by
    all processes that answer for the service."""

    config: Config
    transcriber: Transcriber
    port: Transcribes
    engines: ChecksEngines
    signing_key: str

    @cached_property
    def models(self) -> ServedModels:
        return ServedModels(self.config)
