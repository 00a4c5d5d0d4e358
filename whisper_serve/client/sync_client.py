"""The client for code without an event loop: `AsyncClient` in a thread that has one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from whisper_serve.client import upload
from whisper_serve.client.answers import Transcription
from whisper_serve.client.async_client import AsyncClient
from whisper_serve.client.events import Event
from whisper_serve.client.jobs import AsyncJobs, Job, Status, Written
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
        self.jobs = Jobs(self._client.jobs, self._loop)

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


class Jobs:
    """`AsyncJobs` without `await`; `Client.jobs`."""

    def __init__(self, jobs: AsyncJobs, loop: _LoopThread) -> None:
        self._jobs = jobs
        self._loop = loop

    def submit(
        self,
        recording: upload.Recording | None = None,
        *,
        url: str | None = None,
        webhook_url: str | None = None,
        idempotency_key: str | None = None,
        progress: upload.Sent | None = None,
        **options: Unpack[TranscribeOptions],
    ) -> Job:
        work = self._jobs.submit(
            recording,
            url=url,
            webhook_url=webhook_url,
            idempotency_key=idempotency_key,
            progress=progress,
            **options,
        )
        return self._loop.run(work)

    def get(self, job_id: str) -> Job:
        return self._loop.run(self._jobs.get(job_id))

    def wait(self, job_id: str, timeout_s: float | None = None) -> Job:
        return self._loop.run(self._jobs.wait(job_id, timeout_s))

    @overload
    def result(self, job_id: str) -> Transcription: ...

    @overload
    def result(self, job_id: str, response_format: Written) -> str: ...

    def result(self, job_id: str, response_format: Written | None = None) -> Transcription | str:
        if response_format is None:
            return self._loop.run(self._jobs.result(job_id))
        return self._loop.run(self._jobs.result(job_id, response_format))

    def cancel(self, job_id: str) -> Job:
        return self._loop.run(self._jobs.cancel(job_id))

    def redrive(self, job_id: str) -> Job:
        return self._loop.run(self._jobs.redrive(job_id))

    def resend_webhook(self, job_id: str) -> Job:
        return self._loop.run(self._jobs.resend_webhook(job_id))

    def delete(self, job_id: str) -> None:
        self._loop.run(self._jobs.delete(job_id))

    def list(self, status: Status | None = None) -> Iterator[Job]:
        jobs = self._jobs.list(status)
        while (job := self._loop.run(_next(jobs))) is not None:
            yield job


async def _next(items: AsyncIterator[Result]) -> Result | None:
    """None behind the last one: a StopAsyncIteration cannot leave a coroutine."""
    async for item in items:
        return item
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
