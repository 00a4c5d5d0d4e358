"""The seams of the service: what the pipeline asks of the outside, and tests replace."""

from __future__ import annotations

from typing import Protocol

from whisper_serve.engines.base import DecodeTask
from whisper_serve.text.transcript import Hypothesis


class Transcribes(Protocol):
    """Something that hears one window, wherever the engine is.

    Raises `Overloaded`, `EngineUnavailable`, `DeadlineExceeded` or `EngineFailed`, and for live
    partials `Superseded`. Cancelling the call gives the work up.
    """

    async def transcribe(self, task: DecodeTask) -> Hypothesis: ...
