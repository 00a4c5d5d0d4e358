"""Containers decoded while they arrive: webm, ogg, fragmented mp4 and other streamable ones.

FFmpeg pulls its input from a file, and a file that waits for its writer blocks, so every stream
has a thread of its own for FFmpeg. `push` hands bytes over and waits until more are asked for:
what it returns is what these bytes hold, whatever the machine is busy with.
"""

from __future__ import annotations

from contextlib import closing
from threading import Thread

from whisper_serve.audio.frames import arriving_frames
from whisper_serve.audio.inlet import Inlet
from whisper_serve.audio.pcm import Samples, to_samples
from whisper_serve.audio.resample import Resampler, joined
from whisper_serve.errors import ClientTooFast

# Silence packs well: 16 MiB may hold days. This is 58 MB of samples.
MAX_PUSH_S = 1_800.0


class ContainerDecoder:
    """Finds out by itself what comes; `LiveDecoder` tells how to use it.

    A live stream may break off anywhere, so `finish` does not mind a cut, even one in the header.
    `close` may be called from another thread than the one that pushes, and ends its waiting.
    """

    bad_samples = 0

    def __init__(self) -> None:
        self._inlet = Inlet()
        self._thread: Thread | None = None
        # The reading thread's while it works, and the pushing one's while that waits for bytes.
        self._heard: list[Samples] = []
        self._n_heard = 0
        self._failure: Exception | None = None

    def push(self, data: bytes) -> Samples:
        """Raises `UnreadableAudio`, `UnsupportedFormat`, and `ClientTooFast` for more than
        `MAX_PUSH_S` at once; then, and whenever it is called again."""
        if data and not self._inlet.closed:
            self._start()
            self._inlet.put(data)
        return self._take()

    def finish(self) -> Samples:
        if self._thread is not None:
            self._inlet.end()
        return self._take()

    def close(self) -> None:
        self._inlet.close()
        if self._thread is not None:
            self._thread.join()
        self._heard, self._failure = [], None

    def _start(self) -> None:
        if self._thread is None:
            # A daemon: a stream that nobody closed must not keep the process alive.
            thread = Thread(target=self._read, name="live-container", daemon=True)
            thread.start()
            self._thread = thread

    def _take(self) -> Samples:
        """What was heard before a failure is given first."""
        heard, self._heard, self._n_heard = self._heard, [], 0
        if self._failure is not None and not heard:
            raise self._failure
        return joined(heard)

    def _read(self) -> None:
        resampler = Resampler()
        try:
            with closing(arriving_frames(self._inlet)) as frames:
                for frame in frames:
                    self._hear(resampler.push(frame))
            self._hear(resampler.finish())
        except Exception as exc:  # noqa: BLE001 - raised again in the thread that pushes
            self._failure = exc
        finally:
            self._inlet.leave()

    def _hear(self, samples: Samples) -> None:
        if len(samples):
            self._heard.append(samples)
        self._n_heard += len(samples)
        if self._n_heard > to_samples(MAX_PUSH_S):
            raise ClientTooFast(MAX_PUSH_S)
