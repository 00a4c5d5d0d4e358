from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest

from whisper_serve.engines.base import DecodeTask
from whisper_serve.engines.fake import Answer, FakeWorker
from whisper_serve.engines.intake import Limits
from whisper_serve.engines.threaded import ThreadedEngine
from whisper_serve.errors import EngineFailed, InvalidParameter
from whisper_serve.observability.context import current_request_id
from whisper_serve.text.transcript import DecodeStats, Hypothesis

PATIENCE_S = 10.0
TASK = DecodeTask(np.zeros(16_000, np.int16))
FIRST, SECOND = Hypothesis((), "en", 1.0), Hypothesis((), "de", 0.5)

Outcome = Hypothesis | BaseException
Asks = Callable[[DecodeTask], Outcome]


@pytest.fixture
def asking() -> Iterator[Callable[..., Asks]]:
    """What a worker with these answers gives for a task."""
    with ExitStack() as stack:

        def of(*answers: Answer) -> Asks:
            engine = ThreadedEngine(FakeWorker(answers), Limits(max_queued=10, rows=1))
            stack.callback(engine.close)

            def ask(task: DecodeTask) -> Outcome:
                future = engine.submit(task)
                error = future.exception(PATIENCE_S)
                return error or replace(future.result(0), stats=DecodeStats())

            return ask

        yield of


def test_it_answers_in_order_and_repeats_the_last(asking: Callable[..., Asks]) -> None:
    ask = asking(FIRST, SECOND)
    assert [ask(TASK) for _ in range(3)] == [FIRST, SECOND, SECOND]


def test_an_error_that_it_was_given_is_an_answer(asking: Callable[..., Asks]) -> None:
    error = EngineFailed("as told")
    ask = asking(error, FIRST)
    assert ask(TASK) is error
    assert ask(TASK) == FIRST


def test_it_asks_a_function_about_the_task(asking: Callable[..., Asks]) -> None:
    ask = asking(lambda task: Hypothesis((), "en", task.duration_s))
    assert ask(TASK) == Hypothesis((), "en", 1.0)


def test_an_error_that_a_function_raises_is_an_answer(asking: Callable[..., Asks]) -> None:
    def refuse(task: DecodeTask) -> Hypothesis:
        raise InvalidParameter("language", "unknown")

    ask = asking(refuse, FIRST)
    assert isinstance(ask(TASK), InvalidParameter)
    assert ask(TASK) == FIRST


def test_a_function_that_breaks_down_ends_nothing(asking: Callable[..., Asks]) -> None:
    ask = asking(lambda _: Hypothesis((), "en", 1 / 0), FIRST)
    failure = ask(TASK)
    assert isinstance(failure, EngineFailed)
    assert "ZeroDivisionError" in failure.detail
    assert ask(TASK) == FIRST


def test_a_function_knows_the_request_s_id(asking: Callable[..., Asks]) -> None:
    ask = asking(lambda _: Hypothesis((), current_request_id(), 1.0))
    answers = [ask(replace(TASK, request_id=request_id)) for request_id in ("r-1", "", "r-2")]
    assert [a.language for a in answers if isinstance(a, Hypothesis)] == ["r-1", "-", "r-2"]


def test_it_keeps_what_it_was_asked_and_is_closed_with_its_engine() -> None:
    worker = FakeWorker([FIRST])
    engine = ThreadedEngine(worker, Limits(max_queued=10, rows=1))
    engine.submit(TASK).result(PATIENCE_S)
    assert worker.tasks == [TASK]
    assert not worker.closed
    engine.close()
    assert worker.closed
