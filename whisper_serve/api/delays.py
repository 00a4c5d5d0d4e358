"""How long a stream's words take, from the arrival of their audio to the client."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager

from whisper_serve.observability.metrics import Metrics
from whisper_serve.streaming.messages import Failed, Final, Partial, ServerMessage
from whisper_serve.text.transcript import Word

# Audio that comes in smaller pieces is told apart no further.
PIECE_S = 0.02
# More than a stream's backlog has; what is older belongs to words that nobody will say.
MAX_PIECES = 20_000


class Arrivals:
    """When which audio came. Positions are seconds of the stream, in order; times those of any
    clock."""

    def __init__(self) -> None:
        self._ends_s: list[float] = []
        self._times: list[float] = []

    def add(self, end_s: float, now: float) -> None:
        """Audio came, up to `end_s`."""
        if len(self._ends_s) > 1 and end_s - self._ends_s[-2] < PIECE_S:
            self._ends_s[-1], self._times[-1] = end_s, now
            return
        self._ends_s.append(end_s)
        self._times.append(now)
        if len(self._ends_s) > MAX_PIECES:
            self._forget(MAX_PIECES // 2)

    def time_of(self, position_s: float) -> float | None:
        """When the audio up to there had come; None when nothing has. A position behind all
        audio, to which an aligner may stretch a word, counts as its end."""
        if not self._ends_s:
            return None
        index = bisect_left(self._ends_s, position_s)
        return self._times[min(index, len(self._times) - 1)]

    def forget(self, before_s: float) -> None:
        """Nobody will ask for what lies before this position."""
        self._forget(bisect_left(self._ends_s, before_s))

    def _forget(self, count: int) -> None:
        del self._ends_s[:count], self._times[:count]


class StreamMeter:
    """Measures one stream. `route`: the template of the one that it came in by. `code`: its
    close code, None when the client was gone."""

    def __init__(self, metrics: Metrics, route: str = "") -> None:
        self.code: int | None = None
        self._metrics = metrics
        self._route = route
        self._arrivals = Arrivals()
        self._shown_until = 0.0
        self._has_shown = False

    @contextmanager
    def stream(self) -> Iterator[None]:
        """While the stream is open. `code` has to be set before its end."""
        began = time.monotonic()
        self._metrics.stream_began(self._route)
        try:
            yield
        finally:
            self._metrics.stream_ended(self._route, self.code, time.monotonic() - began)

    def resumed(self, position_s: float) -> None:
        """It goes on with an earlier one, whose words lie before this."""
        self._metrics.stream_resumed(self._route)
        self._shown_until = position_s

    def arrived(self, audio_s: float, end_s: float, now: float) -> None:
        """`audio_s` more seconds came, up to `end_s` of the stream."""
        self._metrics.audio_taken("stream", audio_s)
        self._arrivals.add(end_s, now)

    def retried(self) -> None:
        self._metrics.window_retried("stream")

    def told(self, message: ServerMessage, now: float) -> None:
        """The client was sent this."""
        match message:
            case Partial(words=words):
                self._show(words, now)
            case Final(words=words):
                self._show(words, now)
                self._finish(words, now)
            case Failed(code=code):
                self._metrics.failed(code, rejected=False)

    def _show(self, words: tuple[Word, ...], now: float) -> None:
        """What the client saw earlier, in these words or others, is not new. A word's end moves
        a little from one decode to the next, its middle less than that."""
        for word in words:
            came_at = self._arrivals.time_of(word.end)
            if came_at is None or (word.start + word.end) / 2 <= self._shown_until:
                continue
            self._metrics.word_shown(now - came_at)
            if not self._has_shown:
                self._metrics.first_word(now - came_at)
            self._shown_until, self._has_shown = word.end, True

    def _finish(self, words: tuple[Word, ...], now: float) -> None:
        for word in words:
            if (came_at := self._arrivals.time_of(word.end)) is not None:
                self._metrics.word_final(now - came_at)
        self._arrivals.forget(words[-1].end)
