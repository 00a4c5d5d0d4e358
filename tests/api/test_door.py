from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from tests.api.fakes import FakeEngines
from whisper_serve.api.door import Door
from whisper_serve.api.services import EngineStatus
from whisper_serve.config import Config
from whisper_serve.engines.base import EngineInfo, EngineLoad
from whisper_serve.errors import Draining, EngineUnavailable, Overloaded
from whisper_serve.streaming.listener import LiveWindow

CONFIG = Config.model_validate({"streaming": {"max_answer_s": 0.02}})
INFO = EngineInfo("fake", "none", "cpu", "none", multilingual=True, load_s=0.0)
FULL = EngineStatus(INFO, EngineLoad(256, 100.0, 1, 0.0, waiting_files=256))
WINDOW = LiveWindow(
    1, 0, np.zeros(16_000, np.int16), "", "", None, final=True, settles=False, fresh=False
)


@dataclass
class Asked(FakeEngines):
    """Counts how often it is asked."""

    times: int = field(default=0)

    async def status(self) -> EngineStatus:
        self.times += 1
        return await super().status()


async def looked() -> None:
    """Until the engines' answer is there."""
    for _ in range(5):
        await asyncio.sleep(0)


async def asks(door: Door, window: LiveWindow = WINDOW, took_s: float = 0.05) -> None:
    with door.asking(window):
        await asyncio.sleep(took_s)


async def test_files_and_streams_come_in() -> None:
    door = Door(CONFIG, FakeEngines())
    door.admit_file()
    with door.admit_stream():
        assert door.headroom.streams == 1
    assert door.headroom.streams == 0


async def test_nothing_comes_in_once_it_drains() -> None:
    door = Door(CONFIG, FakeEngines())
    door.drain.begin(60.0)
    with pytest.raises(Draining):
        door.admit_file()
    with pytest.raises(Draining), door.admit_stream():
        pass
    assert door.headroom.streams == 0


async def test_a_file_is_refused_where_the_queue_is_full() -> None:
    door = Door(CONFIG, FakeEngines(FULL))
    door.admit_file()
    await looked()
    with pytest.raises(Overloaded):
        door.admit_file()


async def test_the_engines_are_asked_once_a_second_however_many_come() -> None:
    engines = Asked()
    door = Door(CONFIG, engines)
    for _ in range(50):
        door.admit_file()
        await looked()
    assert engines.times == 1


async def test_engines_that_do_not_answer_keep_nobody_out() -> None:
    door = Door(CONFIG, FakeEngines(EngineUnavailable(1.0)))
    for _ in range(3):
        door.admit_file()
        await looked()


async def test_a_stream_is_refused_while_answers_are_late() -> None:
    door = Door(CONFIG)
    await asyncio.gather(*(asks(door) for _ in range(5)))
    with door.admit_stream(), pytest.raises(Overloaded), door.admit_stream():
        pass


async def test_windows_for_partial_text_do_not_count() -> None:
    door = Door(CONFIG)
    partial = replace(WINDOW, final=False)
    await asyncio.gather(*(asks(door, partial) for _ in range(5)))
    with door.admit_stream(), door.admit_stream():
        pass


async def test_nor_do_windows_that_failed_or_were_given_up() -> None:
    door = Door(CONFIG)

    async def fail() -> None:
        with door.asking(WINDOW):
            await asyncio.sleep(0.05)
            raise EngineUnavailable(1.0)

    given_up = [asyncio.create_task(asks(door, took_s=60.0)) for _ in range(5)]
    failures = await asyncio.gather(*(fail() for _ in range(5)), return_exceptions=True)
    assert all(isinstance(failure, EngineUnavailable) for failure in failures)
    with door.admit_stream(), pytest.raises(Overloaded), door.admit_stream():
        pass
    for task in given_up:
        task.cancel()
    await asyncio.wait(given_up)
    with door.admit_stream(), door.admit_stream():
        pass
