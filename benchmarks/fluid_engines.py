"""A fleet of engine replicas as a fluid: audio flows in, waits, and is decoded.

No window is followed. What comes in a second is served at once as far as it goes, live audio
before files; the rest waits. Beside that wait the few windows that meet by chance, as in a queue
with random arrivals. A replica needs a machine, which takes its time to come and stays for some
time when it is empty. Times in seconds, work in seconds of audio.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from whisper_serve.serving.scaling import Work

# How long files are, and the window of one that is asked for.
FILE_S, FILE_WINDOW_S = 600.0, 30.0


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of engine. `pace`: audio that one decodes in a second. `decode_s`: how long a window
    takes when nothing else is there. `batching`: how much of its time a replica is busy when it
    does a small part of what it can, as a multiple of that part: 1 where a batch makes nothing
    faster. `places`: windows that it decodes at once. `machine_s`, `start_s`: until a machine is
    there, and then until the model is loaded."""

    name: str
    pace: float
    decode_s: float
    batching: float
    machine_s: float
    places: int
    start_s: float = 20.0
    machine_kept_s: float = 600.0
    window_s: float = 8.0

    def busy(self, part: float) -> float:
        """`part`: what it does of what it can."""
        return min(1.0, self.batching * part)


GPU = Kind("gpu", pace=300.0, decode_s=0.25, batching=2.5, machine_s=180.0, places=64)
CPU = Kind("cpu", pace=40.0, decode_s=0.6, batching=1.0, machine_s=60.0, places=2)


@dataclass(slots=True)
class Engines:
    """`running` replicas. `live` and `files`: what waits. `part`: what they did lately of what they
    can, `live_part` for streams."""

    kind: Kind
    running: int
    now: float = 0.0
    live: float = 0.0
    files: float = 0.0
    decoded: float = 0.0
    part: float = 0.0
    live_part: float = 0.0
    _starting: list[float] = field(default_factory=list)
    _spare: deque[float] = field(default_factory=deque)

    @property
    def count(self) -> int:
        """With those that start, which have to be paid too."""
        return self.running + len(self._starting)

    def scale(self, target: int) -> None:
        while self.count < target:
            self._starting.append(self.now + self._until_ready_s())
        while self.count > target and self._starting:
            self._starting.remove(max(self._starting))
        for _ in range(self.count - target):
            self.running -= 1
            self._spare.append(self.now + self.kind.machine_kept_s)

    def _until_ready_s(self) -> float:
        while self._spare and self._spare[0] < self.now:
            self._spare.popleft()
        if self._spare:
            self._spare.pop()
            return self.kind.start_s
        return self.kind.machine_s + self.kind.start_s

    def step(self, live: float, files: float) -> None:
        """A second, in which so much audio comes."""
        self.now += 1.0
        self.running += sum(at <= self.now for at in self._starting)
        self._starting = [at for at in self._starting if at > self.now]
        room = self.running * self.kind.pace
        served = min(room, self.live + live)
        self.live += live - served
        of_files = min(room - served, self.files + files)
        self.files += files - of_files
        self.decoded = served + of_files
        self.part = self.decoded / room if room else 1.0
        self.live_part = served / room if room else 1.0

    @property
    def by_chance(self) -> float:
        """Live audio that waits because windows meet.

        Source: H. Sakasegawa, "An approximation formula L = a b^c / (1 - b)", 1977, for random
        arrivals and decodes that take equally long.
        """
        part = min(self.live_part, 0.97)
        windows: float = part ** math.sqrt(2 * (self.kind.places + 1)) / (2 * (1 - part))
        return self.running * self.kind.window_s * windows

    @property
    def waiting(self) -> float:
        """In the engines: of each file a window at a time."""
        return self.live + self.files * FILE_WINDOW_S / FILE_S + self.by_chance

    @property
    def live_delay_s(self) -> float:
        """How long a live window that comes now waits."""
        room = max(1, self.running) * self.kind.pace
        return (self.live + self.by_chance) / room

    @property
    def requests(self) -> float:
        """Windows that are in the fleet: those that wait, and those that are decoded."""
        decoding = self.decoded / self.kind.window_s * self.kind.decode_s
        return self.waiting / self.kind.window_s + decoding


class Told:
    """What the replicas say of themselves, a little late and as the mean of some time."""

    def __init__(self, span: int = 20, late: int = 2) -> None:
        self._seen: deque[tuple[float, float, float]] = deque(maxlen=span + late)
        self._late = late

    def saw(self, engines: Engines) -> Work:
        busy = engines.kind.busy(engines.part) * engines.running
        self._seen.append((engines.waiting, engines.decoded, busy))
        known = list(self._seen)[: -self._late] or list(self._seen)[:1]
        count = len(known)
        return Work(
            waiting_s=known[-1][0],
            decoded_rate=sum(decoded for _, decoded, _ in known) / count,
            waiting_rate=(known[-1][0] - known[0][0]) / max(1, count - 1),
            busy=min(engines.running, sum(busy for _, _, busy in known) / count),
            told=engines.running,
        )
