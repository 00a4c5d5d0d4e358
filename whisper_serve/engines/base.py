"""What every engine takes and gives.

An engine is fed with `submit` and answers through a future, so that it may batch, reorder
and run on its own threads. It never talks HTTP and knows nothing of Ray.
"""

from __future__ import annotations

from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from whisper_serve.observability.context import bound
from whisper_serve.text.transcript import Hypothesis

SAMPLE_RATE = 16_000
WINDOW_S = 30.0
WINDOW_SAMPLES = int(SAMPLE_RATE * WINDOW_S)
# Windows that are decoded together by default: more make a CPU no faster.
CPU_ROWS, GPU_ROWS = 8, 64

Task = Literal["transcribe", "translate"]
Samples = npt.NDArray[np.int16]


class Lane(Enum):
    """How urgent a window is; engines serve lower values first."""

    LIVE_FINAL = 0
    LIVE_PARTIAL = 1
    FILE = 2


@dataclass(frozen=True, slots=True)
class TemperaturePolicy:
    """Which temperatures to try, and when a decode is good enough to stop (Whisper's rules).

    A decode is tried again at the next temperature when its text repeats itself
    (`compression_ratio_threshold`) or the model doubts it (`logprob_threshold`). A window is
    silence when the model says so (`no_speech_threshold`) and doubts its own text.
    """

    temperatures: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    compression_ratio_threshold: float = 2.4
    logprob_threshold: float = -1.0
    no_speech_threshold: float = 0.6

    @property
    def first(self) -> float:
        return self.temperatures[0]

    @classmethod
    def starting_at(cls, temperature: float) -> TemperaturePolicy:
        """Whisper's ladder from `temperature` up to 1.0 in steps of 0.2."""
        steps = int((1.0 - temperature) / 0.2 + 1e-6)
        return cls(temperatures=tuple(round(temperature + 0.2 * i, 3) for i in range(steps + 1)))


@dataclass(frozen=True, slots=True)
class DecodeTask:
    """One window of speech and how to decode it.

    `samples`: int16 at 16 kHz, shape (n,), 0 < n <= 480,000 (30 s).
    `context`: text that was spoken before the window, never words inside it.
    `prefix`: what is said at the very start of the window; the decode has to begin with it,
    and the answer begins behind it.
    `beam_size` counts at temperature 0, `best_of` above it. `suppress_tokens`: ids that the text
    may not hold; -1 stands for Whisper's own list, of marks that nobody speaks.
    `full_padding`: padded to 30 s at once, as Whisper was trained, rather than when a decode with
    less was suspicious; slower and surer.
    `model`: the name of a served model; empty is the default one.
    `request_id`, `session_id`, `caller`, `traceparent`: whose window it is, for the log and the
    trace; windows of one session take turns.
    `timeout_s`: seconds from `submit` after which nobody waits for the answer any more.
    """

    samples: Samples
    language: str | None = None
    task: Task = "transcribe"
    context: str = ""
    prefix: str = ""
    hotwords: str = ""
    temperature: TemperaturePolicy = field(default_factory=TemperaturePolicy)
    beam_size: int = 1
    best_of: int = 5
    suppress_tokens: tuple[int, ...] = (-1,)
    want_words: bool = True
    full_padding: bool = False
    lane: Lane = Lane.FILE
    session_id: str = ""
    request_id: str = ""
    caller: str = ""
    traceparent: str = ""
    model: str = ""
    timeout_s: float = 300.0

    @property
    def duration_s(self) -> float:
        return len(self.samples) / SAMPLE_RATE


def bound_to(task: DecodeTask) -> AbstractContextManager[None]:
    """For as long as it is worked on: what is logged tells whose window it is."""
    return bound(
        request_id=task.request_id,
        session_id=task.session_id,
        caller=task.caller,
        traceparent=task.traceparent,
    )


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine is, for `/health` and the logs."""

    engine: str
    model: str
    device: str
    compute_type: str
    multilingual: bool
    load_s: float


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """What an engine has to do: windows waiting and the seconds of audio in them, windows being
    decoded, and the age in seconds of the decode that has run longest (0 when idle).
    `waiting_files`: those of the waiting windows that are of files."""

    waiting: int
    waiting_s: float
    running: int
    oldest_running_s: float
    waiting_files: int = 0


class Engine(Protocol):
    """A loaded model that answers windows."""

    @property
    def info(self) -> EngineInfo: ...

    def submit(self, task: DecodeTask) -> Future[Hypothesis]:
        """Queue a window; cancelling the future saves what work has not been done.

        The future raises `Overloaded` when the queue is full, `DeadlineExceeded` when
        `timeout_s` passed before the decode began, `Superseded` when a newer partial of the
        session came before, `EngineFailed` when the decode broke.
        """
        ...

    def load(self) -> EngineLoad: ...

    def close(self) -> None:
        """Stop the engine; what waits is cancelled."""
        ...
