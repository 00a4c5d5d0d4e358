from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future

import numpy as np
import pytest

from benchmarks.ours import EnginePort
from benchmarks.service_tax import Noting, divided, medians, replay
from whisper_serve.engines.base import DecodeTask
from whisper_serve.text.transcript import Hypothesis

SILENCE = Hypothesis((), "en", 1.0)


def task(recording: str, number: int) -> DecodeTask:
    return DecodeTask(np.zeros(number, np.int16), request_id=recording)


class Listening:
    """Answers each window in a thread of its own, and knows the most that came at once."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self.open = self.most = 0
        self._lock = threading.Lock()

    def submit(self, task: DecodeTask) -> Future[Hypothesis]:
        future: Future[Hypothesis] = Future()
        with self._lock:
            self.asked.append((task.request_id, len(task.samples)))
            self.open += 1
            self.most = max(self.most, self.open)
        threading.Timer(0.02, self._answer, [future]).start()
        return future

    def _answer(self, future: Future[Hypothesis]) -> None:
        with self._lock:
            self.open -= 1
        future.set_result(SILENCE)


def test_windows_of_a_recording_follow_each_other_and_recordings_do_not() -> None:
    engine = Listening()
    replay(engine.submit, [[task("a", 1), task("a", 2)], [task("b", 3), task("b", 4)]], at_once=2)
    assert [number for name, number in engine.asked if name == "a"] == [1, 2]
    assert [number for name, number in engine.asked if name == "b"] == [3, 4]
    assert engine.most == 2


def test_what_is_asked_is_noted_by_recording() -> None:
    async def ask(port: Noting) -> None:
        for asked in (task("a", 1), task("b", 2), task("a", 3)):
            assert await port.transcribe(asked) is SILENCE

    port = Noting(EnginePort(Listening()))
    asyncio.run(ask(port))
    assert {name: [len(t.samples) for t in tasks] for name, tasks in port.asked.items()} == {
        "a": [1, 3],
        "b": [2],
    }


def test_the_parts_of_the_service_add_up_to_it() -> None:
    inside = {"engine": 10.0, "in process": 11.0, "unpacking": 0.5, "finding speech": 0.25}
    outside = medians(
        [
            {"service": 14.0, "took": 8.0, "idle_cores": 0.125},
            {"service": 90.0, "took": 9.0, "idle_cores": 0.5},
            {"service": 13.0, "took": 8.0, "idle_cores": 0.125},
        ]
    )
    parts = divided(inside, outside)
    of_service = [cpu_s for name, cpu_s in parts.items() if name.startswith("of the service")]
    assert parts["of the service: the rest"] == pytest.approx(2.25)
    assert parts["engine"] + sum(of_service) == pytest.approx(parts["service"])
