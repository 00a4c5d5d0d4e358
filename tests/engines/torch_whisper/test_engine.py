from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from faster_whisper.audio import decode_audio
from hypothesis import given, settings
from hypothesis import strategies as st
from whisper.model import Whisper

from tests.engines.torch_whisper.networks import noise_model, one_thread, sound
from whisper_serve.engines.base import DecodeTask, Lane, Samples, TemperaturePolicy
from whisper_serve.engines.checkpoints import read_openai_checkpoint
from whisper_serve.engines.intake import Intake, Limits
from whisper_serve.engines.padding import WHOLE_ONLY, Padding
from whisper_serve.engines.scheduler import Job
from whisper_serve.engines.steps import DetectLanguage, Encode, Steps, decode_window
from whisper_serve.engines.torch_whisper.engine import Pace, TorchWorker, torch_worker
from whisper_serve.engines.torch_whisper.model import load_model
from whisper_serve.engines.torch_whisper.model_runner import ModelRunner, Prefill, Prefilled
from whisper_serve.engines.torch_whisper.network import EncodedAudio
from whisper_serve.errors import EngineFailed, InvalidParameter, WhisperServeError
from whisper_serve.text.transcript import Hypothesis

SPOKEN = "ask not what your country can do for you"
ONCE = TemperaturePolicy(temperatures=(0.0,))
TWICE = TemperaturePolicy(temperatures=(0.0, 0.6))
HEARD = Hypothesis((), "en", 1.0)
WAIT_S = 60.0

Decode = Callable[[DecodeTask], Steps[Hypothesis]]
Outcome = Hypothesis | WhisperServeError


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def model() -> Whisper:
    return noise_model()


class Turns:
    """Gives the worker one list of jobs a turn, and then no more. An empty list is a turn
    without new windows; it waits for nobody."""

    def __init__(self, *turns: Sequence[Job]) -> None:
        self._turns = list(turns)
        self._left: list[Job] = []
        self.asked_for: list[int] = []
        self.outcomes: dict[Job, Outcome] = {}

    def take(self, rows: int, *, wait: bool) -> list[Job] | None:
        self.asked_for.append(rows)
        if self._turns:
            self._left += self._turns.pop(0)
        while wait and not self._left and self._turns:
            self._left += self._turns.pop(0)
        if not self._left and not self._turns:
            return None
        taken, self._left = self._left[:rows], self._left[rows:]
        return taken

    def answer(self, job: Job, outcome: Outcome) -> None:
        assert job not in self.outcomes
        self.outcomes[job] = outcome


class Diary(ModelRunner):
    """Notes what it computes, and fails as it is told."""

    def __init__(self, model: Whisper, slots: int) -> None:
        self.notes: list[str] = []
        self.fails: Callable[[str, int], Exception | None] = lambda _kind, _rows: None
        super().__init__(model, slots=slots, name="noise")

    def note(self, kind: str, rows: int) -> None:
        self.notes.append(f"{kind} {rows}")
        if (exc := self.fails(kind, rows)) is not None:
            raise exc

    def encode(self, windows: Sequence[Samples], frames: int) -> list[EncodedAudio]:
        self.note("encode", len(windows))
        return super().encode(windows, frames)

    def prefill(self, prompts: Sequence[Prefill]) -> Prefilled:
        self.note("prefill", len(prompts))
        return super().prefill(prompts)

    def step(self, tokens: Sequence[int], positions: Sequence[int], first: int = 0) -> torch.Tensor:
        self.note("step", len(tokens))
        return super().step(tokens, positions, first)


def job(seed: int = 0, seconds: float = 30.0, **changes: object) -> Job:
    samples = sound(seed, int(seconds * 16_000))
    usual = DecodeTask(samples, language="en", temperature=ONCE, want_words=False)
    return Job(replace(usual, **changes), time.monotonic())  # type: ignore[arg-type]


def worker_of(
    runner: ModelRunner,
    decode: Decode | None = None,
    pace: Pace | None = None,
    padding: Padding = WHOLE_ONLY,
) -> TorchWorker:
    windows = partial(decode_window, shape=runner.shape, padding=padding)
    return TorchWorker(runner, decode or windows, pace=pace)


def heard(outcome: Outcome) -> Hypothesis:
    """Without what it cost."""
    assert isinstance(outcome, Hypothesis), outcome
    return replace(outcome, stats=HEARD.stats)


# Windows


