"""What waits to be sent to a stream's client."""

from __future__ import annotations

import asyncio
from collections import deque

from whisper_serve.streaming.messages import Ack, Partial, ServerMessage

# Far more than a client that reads at all lets pile up: hours of final text.
MAX_WAITING = 2_000
# Of these only the newest matters.
REPLACED = (Partial, Ack)


class Outbox:
    """Messages in order; a newer partial or acknowledgement takes the place of one that
    still waits."""

    def __init__(self) -> None:
        self._messages: deque[ServerMessage] = deque()
        self._filled = asyncio.Event()
        self._finished = False

    def put(self, message: ServerMessage) -> None:
        if isinstance(message, REPLACED):
            self._drop(type(message))
        self._messages.append(message)
        self._filled.set()

    def finish(self) -> None:
        """Nothing more will be put."""
        self._finished = True
        self._filled.set()

    async def take(self) -> ServerMessage | None:
        """The next message, waited for; None when there will be none."""
        while not self._messages and not self._finished:
            self._filled.clear()
            await self._filled.wait()
        return self._messages.popleft() if self._messages else None

    @property
    def is_full(self) -> bool:
        return len(self._messages) >= MAX_WAITING

    def _drop(self, kind: type[Partial | Ack]) -> None:
        for index, waiting in enumerate(self._messages):
            if isinstance(waiting, kind):
                del self._messages[index]
                return
