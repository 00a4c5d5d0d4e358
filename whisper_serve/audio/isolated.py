"""What runs in a decoding process: files one after the other, or a stream, within bounds that the
system holds.

`isolation` starts it with a socket as its standard input. The end of the socket is the end of the
process.
"""

from __future__ import annotations

import json
import os
import resource
import select
import socket
import sys
import time
import traceback
from collections.abc import Callable
from threading import Thread
from typing import Any

from whisper_serve.audio.decode import decode
from whisper_serve.audio.link import (
    AUDIO,
    END,
    FAILURE,
    FAULT,
    FILE,
    SAMPLES,
    Frame,
    Link,
)
from whisper_serve.audio.live_container import ContainerDecoder
from whisper_serve.audio.pcm import Samples, to_samples
from whisper_serve.errors import AudioTooCostly, WhisperServeError

# Libraries and FFmpeg's buffers, most of it addresses that are never used.
BASE_BYTES = 768 << 20
# The samples while they are collected, and while what holds them grows.
BYTES_PER_SAMPLE = 6
# Whoever waits has given up long before.
CPU_MARGIN_S = 10.0
# For a stream, which is decoded a little at a time.
STREAM_TIMEOUT_S = 30.0


def main() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with socket.socket(fileno=sys.stdin.fileno()) as end:
        Thread(target=_end_with, args=(end,), daemon=True).start()
        worker, link = Worker(), Link(end)
        while (frame := link.receive()) is not None:
            link.send(worker.answer(frame))
    # Not by way of the interpreter's end, which would wait for a thread that FFmpeg keeps busy.
    os._exit(0)


def _end_with(end: socket.socket) -> None:
    """Whoever is busy does not notice that nobody waits any more."""
    other_end = select.poll()
    other_end.register(end, 0)  # that is, for being hung up
    other_end.poll()
    os._exit(0)


class Worker:
    """Answers frames."""

    def __init__(self) -> None:
        self._stream = ContainerDecoder()
        self._does: dict[bytes, Callable[[Frame], bytes]] = {
            FILE: self._file,
            AUDIO: lambda frame: self._piece(self._stream.push, frame.body),
            END: lambda _: self._piece(self._stream.finish),
        }

    def answer(self, frame: Frame) -> Frame:
        try:
            return Frame(SAMPLES, self._does[frame.kind](frame))
        except MemoryError:
            exc = AudioTooCostly(f"{_memory_limit() / 2**30:.1f} GiB of memory")
            return _failure(exc)
        except WhisperServeError as exc:
            return _failure(exc)
        except Exception:  # noqa: BLE001 - whoever asked has to know
            return Frame(FAULT, traceback.format_exc().encode())

    def _file(self, frame: Frame) -> bytes:
        request: dict[str, Any] = json.loads(frame.body)
        source, target = frame.files
        with os.fdopen(source, "rb") as data, os.fdopen(target, "wb") as output:
            confine(memory_for(request["max_duration_s"]), request["timeout_s"])
            samples = decode(
                data, accepted=request["accepted"], max_duration_s=request["max_duration_s"]
            )
            samples.tofile(output)
        return b""

    def _piece(self, decoded: Callable[..., Samples], *data: bytes) -> bytes:
        confine(BASE_BYTES, STREAM_TIMEOUT_S)
        return decoded(*data).tobytes()


def _failure(exc: WhisperServeError) -> Frame:
    said = {"error": type(exc).__name__, "arguments": exc.args}
    return Frame(FAILURE, json.dumps(said).encode())


def memory_for(max_duration_s: float) -> int:
    """Bytes of address space that decoding a file may take."""
    return BASE_BYTES + BYTES_PER_SAMPLE * to_samples(max_duration_s)


def confine(memory_bytes: int, timeout_s: float) -> None:
    """What takes more fails or ends the process, even when nobody watches any more."""
    until_s = int(time.process_time() + timeout_s + CPU_MARGIN_S)
    for limit, wanted in ((resource.RLIMIT_AS, memory_bytes), (resource.RLIMIT_CPU, until_s)):
        _, most = resource.getrlimit(limit)
        if most != resource.RLIM_INFINITY:
            wanted = min(wanted, most)  # noqa: PLW2901 - it cannot be more
        resource.setrlimit(limit, (wanted, most))


def _memory_limit() -> int:
    return resource.getrlimit(resource.RLIMIT_AS)[0]


if __name__ == "__main__":
    main()
