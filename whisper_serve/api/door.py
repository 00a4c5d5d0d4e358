"""The door of one process: what comes in is counted here, or turned away before it is read."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from whisper_serve.api.draining import Drain
from whisper_serve.api.shedding import Bounds, Headroom
from whisper_serve.config import Config
from whisper_serve.errors import EngineUnavailable
from whisper_serve.streaming.listener import LiveWindow

if TYPE_CHECKING:
    from whisper_serve.api.services import ChecksEngines

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0


class Door:
    """Lets files and streams in as long as there is room for them and `drain` has not begun.

    `engines` are asked how they are beside what comes in, at most once a second, so that nobody
    waits for their answer; without any, files are not turned away.
    """

    def __init__(self, config: Config, engines: ChecksEngines | None = None) -> None:
        self.drain = Drain()
        self.headroom = Headroom(
            Bounds(
                max_answer_s=config.streaming.max_answer_s,
                max_waiting_audio_s=config.limits.max_waiting_audio_s,
                max_queued=config.deployment.max_queued_windows,
            )
        )
        self._engines = engines
        self._looking: asyncio.Task[None] | None = None
        self._looked_at = float("-inf")

    def admit_file(self) -> None:
        """Before anything of it is read. Raises `Draining` or `Overloaded`."""
        self.drain.require_open()
        self._look()
        self.headroom.require_file(time.monotonic())

    @contextmanager
    def admit_stream(self) -> Iterator[None]:
        """A place for one. Raises `Draining` or `Overloaded`."""
        self.drain.require_open()
        self._look()
        self.headroom.require_stream(time.monotonic())
        stream = self.headroom.admitted(time.monotonic())
        try:
            yield
        finally:
            self.headroom.left(stream)

    @contextmanager
    def asking(self, window: LiveWindow) -> Iterator[None]:
        """Around having `window` decoded. How long a failure took says nothing."""
        if not window.final:
            yield
            return
        asked = self.headroom.asked(time.monotonic(), is_lean=not window.thorough)
        try:
            yield
        except BaseException:
            self.headroom.gave_up(asked)
            raise
        self.headroom.answered(asked, time.monotonic())

    def _look(self) -> None:
        now = time.monotonic()
        if self._engines is None or self._looking or now - self._looked_at < LOOK_EVERY_S:
            return
        self._looked_at = now
        self._looking = asyncio.create_task(self._ask(self._engines))

    async def _ask(self, engines: ChecksEngines) -> None:
        try:
            status = await engines.status()
        except EngineUnavailable as exc:
            logger.debug("no engine says how it is: %s", exc)
        else:
            self.headroom.engine_said(status.load, status.info.device, time.monotonic())
        finally:
            self._looking = None
