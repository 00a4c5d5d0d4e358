from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from tests.api.fakes import FakePort, Lines
from whisper_serve.account import Account
from whisper_serve.engines.base import DecodeTask
from whisper_serve.errors import Overloaded
from whisper_serve.observability.context import bound
from whisper_serve.text.transcript import DecodeStats, Hypothesis

TASK = DecodeTask(np.zeros(16_000, np.int16), request_id="r-1")
FIRST = DecodeStats(queued_s=1.0, encoded_s=0.2, decoded_s=0.3, attempts=3)
SECOND = DecodeStats(queued_s=0.5, encoded_s=0.2, decoded_s=0.4, fallbacks=2, temperature=0.4)


@dataclass
class Costs:
    """A port whose answers cost this, one after the other."""

    costs: list[DecodeStats] = field(default_factory=list)

    async def transcribe(self, _task: DecodeTask) -> Hypothesis:
        await asyncio.sleep(0)
        return Hypothesis((), "en", 1.0, self.costs.pop(0))


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler, logger = Lines(), logging.getLogger("whisper_serve.performance")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def reported(account: Account, lines: Lines, audio_s: float, model: str = "") -> dict[str, Any]:
    account.report("a stream was heard", audio_s, model)
    [record] = lines.records
    fields: dict[str, Any] = vars(record)["fields"]
    return fields


async def test_it_adds_up_what_windows_cost(lines: Lines) -> None:
    account = Account(Costs([FIRST, SECOND]))
    for _ in range(2):
        await account.transcribe(TASK)
    fields = reported(account, lines, 10.0)
    assert 0 <= fields.pop("slowest_answer_s") < 10
    assert fields == {
        "audio_s": 10.0,
        "windows": 2,
        "failures": 0,
        "repeats": 2,
        "fallbacks": 2,
        "temperature": 0.4,
        "queued_s": 1.5,
        "encoded_s": 0.4,
        "decoded_s": 0.7,
        "real_time_factor": 0.11,
        "model": "default",
    }
    assert lines.messages == ["a stream was heard: 10.0 s, 2 windows"]


async def test_silence_costs_nothing(lines: Lines) -> None:
    fields = reported(Account(FakePort()), lines, 0.0, model="tiny.en")
    assert (fields["windows"], fields["real_time_factor"], fields["model"]) == (0, 0.0, "tiny.en")


async def test_a_failure_is_counted_and_passed_on() -> None:
    account = Account(FakePort(Overloaded(1.0)))
    with pytest.raises(Overloaded):
        await account.transcribe(TASK)
    assert (account.windows, account.failures) == (0, 1)


async def test_a_window_that_is_given_up_is_no_answer() -> None:
    async def never(_task: DecodeTask) -> Hypothesis:
        await asyncio.Event().wait()
        raise AssertionError

    account = Account(FakePort(never))
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(account.transcribe(TASK), 0.01)
    assert (account.windows, account.failures) == (0, 1)


async def test_a_task_says_who_asked() -> None:
    port = FakePort()
    account = Account(port)
    with bound(caller="radio"):
        await account.transcribe(TASK)
    await account.transcribe(TASK)
    assert [task.caller for task in port.tasks] == ["radio", ""]
    assert {task.request_id for task in port.tasks} == {"r-1"}
