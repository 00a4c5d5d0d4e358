"""FFmpeg in processes of its own, since nothing else ends it in the middle of a call.

A few hundred kilobytes of tags keep it busy for seconds, some megabytes for hours; an index of
50 kB makes it take gigabytes; and a fault in a decoder ends the process that it runs in. So
what anybody can send is given to a process that can be stopped, may take so much memory and no
more, and holds nothing of other clients. A process serves many files, since it takes a while to
start one, but none behind a file that got it into trouble. A stream has one to itself.
"""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from threading import Event, Lock
from typing import BinaryIO, Protocol

import numpy as np

from whisper_serve import errors
from whisper_serve.audio.isolated import STREAM_TIMEOUT_S
from whisper_serve.audio.link import AUDIO, END, FAULT, FILE, SAMPLES, Frame, Link
from whisper_serve.audio.pcm import Samples
from whisper_serve.errors import AudioTooCostly, UnreadableAudio

logger = logging.getLogger(__name__)

PROGRAM = "whisper_serve.audio.isolated"
# What a process needs to find its libraries; keys and passwords are none of its business.
ENVIRONMENT = ("LANG", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PATH", "TMPDIR")
# The library for matrices reserves memory for each of its threads.
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
MAX_FILES = 200
KEPT_IDLE = 2
END_TIMEOUT_S = 5.0
NOTHING: Samples = np.zeros(0, np.int16)


class Decodes(Protocol):
    """Turns files into samples, as `audio.decode.decode` does."""

    def __call__(
        self, data: BinaryIO, *, accepted: Sequence[str], max_duration_s: float
    ) -> Samples: ...


class DecodingProcess:
    """One process. It ends when this end of its socket does, however that comes about."""

    def __init__(self) -> None:
        self._asked = 0
        self._in_trouble = self._ended = False
        ours, theirs = socket.socketpair()
        self._link = Link(ours)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-m", PROGRAM],
                stdin=theirs.fileno(),
                env=_environment(),
                # Ctrl+C in a terminal is not meant for it.
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_fit(self) -> bool:
        """Whether it may be given another file."""
        return not self._in_trouble and self._asked < MAX_FILES

    def ask(self, frame: Frame, timeout_s: float) -> bytes:
        """The body of the answer.

        Raises `AudioTooCostly` when none comes in time, `UnreadableAudio` when the process dies,
        and what it says that went wrong.
        """
        self._asked += 1
        self._in_trouble = True  # until there is an answer
        try:
            self._link.send(frame, timeout_s)
            answer = self._link.receive(timeout_s)
        except TimeoutError as exc:
            raise AudioTooCostly(f"{timeout_s:g} seconds") from exc
        except OSError:  # it has died, perhaps long ago
            answer = None
        if answer is None:
            raise self._death()
        if answer.kind == SAMPLES:
            self._in_trouble = False
            return answer.body
        failure = _failure(answer)
        self._in_trouble = not isinstance(failure, errors.InvalidRequest | errors.AudioTooLong)
        raise failure

    def _death(self) -> Exception:
        status = self._process.wait(END_TIMEOUT_S)
        if status >= 0:  # not of a file: it could not even start
            return RuntimeError(f"the decoding process ended with status {status}")
        if not self._ended:  # or it was us, since its client is gone
            logger.error("audio has ended its decoding process with signal %d", -status)
        return UnreadableAudio("the audio is damaged in a way that its decoder cannot bear")

    def end(self) -> None:
        """Also ends an `ask` in another thread. May be called again."""
        self._ended = True
        self._link.close()
        self._process.kill()
        self._process.wait()


class IsolatedDecoder:
    """`audio.decode.decode` for files that anybody can send.

    May be called from many threads at once; each call has a process to itself. Besides what
    `decode` raises it raises `AudioTooCostly` after `timeout_s`, or for more memory than
    `isolated.memory_for` gives.
    """

    def __init__(self, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._idle: list[DecodingProcess] = []
        self._lock = Lock()
        self._closed = False

    def __call__(
        self, data: BinaryIO, *, accepted: Sequence[str], max_duration_s: float
    ) -> Samples:
        request = {
            "accepted": list(accepted),
            "max_duration_s": max_duration_s,
            "timeout_s": self._timeout_s,
        }
        with ExitStack() as stack:
            source = stack.enter_context(_opened(data))
            target = stack.enter_context(TemporaryFile())
            process = stack.enter_context(self._process())
            frame = Frame(FILE, json.dumps(request).encode(), (source, target.fileno()))
            process.ask(frame, self._timeout_s)
            target.seek(0)  # the place in the file is shared with the process
            return np.fromfile(target, np.int16)

    def warm_up(self) -> None:
        """Start a process before the first file needs it."""
        self._give_back(DecodingProcess())

    def close(self) -> None:
        """End all processes, those that are at work when their file is done."""
        with self._lock:
            idle, self._idle, self._closed = self._idle, [], True
        for process in idle:
            process.end()

    @contextmanager
    def _process(self) -> Iterator[DecodingProcess]:
        with self._lock:
            process = self._idle.pop() if self._idle else None
        process = process or DecodingProcess()
        try:
            yield process
        finally:
            self._give_back(process)

    def _give_back(self, process: DecodingProcess) -> None:
        with self._lock:
            kept = process.is_fit and len(self._idle) < KEPT_IDLE and not self._closed
            if kept:
                self._idle.append(process)
        if not kept:
            process.end()


class IsolatedContainerDecoder:
    """`live_container.ContainerDecoder` for streams that anybody can send; `LiveDecoder` tells how
    to use it. A process is started with the first bytes."""

    bad_samples = 0

    def __init__(self, *, timeout_s: float = STREAM_TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._process: DecodingProcess | None = None
        self._failure: Exception | None = None
        self._closed = Event()
        self._lock = Lock()

    def push(self, data: bytes) -> Samples:
        """Raises what `ContainerDecoder.push` raises, and `AudioTooCostly`; then, and whenever it
        is called again."""
        return self._ask(self._started(), Frame(AUDIO, data)) if data else NOTHING

    def finish(self) -> Samples:
        return self._ask(self._process, Frame(END))

    def close(self) -> None:
        with self._lock:
            self._closed.set()
        if self._process is not None:
            self._process.end()

    def _started(self) -> DecodingProcess | None:
        with self._lock:
            if self._process is None and not self._closed.is_set():
                self._process = DecodingProcess()
        return self._process

    def _ask(self, process: DecodingProcess | None, frame: Frame) -> Samples:
        if self._failure is not None:
            raise self._failure
        if process is None or self._closed.is_set():
            return NOTHING
        try:
            return np.frombuffer(process.ask(frame, self._timeout_s), np.int16)
        except Exception as exc:
            if self._closed.is_set():  # that is what it died of
                return NOTHING
            self._failure = exc
            raise


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    # A process of Ray finds its packages in places that nobody else knows of.
    paths = [path or str(Path.cwd()) for path in sys.path]
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), **ONE_THREAD}


@contextmanager
def _opened(data: BinaryIO) -> Iterator[int]:
    """The descriptor of a real file with what is in `data`."""
    try:
        number = data.fileno()
    except io.UnsupportedOperation:
        number = -1
    if number >= 0:
        data.flush()
        yield number
        return
    with TemporaryFile() as copy:
        data.seek(0)
        shutil.copyfileobj(data, copy)
        copy.flush()
        yield copy.fileno()


def _failure(answer: Frame) -> Exception:
    if answer.kind == FAULT:
        return RuntimeError(f"the decoding process failed:\n{answer.body.decode()}")
    said = json.loads(answer.body)
    kind: type[errors.WhisperServeError] = getattr(errors, said["error"])
    return kind(*said["arguments"])
