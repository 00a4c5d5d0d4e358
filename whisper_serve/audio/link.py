"""What a decoding process and the one that started it send each other: frames, and open files.

A frame is a letter for its kind, its length and its body. All is plain bytes and JSON, so that a
process that a file has taken over can say nothing but wrong samples.
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from dataclasses import dataclass

HEAD = struct.Struct("<cI")
MAX_FILES = 2
# To the process: a recording in the first of two files, for whose samples the second one is; audio
# of a stream; the stream's end. From it: samples, a failure of the tree in `errors`, a fault.
FILE, AUDIO, END = b"f", b"a", b"e"
SAMPLES, FAILURE, FAULT = b"s", b"x", b"!"


@dataclass(frozen=True, slots=True)
class Frame:
    kind: bytes
    body: bytes = b""
    files: tuple[int, ...] = ()


class Link:
    """One end of the socket between the two."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def send(self, frame: Frame, timeout_s: float | None = None) -> None:
        """Raises `OSError`, which a `TimeoutError` is too."""
        self._end.settimeout(timeout_s)
        socket.send_fds(self._end, [HEAD.pack(frame.kind, len(frame.body))], frame.files)
        self._end.sendall(frame.body)

    def receive(self, timeout_s: float | None = None) -> Frame | None:
        """None when the other end is closed. Raises `OSError`."""
        self._end.settimeout(timeout_s)
        head, files, _, _ = socket.recv_fds(self._end, HEAD.size, MAX_FILES)
        if not head:
            return None
        kind, length = HEAD.unpack(head + (self._exactly(HEAD.size - len(head)) or b""))
        body = self._exactly(length)
        return None if body is None else Frame(kind, body, tuple(files))

    def _exactly(self, size: int) -> bytes | None:
        parts = bytearray()
        while len(parts) < size:
            part = self._end.recv(min(size - len(parts), 1 << 20))
            if not part:
                return None
            parts += part
        return bytes(parts)

    def close(self) -> None:
        """Also ends a `receive` that waits in another thread."""
        with suppress(OSError):  # the other end was faster
            self._end.shutdown(socket.SHUT_RDWR)
        self._end.close()
