from __future__ import annotations

import numpy as np
import pytest

from whisper_serve.engines.base import DecodeTask
from whisper_serve.engines.fake import FakeDecoder
from whisper_serve.errors import EngineFailed
from whisper_serve.text.transcript import Hypothesis

TASK = DecodeTask(np.zeros(16_000, np.int16))
FIRST, SECOND = Hypothesis((), "en", 1.0), Hypothesis((), "de", 0.5)


def test_it_answers_in_order_and_repeats_the_last() -> None:
    decoder = FakeDecoder([FIRST, SECOND])
    assert [decoder.decode(TASK) for _ in range(3)] == [FIRST, SECOND, SECOND]


def test_it_raises_what_it_was_given() -> None:
    decoder = FakeDecoder([EngineFailed("as told"), FIRST])
    with pytest.raises(EngineFailed):
        decoder.decode(TASK)
    assert decoder.decode(TASK) is FIRST


def test_it_asks_a_function_about_the_task() -> None:
    decoder = FakeDecoder([lambda task: Hypothesis((), "en", task.duration_s)])
    assert decoder.decode(TASK).language_probability == 1.0


def test_it_keeps_what_it_was_asked() -> None:
    decoder = FakeDecoder([FIRST])
    decoder.decode(TASK)
    assert decoder.tasks == [TASK]
    assert not decoder.closed
    decoder.close()
    assert decoder.closed