def unlike_jobs() -> list[Job]:
    return [
        job(1),
        job(2, context="What was said before."),
        job(3, prefix="Known from before", language="de"),
        job(4, want_words=True),
        job(5, language=None, want_words=True),
        job(6, temperature=TWICE, best_of=3, prefix="Once"),
        job(7, beam_size=3),
        job(8, seconds=2.0, language=None, temperature=TWICE, best_of=2),
    ]


@pytest.fixture(scope="module")
def alone(model: Whisper) -> list[Hypothesis]:
    """What each of `unlike_jobs` gives by itself."""
    with one_thread():
        hypotheses = []
        for each in unlike_jobs():
            turns = Turns([each])
            worker_of(ModelRunner(model, slots=5), padding=Padding()).work(turns)
            hypotheses.append(heard(turns.outcomes[each]))
        return hypotheses


@settings(max_examples=6)
@given(
    order=st.permutations(range(8)),
    sizes=st.lists(st.integers(0, 3), max_size=8),
    windows=st.integers(1, 4),
    steps=st.integers(1, 6),
)
def test_a_window_is_heard_in_any_company_as_alone(
    *,
    model: Whisper,
    alone: list[Hypothesis],
    order: list[int],
    sizes: list[int],
    windows: int,
    steps: int,
) -> None:
    jobs = unlike_jobs()
    waiting = [jobs[n] for n in order]
    turns = []
    for size in sizes:
        turns.append(waiting[:size])
        del waiting[:size]
    intake, runner = Turns(*turns, waiting), ModelRunner(model, slots=5)
    worker_of(runner, pace=Pace(windows, 6000, steps), padding=Padding()).work(intake)
    for each, expected in zip(jobs, alone, strict=True):
        found = heard(intake.outcomes[each])
        assert found.text == expected.text
        assert found.language == expected.language
        assert [s.tokens for s in found.segments] == [s.tokens for s in expected.segments]
        assert [w.text for w in found.words] == [w.text for w in expected.words]


def test_no_more_windows_are_taken_than_there_are_slots_for(model: Whisper) -> None:
    intake = Turns([job(n) for n in range(7)])
    worker_of(Diary(model, slots=3)).work(intake)
    assert len(intake.outcomes) == 7
    assert max(intake.asked_for) == 3
    assert min(intake.asked_for) > 0


def test_a_worker_tells_what_it_is(model: Whisper) -> None:
    worker = torch_worker(model, name="noise", load_s=1.5, padding=WHOLE_ONLY)
    assert (worker.info.engine, worker.info.model, worker.info.device) == ("torch", "noise", "cpu")
    assert (worker.info.compute_type, worker.info.multilingual) == ("float32", True)
    assert worker.info.load_s == 1.5
    assert worker.gpu_memory_gib() == 0.0


# Pace


def test_running_rows_are_not_held_up_for_long(model: Whisper) -> None:
    runner = Diary(model, slots=8)
    intake = Turns([job(0)], *[[job(n)] for n in range(1, 6)])
    worker_of(runner, pace=Pace(windows=4, frames=3000, steps=5)).work(intake)
    encodes = [n for n, note in enumerate(runner.notes) if note.startswith("encode")]
    between = [runner.notes[a:b] for a, b in pairwise(encodes)]
    assert all(note == "encode 1" for note in runner.notes if note.startswith("encode"))
    for notes in between[1:]:
        assert sum(note.startswith("step") for note in notes) >= 5


def test_what_comes_together_is_computed_together(model: Whisper) -> None:
    runner = Diary(model, slots=8)
    worker_of(runner, pace=Pace(windows=4, frames=12_000, steps=1)).work(
        Turns([job(n) for n in range(6)])
    )
    assert runner.notes[:6] == [
        "encode 4",
        "prefill 4",
        "step 4",
        "encode 2",
        "prefill 2",
        "step 6",
    ]


