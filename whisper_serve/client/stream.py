"""One live stream: a source on one side, a server that may go away on the other.

Three things go on side by side: audio is taken from the source, messages are written, and
messages are read. What they share and decide lies in the `Journal`.

What stops when: reading from the source waits while the journal has enough; writing waits
while too much is unsettled; reading from the server waits while `MAX_EVENTS` are not taken by
the user. What starts them again is always `_notify`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from whisper_serve.client.connection import LOST, Loss, judge
from whisper_serve.client.events import Event, Ready, Reconnecting
from whisper_serve.client.journal import KEEPALIVE, Journal
from whisper_serve.client.patience import Patience
from whisper_serve.errors import ConnectionLost

MAX_EVENTS = 256
CANCEL_AGAIN_S = 5.0

Dial = Callable[[], connect]
Pieces = AsyncGenerator[bytes, None]


class Stream(AsyncIterator[Event]):
    """The events of one stream. It begins with the first `await`, and ends by itself behind
    `Done`; close it to end it before."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def __anext__(self) -> Event:
        if self._closed:
            raise StopAsyncIteration
        if self._task is None:
            self._task = asyncio.ensure_future(self._conversation.run())
            self._task.add_done_callback(self._conversation.over)
        event = await self._conversation.next_event()
        if event is None:
            self._closed = True
            self._task.result()
            raise StopAsyncIteration
        return event

    async def aclose(self) -> None:
        """Break off; what is not final yet is lost."""
        self._closed = True
        if self._task is not None:
            await _end(self._task)

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        """Who leaves a loop over a stream forgets to close it."""
        if self._task is not None and not self._task.done():
            with suppress(RuntimeError):  # the loop is closed
                self._task.get_loop().call_soon_threadsafe(self._task.cancel)


class Conversation:
    """What goes on behind a `Stream`.

    `dial` opens a connection. `silence_s`: a server that says nothing for so long is gone.
    """

    def __init__(
        self,
        dial: Dial,
        pieces: Pieces,
        journal: Journal,
        patience: Patience,
        *,
        silence_s: float,
    ) -> None:
        self._dial = dial
        self._pieces = pieces
        self._journal = journal
        self._patience = patience
        self._silence_s = silence_s
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._changed = asyncio.Event()
        self._changes = 0
        self._ready_at = 0.0

    async def next_event(self) -> Event | None:
        """None when it is over."""
        event = await self._events.get()
        self._notify()
        return event

    def over(self, _task: object = None) -> None:
        self._events.put_nowait(None)

    async def run(self) -> None:
        """Until everything is settled. Raises what the source raises, `ServerRefused`,
        `UnexpectedAnswer` and `ConnectionLost`."""
        await _beside(self._talk(), self._take_audio())

    async def _take_audio(self) -> None:
        async with aclosing(self._pieces):
            async for piece in self._pieces:
                self._journal.add(piece)
                self._notify()
                await self._until(lambda: self._journal.wants_audio)
        self._journal.finish()
        self._notify()

    async def _talk(self) -> None:
        while (failure := await self._talk_once()) is not None:
            loss = judge(failure, self._journal.refusal, was_served=self._ready_at > 0)
            await self._wait(loss, failure)

    async def _talk_once(self) -> BaseException | None:
        """Over one connection. Returns what ended it too early."""
        try:
            socket = await self._dial()
            try:
                self._journal.connect()
                self._patience.connected(_now())
                await _beside(self._read(socket), self._write(socket))
            finally:
                await socket.close()
        except LOST as exc:
            return None if self._journal.is_done else exc
        return None

    async def _read(self, socket: ClientConnection) -> None:
        journal = self._journal
        while not journal.is_done:
            await self._until(lambda: self._events.qsize() < MAX_EVENTS)
            message = await self._message(socket)
            settled_s = journal.settled_s
            event = journal.receive(message)
            if journal.settled_s > settled_s:
                self._patience.progressed()
            if isinstance(event, Ready):
                self._ready_at = _now()
            if event is not None:
                self._events.put_nowait(event)
            self._notify()
            if journal.wants_to_leave:
                raise ConnectionAbortedError("the service is about to stop there")

    async def _message(self, socket: ClientConnection) -> str | bytes:
        """The next one. Raises `TimeoutError` when the server says nothing for too long.

        A timer rather than `wait_for`, which can swallow a cancellation before Python 3.12.
        """
        silent = False

        def give_up() -> None:
            nonlocal silent
            silent = True
            socket.transport.abort()

        timer = asyncio.get_running_loop().call_later(self._silence_s, give_up)
        try:
            return await socket.recv()
        except ConnectionClosed as exc:
            if silent:
                raise TimeoutError(f"the server said nothing for {self._silence_s:g} s") from exc
            raise
        finally:
            timer.cancel()

    async def _write(self, socket: ClientConnection) -> None:
        """Ends when the connection does; `_read` says why."""
        sent_at = _now()
        with suppress(ConnectionClosed):
            while True:
                message = self._journal.next_message() if _now() >= self._may_send_at else None
                if message is None:
                    message = await self._pause(sent_at)
                if message is not None:
                    await socket.send(message)
                    sent_at = _now()
                    self._notify()

    @property
    def _may_send_at(self) -> float:
        return self._ready_at + self._journal.wait_until_s

    async def _pause(self, sent_at: float) -> str | None:
        """Until something changes, or may be sent, or a sign of life is due; this is returned."""
        changes, may_send_at = self._changes, self._may_send_at
        due = sent_at + self._journal.keepalive_s
        wake_at = min(due, may_send_at) if may_send_at > _now() else due
        timer = asyncio.get_running_loop().call_at(wake_at, self._notify)
        try:
            await self._until(lambda: self._changes != changes)
        finally:
            timer.cancel()
        return KEEPALIVE if _now() >= due else None

    async def _wait(self, loss: Loss, failure: BaseException) -> None:
        """Before another try. Raises `ServerRefused` or `ConnectionLost` when there is none."""
        if not self._journal.can_resume:
            raise ConnectionLost(f"{loss.reason}; a container cannot be resumed") from failure
        if loss.too_fast:
            self._journal.slow_down()
        delay_s = self._delay_s(loss)
        if delay_s is None:
            lost = ConnectionLost(f"the service cannot be reached: {loss.reason}")
            raise loss.refused or lost from failure
        self._events.put_nowait(Reconnecting(self._patience.attempt, loss.reason, delay_s))
        await asyncio.sleep(delay_s)

    def _delay_s(self, loss: Loss) -> float | None:
        """None: it has failed for too long."""
        now, delay_s = _now(), None
        if loss.parting or self._journal.is_draining:
            delay_s = self._patience.parted(now)
        return self._patience.failed(now, loss.retry_after_s) if delay_s is None else delay_s

    def _notify(self) -> None:
        self._changes += 1
        self._changed.set()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _beside(main: Coroutine[Any, Any, None], other: Coroutine[Any, Any, None]) -> None:
    """Run both until `main` is over or one of them fails, and leave none running."""
    tasks = asyncio.ensure_future(main), asyncio.ensure_future(other)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            tasks[1].result()
        await tasks[0]
    finally:
        for task in tasks:
            await _end(task)


async def _end(task: asyncio.Task[None]) -> None:
    while not task.done():  # a source may swallow one
        task.cancel()
        await asyncio.wait([task], timeout=CANCEL_AGAIN_S)
    if not task.cancelled():
        task.exception()  # it was told, or nobody waits for it any more
