"""The client for code without an event loop: `AsyncClient` in a thread that has one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from whisper_serve.client import upload
from whisper_serve.client.answers import Transcription
from whisper_serve.client.async_client import AsyncClient
from whisper_serve.client.events import Event
from whisper_serve.client.options import StreamOptions, TranscribeOptions
from whisper_serve.client.sources import Source
from whisper_serve.client.stream import Stream
from whisper_serve.errors import ClientError

if TYPE_CHECKING:
    from typing_extensions import Unpack

Result = TypeVar("Result")


class Client:
    """Takes what `AsyncClient` takes, and does and raises the same, without `await`.

    Close it, or use it as a context manager: a thread waits for its calls. `progress` and
    iterables that are given as sources are called in other threads.
    """

    def __init__(self, base_url: str = "http://127.0.0.1:8000", **options: Any) -> None:
        self._client = AsyncClient(base_url, **options)
        self._loop = _LoopThread()

    def transcribe(
        self,
        recording: upload.Recording,
        *,
        verbose: bool = False,
        progress: upload.Sent | None = None,
        **options: Unpack[TranscribeOptions],
    ) -> Transcription:
        return self._loop.run(
            self._client.transcribe(recording, verbose=verbose, progress=progress, **options)
        )

    def stream(
        self, source: Source, *, realtime: bool = False, **config: Unpack[StreamOptions]
    ) -> Iterator[Event]:
        """Leaving the iteration breaks the stream off."""
        return self._events(self._client.stream(source, realtime=realtime, **config))

    def transcribe_stream(
        self, source: Source, *, realtime: bool = False, **config: Unpack[StreamOptions]
    ) -> str:
        return self._loop.run(self._client.transcribe_stream(source, realtime=realtime, **config))

    def _events(self, stream: Stream) -> Iterator[Event]:
        try:
            while (event := self._loop.run(_next(stream))) is not None:
                yield event
        finally:
            if self._loop.is_open:
                self._loop.run(stream.aclose())

    def close(self) -> None:
        """Streams that are still open are broken off."""
        if self._loop.is_open:
            self._loop.run(self._client.aclose())
            self._loop.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


async def _next(stream: Stream) -> Event | None:
    """None behind the last one: a StopAsyncIteration cannot leave a coroutine."""
    async for event in stream:
        return event
    return None


class _LoopThread:
    """An event loop in a daemon thread."""

    def __init__(self) -> None:
        self.is_open = True
        self._started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._live()), name="whisper_serve client", daemon=True
        )
        self._thread.start()
        self._loop, self._over = self._started.result()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of `work`, which ends when the caller is interrupted."""
        if not self.is_open:
            work.close()
            raise ClientError("the client is closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        self.is_open = False
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    async def _live(self) -> None:
        over = asyncio.Event()
        self._started.set_result((asyncio.get_running_loop(), over))
        await over.wait()
