"""A file that is still being written: one thread puts bytes in, a library reads in another."""

from __future__ import annotations

from collections.abc import Callable
from threading import Condition

from whisper_serve.errors import UnreadableAudio

# With nothing to hear in so many bytes there is nothing to hope for, and they may be in memory.
MAX_FUTILE_BYTES = 16 << 20


class Inlet:
    """The two sides take turns: while there are bytes the reader works and the writer waits.

    `put` and `end` return when the reader has used all that it got and asks for more, or has
    left. `close` does not wait; it lets both sides go on to their end. To FFmpeg, which reads
    all streams this way, this is a slow file that cannot seek.
    """

    def __init__(self) -> None:
        self._turn = Condition()
        self._data, self._at = b"", 0
        self._hungry = self._ended = self._left = False
        self.futile_bytes = 0
        self.closed = False
        self.ran_out = False  # the reader has met the end

    # The writer's side

    def put(self, data: bytes) -> None:
        with self._turn:
            if not (self._ended or self._left):
                self._data, self._at = self._data[self._at :] + data, 0
                self._wait_for_reader()

    def end(self) -> None:
        """No more bytes will come; waits until the reader has left."""
        with self._turn:
            self._ended = True
            self._wait_for_reader()

    def close(self) -> None:
        with self._turn:
            self.closed = self._ended = True
            self._data, self._at = b"", 0
            self._turn.notify_all()

    def _wait_for_reader(self) -> None:
        self._hungry = False
        self._turn.notify_all()
        self._turn.wait_for(lambda: self._hungry or self._left)

    # The reader's side

    def peek(self, enough: Callable[[bytes], bool]) -> bytes:
        """What there is to read, as soon as it is `enough` or no more will come."""
        with self._turn:
            self._wait_for_writer(lambda: enough(self._data[self._at :]))
            return self._data[self._at :]

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, none at the end. Raises `UnreadableAudio` when so many were read
        in vain."""
        with self._turn:
            self._wait_for_writer(lambda: self._at < len(self._data))
            part = self._data[self._at : self._at + size]
            self._at += len(part)
            self.ran_out = not part
        self.futile_bytes += len(part)
        if self.futile_bytes > MAX_FUTILE_BYTES:
            raise UnreadableAudio(f"{MAX_FUTILE_BYTES >> 20} MiB of the stream hold no audio")
        return part

    def found(self) -> None:
        """What was read until now was good for something."""
        self.futile_bytes = 0

    def leave(self) -> None:
        """Nothing will be read any more."""
        with self._turn:
            self._left = True
            self._data, self._at = b"", 0
            self._turn.notify_all()

    def _wait_for_writer(self, ready: Callable[[], bool]) -> None:
        while not (ready() or self._ended):
            self._hungry = True
            self._turn.notify_all()
            self._turn.wait()
