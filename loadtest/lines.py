"""The connections of live streams under gevent: `websockets`' client for threads, whose threads are
greenlets here because Locust has patched them. What is decided, a `Conversation` decides.

That makes one greenlet that speaks and one that listens beside it, so that nobody's delay is that
of the next piece.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import gevent
from gevent.event import Event
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from benchmarks.concurrent_clips import retry_after_s
from loadtest.conversation import NOT_ADMITTED, Conversation
from loadtest.files import Access
from whisper_serve.client.connection import ws_url

OPEN_TIMEOUT_S = 60.0
CLOSE_TIMEOUT_S = 2.0
LOST = (OSError, TimeoutError, WebSocketException)
GREETING_LOST = "no greeting"


class Line:
    """How streams of one load test are held: at most `last_words_s` behind the last sample, and
    no longer said from when `ending` is set."""

    def __init__(self, access: Access, ending: Event, last_words_s: float) -> None:
        self._access = access
        self._ending = ending
        self._last_words_s = last_words_s

    def hold(self, conversation: Conversation) -> None:
        """From the first attempt to the service's last word."""
        while not conversation.is_over:
            conversation.tries(time.monotonic())
            try:
                with self._open(conversation) as socket:
                    self._spoken(socket, conversation)
            except InvalidStatus as exc:
                self._refused(exc, conversation)
            except LOST as exc:
                conversation.failed(time.monotonic(), fault_of(exc))

    def _refused(self, refusal: InvalidStatus, conversation: Conversation) -> None:
        """Waits as the service says. Who still waits when the load test ends was not admitted."""
        answer = refusal.response
        told_s = retry_after_s(answer.headers.get("Retry-After"))
        wait_s = conversation.refused(time.monotonic(), answer.status_code, told_s)
        if wait_s is not None and self._ending.wait(wait_s):
            conversation.failed(time.monotonic(), f"{NOT_ADMITTED}: {answer.status_code}")

    @contextmanager
    def _open(self, conversation: Conversation) -> Iterator[ClientConnection]:
        dialect = conversation.dialect
        with connect(
            ws_url(self._access.url, dialect.path),
            additional_headers=self._access.headers,
            ssl=self._access.trust,
            compression=None,
            max_queue=None,
            ping_interval=None,
            open_timeout=OPEN_TIMEOUT_S,
            close_timeout=CLOSE_TIMEOUT_S,
            proxy=None,
        ) as socket:
            if dialect.opening is not None:
                socket.send(dialect.opening)
            if dialect.is_greeted:
                greeting = socket.recv(OPEN_TIMEOUT_S)
                conversation.received(time.monotonic(), str(greeting))
            yield socket

    def _spoken(self, socket: ClientConnection, conversation: Conversation) -> None:
        conversation.began(time.monotonic())
        listening = gevent.spawn(_listen, socket, conversation)
        try:
            self._speak(socket, conversation)
            gevent.joinall([listening], timeout=self._last_words_s)
        finally:
            listening.kill()
        if not conversation.is_over:
            conversation.failed(time.monotonic(), f"no end within {self._last_words_s:g} s")

    def _speak(self, socket: ClientConnection, conversation: Conversation) -> None:
        """Until all is said, or nobody listens any more; then it is for `_listen` to say why."""
        try:
            while (at := conversation.next_at) is not None:
                gevent.sleep(max(0.0, at - time.monotonic()))
                socket.send(conversation.next_piece)
                conversation.sent(time.monotonic())
                if self._ending.is_set():
                    conversation.stops()
            socket.send(conversation.dialect.ending)
        except ConnectionClosed:
            pass


def _listen(socket: ClientConnection, conversation: Conversation) -> None:
    try:
        for message in socket:
            conversation.received(time.monotonic(), str(message))
        conversation.ended(time.monotonic())
    except LOST as exc:
        conversation.failed(time.monotonic(), fault_of(exc))


def fault_of(failure: Exception) -> str:
    """In the words that failures are counted by."""
    if isinstance(failure, ConnectionClosed):
        received = failure.rcvd
        return "connection lost" if received is None else f"closed with {received.code}"
    return getattr(failure, "strerror", None) or type(failure).__name__
