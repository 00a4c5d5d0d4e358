"""The library for live streams with real workers on a real Ray."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray import serve
from whisper.normalizers import EnglishTextNormalizer

from tests.conftest import SAMPLE_WORDS
from tests.serving.scripted import build_noted, notes, one_word
from whisper_serve.audio.decode import decode
from whisper_serve.audio.pcm import SAMPLE_RATE, Samples
from whisper_serve.engines.base import DecodeTask, Engine
from whisper_serve.engines.build import EngineOptions
from whisper_serve.engines.fake import FakeWorker
from whisper_serve.engines.intake import Limits
from whisper_serve.engines.threaded import ThreadedEngine
from whisper_serve.errors import (
    DeadlineExceeded,
    EngineUnavailable,
    Overloaded,
    ServerStartError,
    UnknownModel,
    WeightsUnavailable,
)
from whisper_serve.online import (
    FasterWhisperWorkerCluster,
    GlobalAsrQueue,
    OnlineASRProcessor,
    RayFasterWhisperASR,
    TranscribesNow,
)
from whisper_serve.text.transcript import Hypothesis

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("serve_port")]

CHUNK = SAMPLE_RATE // 4
JFK = (
    "and so my fellow americans ask not what your country can do for you "
    "ask what you can do for your country"
)
normalize = EnglishTextNormalizer()


def text_of(asr: TranscribesNow, audio: Samples) -> str:
    """What a stream of this audio says in the end."""
    online = OnlineASRProcessor(asr, beam_size=1, timeout_s=60.0)
    texts = []
    for first in range(0, len(audio), CHUNK):
        online.insert_audio_chunk(audio[first : first + CHUNK].astype(np.float32) / 32768)
        texts.append(online.process_iter()[2])
    return "".join([*texts, online.finish()[2]])


def text_from(queue: GlobalAsrQueue, audio: Samples) -> str:
    return text_of(RayFasterWhisperASR(global_asr_queue=queue), audio)


def samples_of(recording: Path) -> Samples:
    accepted = (".wav", ".mp3", ".flac", ".ogg")
    return decode(recording.read_bytes(), accepted=accepted, max_duration_s=60.0)


@pytest.fixture(scope="module")
def audio(sample: Path) -> Samples:
    return samples_of(sample)


# Real weights


@pytest.fixture(scope="module")
def workers(serve_port: int, model_dir: Path) -> Iterator[FasterWhisperWorkerCluster]:
    with FasterWhisperWorkerCluster(
        "en", "base", 2, model_dir=model_dir, cpus_per_worker=1
    ) as cluster:
        yield cluster


@pytest.mark.weights
def test_two_streams_at_once_give_their_own_texts(
    workers: FasterWhisperWorkerCluster, audio: Samples, corpus: Path
) -> None:
    queue = workers.get_global_asr_queue()
    recordings = [audio, samples_of(corpus / "formats/jfk.mp3")]
    with ThreadPoolExecutor(2) as pool:
        texts = list(pool.map(partial(text_from, queue), recordings))
    assert workers.worker_count == 2
    assert [normalize(text) for text in texts] == [SAMPLE_WORDS, JFK]


@pytest.mark.weights
def test_the_queue_can_be_passed_to_a_task(
    workers: FasterWhisperWorkerCluster, audio: Samples
) -> None:
    remote = ray.remote(num_cpus=1)(text_from)
    text = ray.get(remote.remote(workers.get_global_asr_queue(), audio), timeout=120)
    assert normalize(text) == SAMPLE_WORDS


class Deadly:
    """Its `victim` is killed while it has the fifth window."""

    language = "en"

    def __init__(self, queue: GlobalAsrQueue, victim: int) -> None:
        self._asr = RayFasterWhisperASR(queue)
        self._victim = victim
        self._calls = 0

    def transcribe(self, task: DecodeTask) -> Hypothesis:
        self._calls += 1
        if self._calls == 5:
            threading.Timer(0.05, os.kill, (self._victim, signal.SIGKILL)).start()
        return self._asr.transcribe(task)


@pytest.mark.weights
def test_a_worker_killed_in_the_middle_changes_nothing(
    tmp_path: Path, model_dir: Path, audio: Samples
) -> None:
    """There is no other."""
    (tmp_path / "base").symlink_to(model_dir / "base")
    with FasterWhisperWorkerCluster(
        "en", "base", 1, model_dir=tmp_path, cpus_per_worker=1, build=build_noted
    ) as cluster:
        (victim,) = notes(tmp_path, "built")
        text = text_of(Deadly(cluster.get_global_asr_queue(), victim), audio)
    assert normalize(text) == SAMPLE_WORDS
    assert notes(tmp_path, "built") != [victim]


# Scripted workers


def build_numbering(options: EngineOptions) -> Engine:
    """Answers its windows with their numbers; number 0 takes long."""
    numbers = iter(range(1_000))
    lock = threading.Lock()

    def hear(task: DecodeTask) -> Hypothesis:
        with lock:
            number = next(numbers)
        time.sleep(0.0 if number else 3.0)
        return one_word(f"answer-{number}", task)

    return ThreadedEngine(FakeWorker([hear]), Limits(options.max_queued, rows=1))


def scripted(folder: Path, **options: Any) -> FasterWhisperWorkerCluster:
    return FasterWhisperWorkerCluster(
        None, "base", 1, model_dir=folder, build=build_numbering, cpus_per_worker=1, **options
    )


def one_window(queue: GlobalAsrQueue, timeout_s: float) -> OnlineASRProcessor:
    """A stream that has one second of audio, which `finish` has to have decoded."""
    asr = RayFasterWhisperASR(global_asr_queue=queue)
    online = OnlineASRProcessor(asr, vad=False, timeout_s=timeout_s)
    online.insert_audio_chunk(np.full(SAMPLE_RATE // 2, 0.1, np.float32))
    return online


def test_a_time_out_is_raised_and_its_late_answer_goes_nowhere(tmp_path: Path) -> None:
    with scripted(tmp_path) as cluster:
        online = one_window(cluster.get_global_asr_queue(), timeout_s=1.0)
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            online.finish()
        assert 1.0 <= time.monotonic() - began < 2.5
        other = one_window(cluster.get_global_asr_queue(), timeout_s=30.0)
        assert other.finish()[2] == "answer-1"
        assert online.finish()[2] == "answer-2"


def test_more_jobs_than_may_wait_are_refused_and_can_be_asked_again(tmp_path: Path) -> None:
    with scripted(tmp_path, max_queued=1) as cluster:
        queue = cluster.get_global_asr_queue()
        streams = [one_window(queue, timeout_s=30.0) for _ in range(5)]
        with ThreadPoolExecutor(5) as pool:
            calls = [pool.submit(stream.finish) for stream in streams]
            errors = [call.exception() for call in calls]
        refused = [stream for stream, e in zip(streams, errors, strict=True) if e]
        assert 3 <= len(refused) < 5  # 4 when all come before the worker takes the first
        assert {type(error) for error in errors} == {type(None), Overloaded}
        assert all(stream.finish()[2].startswith("answer-") for stream in refused)


def test_without_workers_calls_fail_at_once(tmp_path: Path) -> None:
    cluster = scripted(tmp_path)
    with pytest.raises(ServerStartError, match="run"):
        cluster.get_global_asr_queue()
    with cluster:
        online = one_window(cluster.get_global_asr_queue(), timeout_s=30.0)
    began = time.monotonic()
    with pytest.raises(EngineUnavailable):
        online.finish()
    assert time.monotonic() - began < 5.0
    assert cluster.worker_count == 0


def build_nothing(options: EngineOptions) -> Engine:
    raise WeightsUnavailable(options.model, [("here", "there are none")])


def test_workers_that_cannot_start_leave_nothing_behind(tmp_path: Path) -> None:
    before = set(serve.status().applications)
    cluster = FasterWhisperWorkerCluster("en", "base", 1, model_dir=tmp_path, build=build_nothing)
    with pytest.raises(ServerStartError, match="there are none"):
        cluster.run()
    assert set(serve.status().applications) == before


def test_a_model_that_nobody_knows_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match="klingon"):
        FasterWhisperWorkerCluster("en", "klingon", 1, model_dir=tmp_path).run()
