"""Continuous batching: windows join and leave between the steps of the others.

Each window is a generator that asks for what has to be computed. Between two decode steps the
worker takes new windows and answers what the open ones ask for, as much as does not hold the
running ones up for long; then every running sequence says one token.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
from whisper.model import Whisper

from whisper_serve.engines.base import DecodeTask, EngineInfo, bound_to
from whisper_serve.engines.batch_worker import Outcome
from whisper_serve.engines.batch_worker import Row as Progress
from whisper_serve.engines.fallback import Candidate
from whisper_serve.engines.padding import WHOLE_FRAMES, Padding
from whisper_serve.engines.scheduler import Job
from whisper_serve.engines.steps import (
    Align,
    DetectLanguage,
    Encode,
    Generate,
    Steps,
    decode_window,
)
from whisper_serve.engines.torch_whisper.batch import Batch
from whisper_serve.engines.torch_whisper.model_runner import ModelRunner, planned_slots
from whisper_serve.errors import EngineFailed, WhisperServeError
from whisper_serve.text.transcript import Hypothesis

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """How much is computed for windows that do not say tokens, and how often.

    `windows`: so many are encoded, prefilled or aligned together, of `frames` mel frames of
    10 ms in all, one always. While others are running, `steps` decode steps lie between.
    """

    windows: int
    frames: int
    steps: int


# A CPU gains nothing from encoding windows together, a GPU is filled by a few.
PACE_CPU = Pace(windows=4, frames=WHOLE_FRAMES, steps=2)
PACE_GPU = Pace(windows=16, frames=8 * WHOLE_FRAMES, steps=2)


class Intake(Protocol):
    """Where windows come from and answers go."""

    def take(self, rows: int, *, wait: bool) -> list[Job] | None:
        """Up to `rows` windows; with `wait` one at least. None when there will be no more."""
        ...

    def answer(self, job: Job, outcome: Hypothesis | WhisperServeError) -> None: ...


class Window:
    """A window that was taken, and the step that it waits for."""

    def __init__(self, job: Job, steps: Steps[Hypothesis]) -> None:
        self.job = job
        self.progress = Progress(steps, job.task)

    @property
    def step(self) -> Any:
        return self.progress.step

    def send(self, answer: Any) -> None:
        with bound_to(self.job.task):
            self.progress.send(answer)

    def abandon(self) -> None:
        self.progress.steps.close()
        self.progress.step, self.progress.outcome = None, EngineFailed("abandoned")

    def fail(self, exc: Exception) -> None:
        if isinstance(exc, WhisperServeError):
            self.progress.step, self.progress.outcome = None, exc
            return
        with bound_to(self.job.task):
            self.progress.fail(exc)


class TorchWorker:
    """One model on torch; `work` in one thread."""

    def __init__(
        self,
        runner: ModelRunner,
        decode: Callable[[DecodeTask], Steps[Hypothesis]],
        *,
        load_s: float = 0.0,
        pace: Pace | None = None,
    ) -> None:
        """`decode`: the steps of a window, such as `decode_window`'s for the runner's shape."""
        self._runner: ModelRunner | None = runner
        self._decode = decode
        self._pace = pace or (PACE_CPU if runner.device.type == "cpu" else PACE_GPU)
        self.info = EngineInfo(
            engine="torch",
            model=runner.shape.name,
            device=runner.device.type,
            compute_type=str(runner.dtype).removeprefix("torch."),
            multilingual=runner.shape.multilingual,
            load_s=load_s,
        )

    def company(self, _task: DecodeTask) -> object:
        """Windows of any length and any kind are decoded together."""
        return None

    def work(self, intake: Intake) -> None:
        """Decode until the intake closes; what was taken before is still answered. Every window
        that was taken gets an answer, one that nobody waits for too."""
        if self._runner is None:
            raise EngineFailed("the model is closed")
        if self._runner.device.type == "cuda":
            torch.cuda.set_device(self._runner.device)  # of this thread
        WorkLoop(self._runner, self._decode, self._pace, intake).run()

    def close(self) -> None:
        """Let the weights go; call it when `work` has returned."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            runner.resize(0)

    def gpu_memory_gib(self) -> float:
        return 0.0 if self._runner is None else self._runner.memory_gib()


