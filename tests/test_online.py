"""The library for live streams, with engines that hear a toy language."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.streaming.speaker import hear, speech
from whisper_serve import online
from whisper_serve.audio.pcm import SAMPLE_RATE, Samples
from whisper_serve.config import StreamingConfig
from whisper_serve.engines.base import DecodeTask
from whisper_serve.errors import (
    ConfigError,
    DeadlineExceeded,
    EngineUnavailable,
    InvalidParameter,
    InvalidRequest,
    Overloaded,
    WhisperServeError,
)
from whisper_serve.online import (
    FasterWhisperWorkerCluster,
    GlobalAsrQueue,
    OnlineASRProcessor,
    RayFasterWhisperASR,
)
from whisper_serve.serving.plan import Node
from whisper_serve.streaming.listener import LiveWindow
from whisper_serve.streaming.messages import StreamConfig
from whisper_serve.text.transcript import Hypothesis, Segment

Audio = npt.NDArray[np.float32]


def spoken(count: int) -> Audio:
    """So many words of 0.3 s, 0.1 s apart; they are called w0, w1 and so on."""
    return audio_of([(0.1, 0.3)] * count)


def audio_of(words: Sequence[tuple[float, float]]) -> Audio:
    return (speech(words) / 32768).astype(np.float32)


class ToyASR:
    """Hears every window at once; `fails` tells which calls go wrong. Keeps the tasks."""

    def __init__(self, language: str | None = "en", fails: Iterable[bool] = ()) -> None:
        self.language = language
        self.tasks: list[DecodeTask] = []
        self._fails = iter(fails)

    def transcribe(self, task: DecodeTask) -> Hypothesis:
        self.tasks.append(task)
        if next(self._fails, False):
            raise DeadlineExceeded(task.timeout_s)
        return hear(cast("LiveWindow", task))  # it has all that is looked at


def processor(asr: ToyASR) -> OnlineASRProcessor:
    return OnlineASRProcessor(asr, vad=False)


def insisted(call: Callable[[], online.Emission]) -> online.Emission:
    """What `call` gives at last."""
    for _ in range(100):
        with suppress(WhisperServeError):
            return call()
    raise AssertionError("it never succeeds")


def emissions(asr: ToyASR, audio: Audio, sizes: Sequence[int]) -> list[online.Emission]:
    """All that comes when `audio` is inserted in chunks of these sizes, and then the rest."""
    stream = processor(asr)
    given: list[online.Emission] = []
    cuts = np.cumsum(sizes)
    for chunk in np.split(audio, cuts[cuts < len(audio)]):
        stream.insert_audio_chunk(chunk)
        with suppress(DeadlineExceeded):
            given.append(stream.process_iter())
    return [*given, insisted(stream.finish)]


def text_of(given: Sequence[online.Emission]) -> str:
    return "".join(text for _, _, text in given)


def spelled(words: Iterable[int]) -> str:
    return " ".join(f"w{word}" for word in words)


WORDS = st.lists(st.tuples(st.floats(0.05, 0.3), st.floats(0.2, 0.4)), max_size=30)
SIZES = st.lists(st.integers(0, 3 * SAMPLE_RATE), max_size=20)


def test_quarters_of_a_second_give_the_text_piece_by_piece() -> None:
    given = emissions(ToyASR(), spoken(20), [4_000] * 32)
    pieces = [emission for emission in given if emission[2]]
    assert text_of(given) == spelled(range(20))
    assert len(pieces) > 3
    assert {emission for emission in given if not emission[2]} == {(None, None, "")}
    times = [time for begin, end, _ in pieces for time in (begin, end)]
    assert times[0] == pytest.approx(0.1)
    assert times[-1] == pytest.approx(20 * 0.4)
    assert times == sorted(time for time in times if time is not None)


@given(WORDS, SIZES)
def test_any_chunks_give_the_same_text(words: list[tuple[float, float]], sizes: list[int]) -> None:
    given = emissions(ToyASR(), audio_of(words), sizes)
    assert text_of(given) == spelled(range(len(words)))


@given(WORDS, SIZES, st.lists(st.booleans(), max_size=30))
def test_calls_that_fail_lose_nothing(
    words: list[tuple[float, float]], sizes: list[int], fails: list[bool]
) -> None:
    given = emissions(ToyASR(fails=fails), audio_of(words), sizes)
    assert text_of(given) == spelled(range(len(words)))


def test_a_failed_call_can_be_made_again_without_new_audio() -> None:
    asr = ToyASR(fails=[False, True])
    stream = processor(asr)
    stream.insert_audio_chunk(spoken(10))
    with pytest.raises(DeadlineExceeded):
        stream.process_iter()
    assert stream.process_iter()[2].startswith("w0 w1")
    failed, again = asr.tasks[1:3]
    assert failed is not again
    assert np.array_equal(failed.samples, again.samples)


def test_finish_gives_the_tail() -> None:
    stream = processor(ToyASR())
    stream.insert_audio_chunk(spoken(2))
    assert stream.process_iter() == (None, None, "")
    begin, end, text = stream.finish()
    assert begin == pytest.approx(0.1)
    assert end == pytest.approx(0.8)
    assert text == "w0 w1"
    assert stream.finish() == (None, None, "")


def test_finish_can_be_called_again_after_a_time_out() -> None:
    stream = processor(ToyASR(fails=[True]))
    stream.insert_audio_chunk(spoken(2))
    with pytest.raises(DeadlineExceeded):
        stream.finish()
    assert stream.finish()[2] == "w0 w1"


def test_without_audio_there_is_no_text() -> None:
    asr = ToyASR()
    assert processor(asr).process_iter() == (None, None, "")
    assert processor(asr).finish() == (None, None, "")
    assert asr.tasks == []


def test_nothing_can_be_inserted_after_the_end() -> None:
    stream = processor(ToyASR())
    stream.finish()
    with pytest.raises(InvalidRequest, match="ended"):
        stream.insert_audio_chunk(spoken(1))


def test_streams_in_threads_do_not_mix() -> None:
    asr = ToyASR()
    parts = np.split(spoken(80), 4)
    everyone = threading.Barrier(len(parts))

    def run(part: Audio) -> str:
        everyone.wait(timeout=10)
        return text_of(emissions(asr, part, [4_000] * 40))

    with ThreadPoolExecutor(len(parts)) as pool:
        texts = list(pool.map(run, parts))
    assert texts == [spelled(range(first, first + 20)) for first in range(0, 80, 20)]
    assert len({task.session_id for task in asr.tasks}) == len(parts)


def test_every_window_has_an_id_of_its_own_which_it_keeps() -> None:
    asr = ToyASR(fails=[True])
    emissions(asr, spoken(10), [SAMPLE_RATE] * 5)
    ids = [task.request_id for task in asr.tasks]
    assert ids[0] == ids[1]
    assert len(set(ids)) == len(ids) - 1 > 2


# What is asked for


def task_of(asr: ToyASR, **options: object) -> DecodeTask:
    stream = OnlineASRProcessor(asr, vad=False, **options)  # type: ignore[arg-type]
    stream.insert_audio_chunk(spoken(2))
    stream.finish()
    return asr.tasks[-1]


@pytest.mark.parametrize(
    ("of_workers", "of_stream", "asked"),
    [
        ("zh", None, "zh"),
        ("zh", "en", "en"),
        ("zh", "German", "de"),
        ("zh", "en-US", "en"),
        ("zh", "auto", None),
        (None, None, None),
        (None, "zh", "zh"),
    ],
)
def test_a_stream_has_its_own_language_or_that_of_the_workers(
    of_workers: str | None, of_stream: str | None, asked: str | None
) -> None:
    assert task_of(ToyASR(of_workers), language=of_stream).language == asked


def test_options_reach_the_engine() -> None:
    task = task_of(
        ToyASR(), task="translate", prompt="Names:", hotwords="Ray", beam_size=2, timeout_s=7.0
    )
    assert (task.task, task.context, task.hotwords) == ("translate", "Names:", "Ray")
    assert (task.beam_size, task.timeout_s) == (2, 7.0)


def test_a_stream_decodes_as_those_of_the_service_do() -> None:
    task, config = task_of(ToyASR()), StreamConfig()
    assert task.beam_size == StreamingConfig().beam_size
    assert (task.best_of, task.suppress_tokens) == (config.best_of, config.suppress_tokens)


@pytest.mark.parametrize(
    "options", [{"language": "klingon"}, {"task": "summarize"}, {"beam_size": 0}]
)
def test_impossible_options_are_refused(options: dict[str, str | int]) -> None:
    with pytest.raises(InvalidParameter, match=next(iter(options))):
        OnlineASRProcessor(ToyASR(), **options)  # type: ignore[arg-type]


# Audio


def heard_of(audio: npt.ArrayLike) -> Samples:
    asr = ToyASR()
    stream = processor(asr)
    stream.insert_audio_chunk(audio)
    stream.finish()
    return asr.tasks[-1].samples


def test_int16_and_floats_of_any_width_are_the_same_audio() -> None:
    audio = spoken(2)
    expected = heard_of(audio)
    assert np.array_equal(heard_of(audio.astype(np.float64)), expected)
    assert np.array_equal(heard_of((audio * 32768).astype(np.int16)), expected)


def test_what_is_beyond_full_scale_is_clipped_and_nan_is_silence(
    caplog: pytest.LogCaptureFixture,
) -> None:
    strange = np.array([np.nan, 2.0, -2.0, np.inf, 1.0, -1.0], np.float32)
    samples = heard_of(np.concatenate([strange, spoken(2)]))
    assert samples[:6].tolist() == [0, 32767, -32768, 32767, 32767, -32768]
    assert "clipped" in caplog.text


@pytest.mark.parametrize("audio", [np.zeros((2, 8), np.float32), np.zeros(8, np.int32), 0.5, ["a"]])
def test_what_is_no_mono_audio_is_refused_and_has_no_effect(audio: npt.ArrayLike) -> None:
    stream = processor(ToyASR())
    with pytest.raises(InvalidParameter, match="audio"):
        stream.insert_audio_chunk(audio)
    stream.insert_audio_chunk(spoken(2))
    assert stream.finish()[2] == "w0 w1"


# Jobs


class Queue:
    """Keeps jobs; `answer` is called with all of them when one more has come."""

    language = "en"

    def __init__(self, answer: Callable[[list[Future[Hypothesis]]], None]) -> None:
        self.jobs: list[Future[Hypothesis]] = []
        self._answer = answer

    def submit(self, _task: DecodeTask) -> Future[Hypothesis]:
        self.jobs.append(Future())
        self._answer(self.jobs)
        return self.jobs[-1]


def one_second() -> DecodeTask:
    return DecodeTask(np.zeros(SAMPLE_RATE, np.int16), timeout_s=0.01)


def said(text: str) -> Hypothesis:
    return Hypothesis((Segment(0.0, 1.0, text),), "en", 1.0)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(online, "GRACE_S", 0.05)


@pytest.mark.usefixtures("impatient")
def test_a_job_that_nobody_answers_is_a_time_out_and_given_up() -> None:
    queue = Queue(lambda _jobs: None)
    with pytest.raises(DeadlineExceeded, match=r"0\.01 s"):
        RayFasterWhisperASR(global_asr_queue=queue).transcribe(one_second())
    assert queue.jobs[0].cancelled()


@pytest.mark.usefixtures("impatient")
def test_a_late_answer_is_no_other_job_s() -> None:
    def answer_both(jobs: list[Future[Hypothesis]]) -> None:
        if len(jobs) > 1:
            if jobs[0].set_running_or_notify_cancel():
                jobs[0].set_result(said("late"))
            jobs[1].set_result(said("mine"))

    asr = RayFasterWhisperASR(Queue(answer_both))
    with pytest.raises(DeadlineExceeded):
        asr.transcribe(one_second())
    assert asr.transcribe(one_second()).text == "mine"


def test_what_a_job_raises_is_raised() -> None:
    queue = Queue(lambda jobs: jobs[-1].set_exception(Overloaded(1.0)))
    with pytest.raises(Overloaded):
        RayFasterWhisperASR(queue).transcribe(one_second())


# Workers


@pytest.mark.parametrize(
    ("nodes", "options", "max_count", "workers"),
    [
        ([Node(8)], {}, None, 1),
        ([Node(8)], {}, 4, 1),
        ([Node(8), Node(8)], {}, None, 2),
        ([Node(8)], {"cpus_per_worker": 2}, None, 4),
        ([Node(8)], {"cpus_per_worker": 2}, 3, 3),
        ([Node(0.5)], {}, None, 1),
        ([Node(16, gpus=4)], {}, None, 4),
        ([Node(16, gpus=4)], {}, 3, 3),
        ([Node(16, gpus=2), Node(16)], {}, None, 2),
        ([Node(16, gpus=4)], {"device": "cpu"}, None, 1),
    ],
)
def test_there_is_a_worker_for_each_gpu_or_machine(
    nodes: list[Node], options: dict[str, Any], max_count: int | None, workers: int
) -> None:
    plan = FasterWhisperWorkerCluster("en", "base", max_count, **options).plan(nodes)
    assert plan.replicas == workers
    assert plan.gpus_per_replica == (1.0 if plan.device == "cuda" else 0.0)


@pytest.mark.parametrize(
    ("arguments", "error", "told"),
    [
        ({"lan": "klingon"}, InvalidParameter, "lan.*klingon"),
        ({"max_worker_count": 0}, InvalidParameter, "max_worker_count"),
        ({"device": "tpu"}, ConfigError, "model.device.*tpu"),
        ({"cpus_per_worker": 0}, ConfigError, "cpu_per_replica"),
        ({"model_size_or_path": ""}, ConfigError, "model.size"),
    ],
)
def test_impossible_workers_are_refused(
    arguments: dict[str, Any], error: type[WhisperServeError], told: str
) -> None:
    with pytest.raises(error, match=told):
        FasterWhisperWorkerCluster(**{"lan": "en", "model_size_or_path": "base", **arguments})


@pytest.mark.parametrize("argument", signature(FasterWhisperWorkerCluster).parameters)
def test_every_argument_is_documented(argument: str) -> None:
    page = Path(__file__).parent.parent / "docs" / "online.md"
    assert f"`{argument}`" in page.read_text(encoding="utf-8")


def test_the_queue_can_be_sent_to_other_processes() -> None:
    queue = GlobalAsrQueue("workers", "zh")
    assert pickle.loads(pickle.dumps(queue)) == queue  # noqa: S301
    assert RayFasterWhisperASR(queue).language == "zh"


def test_a_job_without_ray_fails_at_once() -> None:
    """It does not start a Ray in which nobody works."""
    with pytest.raises(EngineUnavailable):
        RayFasterWhisperASR(GlobalAsrQueue("workers")).transcribe(
            replace(one_second(), timeout_s=9)
        )