def test_only_windows_of_one_length_are_encoded_together(model: Whisper) -> None:
    def decode(task: DecodeTask) -> Steps[Hypothesis]:
        yield Encode(task.samples, len(task.samples) // 160)
        return HEARD

    runner = Diary(model, slots=8)
    intake = Turns([job(n, seconds=2.0 + n % 2) for n in range(6)])
    worker_of(runner, decode, Pace(windows=8, frames=12_000, steps=1)).work(intake)
    assert runner.notes == ["encode 3", "encode 3"]


def test_the_most_urgent_window_is_encoded_first(model: Whisper) -> None:
    order: list[Lane] = []

    def decode(task: DecodeTask) -> Steps[Hypothesis]:
        yield Encode(task.samples, 3000)
        order.append(task.lane)
        return HEARD

    lanes = [Lane.FILE, Lane.LIVE_PARTIAL, Lane.FILE, Lane.LIVE_FINAL]
    worker = worker_of(Diary(model, slots=8), decode, Pace(windows=1, frames=3000, steps=1))
    worker.work(Turns([job(n, lane=lane) for n, lane in enumerate(lanes)]))
    assert order == [Lane.LIVE_FINAL, Lane.LIVE_PARTIAL, Lane.FILE, Lane.FILE]


# Failures


def test_a_refusal_is_the_answer_of_its_window_only(model: Whisper) -> None:
    bad, good = job(1, language="xx"), job(2)
    intake = Turns([bad, good])
    worker_of(Diary(model, slots=2)).work(intake)
    refusal = intake.outcomes[bad]
    assert isinstance(refusal, InvalidParameter)
    assert refusal.parameter == "language"
    assert isinstance(intake.outcomes[good], Hypothesis)


def test_a_window_whose_steps_break_fails_alone(model: Whisper) -> None:
    runner = Diary(model, slots=4)

    def decode(task: DecodeTask) -> Steps[Hypothesis]:
        if task.context:
            yield Encode(task.samples, 3000)
            raise LookupError("lost")
        return (yield from decode_window(task, runner.shape, WHOLE_ONLY))

    bad, good = job(1, context="bad"), job(2)
    intake = Turns([bad, good])
    worker_of(runner, decode).work(intake)
    failure = intake.outcomes[bad]
    assert isinstance(failure, EngineFailed)
    assert failure.detail == "LookupError: lost"
    assert isinstance(intake.outcomes[good], Hypothesis)


def test_a_prompt_without_room_fails_alone(model: Whisper) -> None:
    bad, good = job(1, context="long " * 300), job(2)
    intake = Turns([bad, good])
    worker_of(Diary(model, slots=2)).work(intake)
    assert isinstance(intake.outcomes[bad], EngineFailed)
    assert isinstance(intake.outcomes[good], Hypothesis)


@pytest.mark.parametrize("kind", ["encode", "prefill", "step"])
def test_a_fault_that_strikes_once_costs_nobody_the_answer(model: Whisper, kind: str) -> None:
    runner = Diary(model, slots=4)
    faults = [RuntimeError("struck")]
    runner.fails = lambda what, rows: faults.pop() if what == kind and rows > 1 and faults else None
    jobs = [job(n) for n in range(3)]
    intake = Turns(jobs)
    worker_of(runner, pace=Pace(4, 12_000, 1)).work(intake)
    assert not faults
    assert all(isinstance(intake.outcomes[each], Hypothesis) for each in jobs)


@pytest.mark.parametrize(("kind", "slots"), [("encode", 4), ("prefill", 4), ("step", 1)])
def test_memory_that_runs_out_costs_nobody_the_answer(
    model: Whisper, kind: str, slots: int
) -> None:
    runner = Diary(model, slots=4)
    runner.fails = lambda what, rows: (
        torch.OutOfMemoryError("full") if what == kind and rows > 1 else None
    )
    jobs = [job(n) for n in range(4)]
    intake = Turns(jobs)
    worker_of(runner, pace=Pace(4, 12_000, 1)).work(intake)
    assert runner.slots == slots
    assert all(isinstance(intake.outcomes[each], Hypothesis) for each in jobs)


def test_slots_make_room_for_a_window_that_cannot_be_encoded(model: Whisper) -> None:
    runner = Diary(model, slots=8)
    runner.fails = lambda what, _: (
        torch.OutOfMemoryError("full") if what == "encode" and runner.slots > 2 else None
    )
    one = job(1)
    intake = Turns([one])
    worker_of(runner).work(intake)
    assert runner.slots == 2
    assert isinstance(intake.outcomes[one], Hypothesis)


def test_a_worker_outlives_windows_that_never_fit(model: Whisper) -> None:
    runner = Diary(model, slots=2)
    runner.fails = lambda what, _: torch.OutOfMemoryError("full") if what == "encode" else None
    intake = Turns([job(1)], [job(2)])
    worker_of(runner).work(intake)
    assert [type(outcome) for outcome in intake.outcomes.values()] == [EngineFailed] * 2


def test_who_is_at_fault_is_found_among_those_computed_together(model: Whisper) -> None:
    broken: list[EncodedAudio] = []

    class Fragile(Diary):
        def detect_language(self, encoded: Sequence[EncodedAudio]) -> list[tuple[str, float]]:
            self.note("detect", len(encoded))
            if any(audio in broken for audio in encoded):
                raise RuntimeError("broken")
            return super().detect_language(encoded)

    def decode(task: DecodeTask) -> Steps[Hypothesis]:
        encoded = yield Encode(task.samples, 3000)
        if task.context:
            broken.append(encoded)
        language, probability = yield DetectLanguage(encoded)
        return Hypothesis((), language, probability)

    runner = Fragile(model, slots=4)
    good, bad, other = job(2), job(1, context="bad"), job(3)
    intake = Turns([good, bad, other])
    worker_of(runner, decode, Pace(4, 12_000, 1)).work(intake)
    assert runner.notes[:2] == ["encode 3", "detect 3"]
    assert isinstance(intake.outcomes[bad], EngineFailed)
    assert heard(intake.outcomes[good]).language
    assert heard(intake.outcomes[other]).language


# Windows that nobody waits for


def test_an_abandoned_window_leaves_between_steps(model: Whisper) -> None:
    runner = Diary(model, slots=3)
    closed = []

    def decode(task: DecodeTask) -> Steps[Hypothesis]:
        try:
            return (yield from decode_window(task, runner.shape, WHOLE_ONLY))
        finally:
            closed.append(task.context)

    gone, kept = job(1, context="gone"), job(2)

    def fails(kind: str, rows: int) -> None:
        if kind == "step" and rows == 2 and runner.notes.count("step 2") == 5:
            gone.future.cancel()

    runner.fails = fails
    intake = Turns([gone, kept])
    worker_of(runner, decode).work(intake)
    assert runner.notes.count("step 2") == 5
    assert runner.notes.count("step 1") > 5
    assert isinstance(intake.outcomes[gone], EngineFailed)
    assert isinstance(intake.outcomes[kept], Hypothesis)
    assert closed == ["gone", ""]


# Threads and the end


@contextmanager
def working(worker: TorchWorker, intake: Intake) -> Iterator[None]:
    thread = threading.Thread(target=worker.work, args=(intake,))
    thread.start()
    try:
        yield
    finally:
        intake.close()
        thread.join(WAIT_S)
        assert not thread.is_alive()


def test_windows_are_answered_through_the_queue(model: Whisper) -> None:
    worker = worker_of(ModelRunner(model, slots=4))
    intake = Intake(Limits(max_queued=100, rows=16))
    jobs = [job(n) for n in range(9)]
    with working(worker, intake):
        for each in jobs:
            intake.offer(each)
        assert len([each.future.result(WAIT_S) for each in jobs]) == 9
    assert intake.load().running == 0


def test_what_was_taken_is_answered_when_the_queue_closes(model: Whisper) -> None:
    runner = Diary(model, slots=2)
    intake = Intake(Limits(max_queued=100, rows=16))
    first = job(1)
    runner.fails = lambda kind, _: intake.close() if kind == "encode" else None
    with working(worker_of(runner), intake):
        intake.offer(first)
        assert first.future.result(WAIT_S).language == "en"


def test_a_closed_worker_lets_its_weights_go_and_says_so() -> None:
    model = noise_model()
    worker, alive = torch_worker(model, name="x", load_s=0, padding=WHOLE_ONLY), weakref.ref(model)
    del model
    worker.work(Turns([job(1)]))
    worker.close()
    worker.close()
    gc.collect()
    assert alive() is None
    assert worker.gpu_memory_gib() == 0.0
    with pytest.raises(EngineFailed):
        worker.work(Turns([job(1)]))


# Real speech


@pytest.mark.weights
def test_speech_is_transcribed_with_words_and_times(tiny_openai: Path, corpus: Path) -> None:
    model = load_model(read_openai_checkpoint(tiny_openai), "cpu", "auto")
    audio = decode_audio(str(corpus / "formats/jfk.flac"))
    samples: Samples = (audio * 32768.0).astype(np.int16)
    whole, short = Job(DecodeTask(samples), 0.0), Job(DecodeTask(samples[: 5 * 16_000]), 0.0)
    intake = Turns([whole], [short])
    torch_worker(model, name="tiny.en", load_s=0, padding=Padding()).work(intake)
    found = heard(intake.outcomes[whole])
    assert SPOKEN in found.text.lower().replace(",", "")
    assert "".join(word.text for word in found.words).strip() == found.text
    assert all(0.0 <= word.start <= word.end <= 11.0 for word in found.words)
    [country, _] = [word for word in found.words if word.text.strip(" .,") == "country"]
    assert country.start == pytest.approx(6.0, abs=0.3)
    assert "fellow americans" in heard(intake.outcomes[short]).text.lower()
