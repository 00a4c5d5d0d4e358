from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisper_serve.errors import (
    AudioTooLong,
    DeadlineExceeded,
    EngineFailed,
    EngineUnavailable,
    ModelNotFound,
    Overloaded,
    StorageUnavailable,
    UnreadableAudio,
    UrlUnreachable,
    WhisperServeError,
)
from whisper_serve.jobs.retries import LONGEST_DELAY_S, PATIENCE_S, Again, delay, next_try


def outcome(
    error: WhisperServeError, attempts: int = 1, claims: int = 1, waited_s: float = 0.0
) -> Again | None:
    return next_try(error, attempts=attempts, max_attempts=3, claims=claims, waited_s=waited_s)


@pytest.mark.parametrize(
    "error", [UnreadableAudio("damaged"), AudioTooLong(60.0), ModelNotFound("huge", ["base"])]
)
def test_what_the_client_did_wrong_is_not_tried_again(error: WhisperServeError) -> None:
    assert outcome(error) is None


@pytest.mark.parametrize(
    "error", [EngineFailed("x"), UrlUnreachable("no answer"), WhisperServeError("unforeseen")]
)
def test_what_broke_is_tried_again_until_its_attempts_are_used_up(
    error: WhisperServeError,
) -> None:
    assert outcome(error, attempts=1) == Again(5.0, counts=True)
    assert outcome(error, attempts=2) == Again(10.0, counts=True)
    assert outcome(error, attempts=3) is None


@pytest.mark.parametrize(
    "error",
    [Overloaded(2.0), EngineUnavailable(2.0), StorageUnavailable("x", 2.0), DeadlineExceeded(1.0)],
)
def test_a_busy_service_is_waited_for_without_counting(error: WhisperServeError) -> None:
    for claims in (1, 5, 50):
        again = outcome(error, attempts=3, claims=claims, waited_s=PATIENCE_S - 1)
        assert again is not None
        assert not again.counts
        assert 5.0 <= again.delay_s <= LONGEST_DELAY_S


def test_but_not_for_ever() -> None:
    assert outcome(Overloaded(2.0), attempts=2, waited_s=PATIENCE_S) == Again(5.0, counts=True)
    assert outcome(Overloaded(2.0), attempts=3, waited_s=PATIENCE_S) is None


def test_who_says_when_to_come_back_is_believed() -> None:
    assert outcome(Overloaded(3600.0)) == Again(3600.0, counts=False)


@given(st.integers(1, 10_000), st.floats(0, 1), st.floats(1, 10))
def test_a_delay_is_always_one_that_can_be_waited(tries: int, jitter: float, grows: float) -> None:
    assert 2.5 <= delay(tries, grows=grows, jitter=jitter) <= LONGEST_DELAY_S


def test_delays_grow_to_a_limit() -> None:
    assert [delay(n) for n in range(1, 9)] == [5, 10, 20, 40, 80, 160, 320, 600]
