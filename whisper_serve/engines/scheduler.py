"""Which of the waiting windows is decoded next.

Plain bookkeeping: no threads, no clock, no tensors. Windows wait in lanes by urgency, and
within a lane in one line per session (or per file), whose first windows are taken in turn; so
a session with much work delays the others by one window, not by all of it. The window whose
turn it is decides on its company: those that can be decoded together with it come along.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from whisper_serve.engines.base import DecodeTask, Lane
from whisper_serve.text.transcript import Hypothesis

# Live work within so many seconds keeps places free that files would take.
LIVE_MEMORY_S = 10.0
# How long an idle engine waits for company, when windows come closer together than that.
MAX_PATIENCE_S = 0.02
# How many arrivals the usual distance between them is made of.
MEMORY = 8
MAX_GAP_S = 1.0


@dataclass(eq=False, slots=True)
class Job:
    """A window on its way through an engine. Times are those of a monotonic clock.

    Windows of the same `company` can be decoded together. `taken_at`: when the decode began,
    `batch_size`: of how many windows then, side by side.
    `steps` is what an engine keeps of a window that it puts back half done.
    """

    task: DecodeTask
    queued_at: float
    company: object = None
    future: Future[Hypothesis] = field(default_factory=Future)
    taken_at: float | None = None
    batch_size: int = 1
    steps: Any = None

    @property
    def expires_at(self) -> float:
        return self.queued_at + self.task.timeout_s

    @property
    def queued_s(self) -> float:
        return 0.0 if self.taken_at is None else self.taken_at - self.queued_at

    @property
    def abandoned(self) -> bool:
        """Nobody waits for the answer any more."""
        return self.future.cancelled()

    @property
    def session(self) -> object:
        """Whose window it is; one that does not tell is nobody else's."""
        return self.task.session_id or self.task.request_id or id(self)


@dataclass(frozen=True, slots=True)
class Room:
    """What an engine can take now: so many windows, of so many seconds of audio in all. One
    window is always taken, however long it is. `file_rows` is the part that files may have
    while there is live work."""

    rows: int
    audio_s: float = float("inf")
    file_rows: int | None = None


class Line:
    """The windows of one lane: sessions in turn, each in order."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[object, deque[Job]] = OrderedDict()

    def __iter__(self) -> Iterator[Job]:
        return (job for jobs in self._sessions.values() for job in jobs)

    def __len__(self) -> int:
        return sum(map(len, self._sessions.values()))

    def append(self, job: Job) -> None:
        self._sessions.setdefault(job.session, deque()).append(job)

    def replace(self, older: Job, job: Job) -> None:
        """`job` has the place of `older`, of the same session."""
        jobs = self._sessions[job.session]
        jobs[jobs.index(older)] = job

    def put_back(self, job: Job) -> None:
        """First of its session again, when that has its next turn."""
        self._sessions.setdefault(job.session, deque()).appendleft(job)

    def of_session(self, session: object) -> Job | None:
        jobs = self._sessions.get(session)
        return jobs[0] if jobs else None

    def next(self, other: Job | None) -> Job | None:
        """The window whose turn it is, of those that can be decoded together with `other`."""
        firsts = (jobs[0] for jobs in self._sessions.values())
        return next((job for job in firsts if other is None or job.company == other.company), None)

    def pop(self, job: Job) -> Job:
        """Take `job`, the first of its session; then it is the other sessions' turn."""
        jobs = self._sessions[job.session]
        jobs.popleft()
        if jobs:
            self._sessions.move_to_end(job.session)
        else:
            del self._sessions[job.session]
        return job

    def remove(self, unwanted: Callable[[Job], bool]) -> list[Job]:
        removed = [job for job in self if unwanted(job)]
        for job in removed:
            jobs = self._sessions[job.session]
            jobs.remove(job)
            if not jobs:
                del self._sessions[job.session]
        return removed


class Scheduler:
    """The windows that wait. Finals are never dropped: they leave by `take`, or by `remove`
    when their time is over or nobody waits for them."""

    def __init__(self) -> None:
        self._lines = {lane: Line() for lane in Lane}
        self._last_arrival = self._last_live = float("-inf")
        self._gap_s = MAX_GAP_S

    def waiting(self, lane: Lane | None = None) -> int:
        lines = self._lines.values() if lane is None else [self._lines[lane]]
        return sum(len(line) for line in lines)

    def waiting_s(self) -> float:
        """Seconds of audio that wait."""
        return sum(job.task.duration_s for line in self._lines.values() for job in line)

    def add(self, job: Job, now: float) -> Job | None:
        """Let `job` wait. Returns the older partial of its session that it replaces."""
        self._gap_s += (min(now - self._last_arrival, MAX_GAP_S) - self._gap_s) / MEMORY
        self._last_arrival = now
        lane = job.task.lane
        if lane is not Lane.FILE:
            self._last_live = now
        older = self.superseded_by(job)
        if older is None:
            self._lines[lane].append(job)
        else:
            self._lines[lane].replace(older, job)
        return older

    def superseded_by(self, job: Job) -> Job | None:
        """The partial whose place `job` would take."""
        lane = job.task.lane
        return self._lines[lane].of_session(job.session) if lane is Lane.LIVE_PARTIAL else None

    def put_back(self, job: Job) -> bool:
        """Let a window that is half done wait for its session's next turn, so that the others
        do not wait for it. False when a newer partial of its session waits."""
        if self.superseded_by(job) is not None:
            return False
        self._lines[job.task.lane].put_back(job)
        return True

    def remove(self, unwanted: Callable[[Job], bool]) -> list[Job]:
        return [job for line in self._lines.values() for job in line.remove(unwanted)]

    def take(self, room: Room, now: float) -> list[Job]:
        """The windows to decode next, the most urgent lane first; those of files never
        together with live ones, which would wait for their end."""
        live = self._fill([Lane.LIVE_FINAL, Lane.LIVE_PARTIAL], room)
        if live:
            return live
        rows = room.rows
        if room.file_rows is not None and now - self._last_live < LIVE_MEMORY_S:
            rows = min(rows, room.file_rows)
        return self._fill([Lane.FILE], Room(rows, room.audio_s))

    def patience_s(self, room: Room, now: float) -> float:
        """How much longer the windows that wait should do so for company; 0 or less when they
        are enough, or when windows come too rarely."""
        oldest = min((job.queued_at for line in self._lines.values() for job in line), default=now)
        if self.waiting() >= room.rows or self._gap_s >= MAX_PATIENCE_S:
            return 0.0
        return oldest + MAX_PATIENCE_S - now

    def _fill(self, lanes: list[Lane], room: Room) -> list[Job]:
        taken: list[Job] = []
        audio_s = 0.0
        for lane in lanes:
            line = self._lines[lane]
            while len(taken) < room.rows:
                job = line.next(taken[0] if taken else None)
                if job is None:
                    break
                audio_s += job.task.duration_s
                if taken and audio_s > room.audio_s:
                    return taken
                taken.append(line.pop(job))
        return taken
