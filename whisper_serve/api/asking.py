"""Having a stream's windows decoded, and asking again while that may help."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from whisper_serve.api.models import ServedModels
from whisper_serve.config import StreamingConfig
from whisper_serve.engines.base import DecodeTask, Lane
from whisper_serve.errors import (
    DeadlineExceeded,
    EngineFailed,
    EngineUnavailable,
    Overloaded,
    WhisperServeError,
)
from whisper_serve.observability.context import current_request_id
from whisper_serve.ports import Transcribes
from whisper_serve.streaming.listener import LiveWindow
from whisper_serve.streaming.messages import StreamConfig
from whisper_serve.text.transcript import Hypothesis

# A window for final text is asked for so often; each time the replicas are tried in turn.
ATTEMPTS = 3


class Asker:
    """Asks the engines behind `port` for the windows of one stream."""

    def __init__(
        self,
        port: Transcribes,
        settings: StreamingConfig,
        models: ServedModels,
        session_id: str,
        *,
        longest_wait_s: float,
    ) -> None:
        self._port = port
        self._settings = settings
        self._models = models
        self._session_id = session_id
        self._longest_wait_s = longest_wait_s

    async def ask(
        self, window: LiveWindow, config: StreamConfig, *, on_retry: Callable[[], None]
    ) -> Hypothesis:
        """One answer; a window for partial text is asked for only once. Raises what the port
        raises; only a window for partial text can be `Superseded`."""
        attempts = ATTEMPTS if window.final else 1
        for attempt in range(1, attempts + 1):
            try:
                return await self._port.transcribe(self._task(window, config))
            except (Overloaded, EngineUnavailable) as exc:
                error: WhisperServeError = exc
                wait_s = min(exc.retry_after_s, self._longest_wait_s)
            except (DeadlineExceeded, EngineFailed) as exc:
                error, wait_s = exc, 0.0
            if attempt < attempts:
                on_retry()
                await asyncio.sleep(wait_s)
        raise error

    def _task(self, window: LiveWindow, config: StreamConfig) -> DecodeTask:
        return DecodeTask(
            samples=window.samples,
            language=window.language,
            task=config.task,
            context=f"{config.prompt} {window.context}".strip(),
            prefix=window.prefix,
            hotwords=config.hotwords,
            beam_size=self._beam_size(window, config),
            full_padding=window.thorough,
            best_of=config.best_of,
            suppress_tokens=config.suppress_tokens,
            lane=Lane.LIVE_FINAL if window.final else Lane.LIVE_PARTIAL,
            session_id=self._session_id,
            request_id=current_request_id(),
            model=self._models.resolve(config.model),
            timeout_s=self._settings.window_timeout_s,
        )

    def _beam_size(self, window: LiveWindow, config: StreamConfig) -> int:
        """As the client says, or as configured while there is time for it."""
        if not window.final:
            return 1
        if config.beam_size is not None:
            return config.beam_size
        return self._settings.beam_size if window.thorough else 1
