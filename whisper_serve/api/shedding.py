"""Whether there is room for one more: a decision, without a clock and without waiting.

Streams that were admitted are to keep their delay, so others have to be refused before the
engines are full. Three things tell that they are:

- Answers to final windows take long. Streams ask for less while answers are late (see
  `streaming/effort.py`), so late answers to *lean* windows, of streams that cannot ask for much
  less, say more and count sooner. A window that nobody has answered yet is as late as it is old.
- Many streams are new. What a stream costs shows only after some seconds, so only so many may
  be new at a time.
- Much audio waits in the engines. That is for files, which have to wait for streams.

Times are seconds of any one clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from whisper_serve.engines.base import EngineLoad
from whisper_serve.errors import Overloaded

# Answers are remembered for so long, and fewer than so many say nothing.
MEMORY_S = 15.0
LEAST_ANSWERS = 4
MOST_ANSWERS = 2_000
# Part of the allowed time that answers to lean windows may take.
LEAN = 0.5
# From this part of the allowed time on only this part of all may be new, or one.
TIGHT, TIGHT_SHARE = 0.5, 0.1
# Answers that may be late, and one always may.
LATE_SHARE = 0.05
# A stream is new until its first windows were answered. So many may be at a time, by the engines'
# device, or this part of all.
NEW_S = 5.0
NEW_STREAMS = {"cpu": 4, "cuda": 32}
NEW_SHARE = 0.5
# So many times as many may begin at once where there is next to nothing to do.
FEW = 2
# What an engine said longer ago does not count.
LOAD_HOLDS_S = 5.0
# When there may be room again.
RETRY_AFTER_S = 5.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """`max_answer_s`: how long the answer to a final window may take; None: streams are always
    admitted. `max_waiting_audio_s`: seconds of audio that may wait in an engine, None for any.
    `max_queued`: windows of files that may."""

    max_answer_s: float | None
    max_waiting_audio_s: float | None
    max_queued: int


@dataclass(eq=False, slots=True)
class Asked:
    """A final window that an engine has been asked for; `is_lean`: for as little as the stream
    can do with."""

    at: float
    is_lean: bool
    answered_at: float | None = None

    def took_s(self, now: float) -> float:
        return (now if self.answered_at is None else self.answered_at) - self.at


@dataclass(eq=False, slots=True)
class Admitted:
    """A stream that is being served."""

    at: float


class Headroom:
    """What one process knows of the room that there is."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._waiting: dict[Asked, None] = {}
        self._answers: deque[Asked] = deque(maxlen=MOST_ANSWERS)
        self._streams: dict[Admitted, None] = {}
        self._load: EngineLoad | None = None
        self._load_told_at = float("-inf")
        self._new_streams = NEW_STREAMS["cpu"]

    # What is told

    def admitted(self, now: float) -> Admitted:
        """A stream begins; `left` has to follow."""
        stream = Admitted(now)
        self._streams[stream] = None
        return stream

    def left(self, stream: Admitted) -> None:
        del self._streams[stream]

    def asked(self, now: float, *, is_lean: bool) -> Asked:
        """A final window is asked for; `answered` or `gave_up` has to follow."""
        asked = Asked(now, is_lean)
        self._waiting[asked] = None
        return asked

    def answered(self, asked: Asked, now: float) -> None:
        del self._waiting[asked]
        asked.answered_at = now
        self._answers.append(asked)

    def gave_up(self, asked: Asked) -> None:
        """Nobody waits for it any more; how long it would have taken is not known."""
        del self._waiting[asked]

    def engine_said(self, load: EngineLoad, device: str, now: float) -> None:
        self._load, self._load_told_at = load, now
        self._new_streams = NEW_STREAMS.get(device, self._new_streams)

    # What is decided

    @property
    def streams(self) -> int:
        return len(self._streams)

    def require_stream(self, now: float) -> None:
        """Raises `Overloaded` when one more stream has no room. Where there is none, it can cost
        nobody's delay, and late answers to those that were there say little of what is to come."""
        max_answer_s = self._bounds.max_answer_s
        if max_answer_s is None or not self._streams:
            return
        if self.is_late(now, max_answer_s):
            raise Overloaded(RETRY_AFTER_S)
        is_tight = self.is_late(now, TIGHT * max_answer_s)
        if (wait_s := self._new_wait_s(now, self._most_new(is_tight=is_tight))) > 0:
            raise Overloaded(wait_s)

    def require_file(self, now: float) -> None:
        """Raises `Overloaded` when an engine would refuse one more file, or so much waits that
        its turn would not come in time."""
        load = self._load
        if load is None or now - self._load_told_at > LOAD_HOLDS_S:
            return
        bound_s = self._bounds.max_waiting_audio_s
        if bound_s is not None and load.waiting_s > bound_s:
            raise Overloaded(RETRY_AFTER_S)
        if load.waiting_files >= self._bounds.max_queued:
            raise Overloaded(RETRY_AFTER_S)

    def is_late(self, now: float, max_answer_s: float) -> bool:
        """Whether more than `LATE_SHARE` of the answers take longer, or half as long when they
        were to lean windows."""
        while self._answers and now - (self._answers[0].answered_at or 0.0) > MEMORY_S:
            self._answers.popleft()
        lean = [asked for asked in self._known(now, LEAN * max_answer_s) if asked.is_lean]
        return _most_late(self._known(now, max_answer_s), now, max_answer_s) or _most_late(
            lean, now, LEAN * max_answer_s
        )

    def _known(self, now: float, bound_s: float) -> list[Asked]:
        """Answers, and what is late already without one."""
        overdue = [asked for asked in self._waiting if asked.took_s(now) > bound_s]
        return [*self._answers, *overdue]

    def _most_new(self, *, is_tight: bool) -> int:
        if is_tight:
            return max(1, int(TIGHT_SHARE * len(self._streams)))
        if len(self._streams) < FEW * self._new_streams:
            return FEW * self._new_streams
        return max(self._new_streams, int(NEW_SHARE * len(self._streams)))

    def _new_wait_s(self, now: float, room: int) -> float:
        """Seconds until one more stream may begin, when `room` may be new; 0 when it may now."""
        new = [stream for stream in self._streams if now - stream.at < NEW_S]
        return NEW_S - (now - new[-room].at) if len(new) >= room else 0.0


def _most_late(answers: list[Asked], now: float, bound_s: float) -> bool:
    late = sum(asked.took_s(now) > bound_s for asked in answers)
    return len(answers) >= LEAST_ANSWERS and late > max(1, LATE_SHARE * len(answers))