class WorkLoop:
    """The open windows, and what is computed for them next."""

    def __init__(
        self,
        runner: ModelRunner,
        decode: Callable[[DecodeTask], Steps[Hypothesis]],
        pace: Pace,
        intake: Intake,
    ) -> None:
        self._runner = runner
        self._decode = decode
        self._pace = pace
        self._intake = intake
        self._batch: Batch[Window] = Batch(runner)
        self._windows: list[Window] = []
        self._steps_behind = 0

    @torch.inference_mode()
    def run(self) -> None:
        taking = True
        while taking or self._windows:
            taking = taking and self._take()
            try:
                self._turn()
            except Exception as exc:  # noqa: BLE001  # the engine goes on without them
                self._fail_all(exc)
            self._answer()

    def _take(self) -> bool:
        """Take as many windows as there are slots for; False when there will be no more."""
        idle = not self._windows
        free = self._batch.slots - sum(self._rows_of(window) for window in self._windows)
        if not idle and free <= 0:
            return True
        jobs = self._intake.take(max(1, free), wait=idle)
        for job in jobs or ():
            window = Window(job, self._decode(job.task))
            self._windows.append(window)
            job.batch_size = len(self._windows)
            self._send(window, None)
        return jobs is not None

    def _rows_of(self, window: Window) -> int:
        """How many slots it has or is going to need."""
        if isinstance(window.step, Encode | DetectLanguage):
            task = window.job.task
            return task.best_of if task.temperature.first > 0 else task.beam_size
        return max(1, self._batch.rows_of(window))

    def _turn(self) -> None:
        self._evict()
        if self._steps_behind >= self._pace.steps or not self._batch.running:
            self._steps_behind = 0
            for kind in (Align, Encode, DetectLanguage):
                self._compute(self._ready(kind))
            self._hand_out(self._batch.admit(self._pace.windows, self._pace.frames // 2))
        self._hand_out(self._batch.step())
        self._steps_behind += 1

    def _evict(self) -> None:
        for window in self._windows:
            if window.job.abandoned:
                self._batch.remove(window)
                window.abandon()

    def _ready(self, kind: type) -> list[Window]:
        """The most urgent windows that wait for a step of this kind, as many as the pace
        allows."""
        waiting = [window for window in self._windows if isinstance(window.step, kind)]
        waiting.sort(key=lambda window: window.job.task.lane.value)
        if kind is Encode and waiting:
            # Only windows of one length can be encoded together.
            length = waiting[0].step.frames
            waiting = [window for window in waiting if window.step.frames == length]
        ready: list[Window] = []
        frames = self._pace.frames
        for window in waiting[: self._pace.windows]:
            frames -= frames_of(window.step)
            if ready and frames < 0:
                break
            ready.append(window)
        return ready

    def _compute(self, windows: Sequence[Window]) -> None:
        """Answer steps of one kind: in halves when the memory does not hold them all, or one of
        them is at fault."""
        if not windows:
            return
        try:
            answers = self._answers([window.step for window in windows])
        except Exception as exc:  # noqa: BLE001  # whatever it is, it is somebody's answer
            self._compute_fewer(windows, exc)
        else:
            for window, answer in zip(windows, answers, strict=True):
                self._send(window, answer)

    def _compute_fewer(self, windows: Sequence[Window], exc: Exception) -> None:
        out_of_memory = isinstance(exc, torch.OutOfMemoryError)
        if out_of_memory:
            self._runner.free_memory()
        half = len(windows) // 2
        if half:
            if out_of_memory:
                logger.warning("out of memory: %d windows at once are too many", len(windows))
                self._pace = replace(self._pace, windows=half)
            self._compute(windows[:half])
            self._compute(windows[half:])
        elif out_of_memory and self._batch.shrink():
            self._compute(windows)
        else:
            windows[0].fail(exc)

    def _answers(self, steps: Sequence[Any]) -> Sequence[Any]:
        match steps[0]:
            case Encode(frames=frames):
                return self._runner.encode([step.samples for step in steps], frames)
            case DetectLanguage():
                return self._runner.detect_language([step.encoded for step in steps])
            case _:
                return self._runner.align(steps)

    def _hand_out(self, outcomes: dict[Window, Candidate | Exception]) -> None:
        for window, outcome in outcomes.items():
            if isinstance(outcome, Candidate):
                self._send(window, outcome)
            else:
                window.fail(outcome)

    def _send(self, window: Window, answer: Any) -> None:
        window.send(answer)
        if isinstance(window.step, Generate):
            try:
                self._batch.add(window, window.step)
            except EngineFailed as exc:
                window.fail(exc)

    def _answer(self) -> None:
        for window in self._windows:
            if (outcome := window.progress.outcome) is not None:
                self._intake.answer(window.job, self._with_memory(outcome))
        self._windows = [window for window in self._windows if window.progress.outcome is None]

    def _with_memory(self, outcome: Outcome) -> Outcome:
        if not isinstance(outcome, Hypothesis):
            return outcome
        stats = replace(outcome.stats, gpu_memory_gib=self._runner.memory_gib())
        return replace(outcome, stats=stats)

    def _fail_all(self, exc: Exception) -> None:
        for window in self._windows:
            if window.progress.outcome is None:
                window.fail(exc)
        self._batch = Batch(self._runner)


def frames_of(step: Any) -> int:
    """Mel frames of 10 ms."""
    frames: int = step.frames if isinstance(step, Encode) else 2 * step.encoded.frames
    return frames


def torch_worker(
    model: Whisper,
    *,
    name: str,
    load_s: float,
    padding: Padding,
    gpu_share: float = 1.0,
    max_rows: int | None = None,
) -> TorchWorker:
    """`model`: from `load_model`. `gpu_share`: the part of the free GPU memory that this engine
    may take. `max_rows`: rows decoded at once, by default as many as are worth it."""
    runner = ModelRunner(model, slots=planned_slots(model, gpu_share, max_rows), name=name)
    runner.warm_up()
    decode = partial(decode_window, shape=runner.shape, padding=padding)
    return TorchWorker(runner, decode, load_s=load_s)
