"""What `append`, `commit` and `clear` mean, with turn detection and without."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from whisper_serve.api.openai.realtime.configuration import AudioFormat
from whisper_serve.api.openai.realtime.conversation import MIN_COMMIT_S, nothing_to_commit
from whisper_serve.errors import InvalidParameter, InvalidRequest

# Of the stream's own limit, which counts in other samples.
SPARE_S = 0.1


@dataclass(frozen=True, slots=True)
class Cut:
    """The stream's audio up to `at_s` seconds, of which `audio` is still to be handed over, is
    what a client's `commit` or `clear` is about."""

    at_s: float
    audio: bytes = b""


class InputBuffer(Protocol):
    def append(self, audio: bytes) -> bytes:
        """What the stream gets of it at once. Raises `InvalidParameter` when there is no
        room."""
        ...

    def commit(self) -> Cut:
        """Raises `EmptyAudio` or `InvalidRequest`."""
        ...

    def clear(self) -> Cut | None:
        """None when nothing of it is in the stream."""
        ...


class StreamedBuffer:
    """With turn detection all audio goes to the stream as it comes."""

    def __init__(self, audio_format: AudioFormat) -> None:
        self._format = audio_format
        self._size = self._cut = 0  # bytes

    def append(self, audio: bytes) -> bytes:
        """There is always room: a stream that has too much is closed."""
        self._size += len(audio)
        return audio

    def commit(self) -> Cut:
        if self._behind_cut_s < MIN_COMMIT_S:
            raise nothing_to_commit(self._behind_cut_s)
        return self._cut_here()

    def clear(self) -> Cut | None:
        """So close behind the last cut there can be no words."""
        return None if self._behind_cut_s < MIN_COMMIT_S else self._cut_here()

    @property
    def _behind_cut_s(self) -> float:
        return self._format.seconds(self._size - self._cut)

    def _cut_here(self) -> Cut:
        self._cut = self._size
        return Cut(self._format.seconds(self._size))


class CollectingBuffer:
    """Without turn detection audio waits here for the client to commit it. What waits here and
    what was committed behind `settled_s` is `max_s` long at the most."""

    def __init__(
        self, audio_format: AudioFormat, max_s: float, settled_s: Callable[[], float]
    ) -> None:
        self._format = audio_format
        self._max_s = max_s
        self._settled_s = settled_s
        self._pieces: list[bytes] = []
        self._size = self._handed = 0  # bytes

    def append(self, audio: bytes) -> bytes:
        in_all_s = self._format.seconds(self._handed + self._size + len(audio))
        if in_all_s - self._settled_s() > self._max_s - SPARE_S:
            raise InvalidParameter(
                "audio",
                f"there is room for {self._max_s:g} s of audio that is not transcribed; commit "
                "or clear what came, and wait for its transcript",
            )
        self._pieces.append(audio)
        self._size += len(audio)
        return b""

    def commit(self) -> Cut:
        found_s = self._format.seconds(self._size)
        if found_s < MIN_COMMIT_S:
            raise nothing_to_commit(found_s)
        if self._size % self._format.sample_bytes:
            raise InvalidRequest("the audio ends within a sample; append the rest, or clear it")
        audio = b"".join(self._pieces)
        self._handed += len(audio)
        self.clear()
        return Cut(self._format.seconds(self._handed), audio)

    def clear(self) -> Cut | None:
        self._pieces, self._size = [], 0
        return None
