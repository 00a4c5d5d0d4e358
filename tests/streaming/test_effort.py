from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from whisper_serve.streaming.effort import Effort
from whisper_serve.streaming.settled import CONTEXT_CHARS

TARGET_S = 1.0
seconds = st.floats(0.0, 10.0)


def effort(*answers_s: float, queued_s: float = 0.0) -> Effort:
    effort = Effort(20.0, TARGET_S)
    for answer_s in answers_s:
        effort.learn(answer_s, queued_s)
    return effort


def test_a_lone_stream_soon_reaches_back_all_the_way() -> None:
    assert [effort(*n * [0.2]).reach_s for n in range(6)] == [0.0, 5.0, 10.0, 15.0, 20.0, 20.0]


def test_late_answers_halve_the_reach_until_nothing_is_left() -> None:
    reaches = [effort(*4 * [0.2], *n * [1.1]).reach_s for n in range(6)]
    assert reaches == [20.0, 10.0, 5.0, 2.5, 0.0, 0.0]


def test_what_was_too_much_once_is_dared_again_slowly() -> None:
    late = effort(*4 * [0.2], 1.1)
    before = late.reach_s
    late.learn(0.2, 0.0)
    assert 0 < late.reach_s - before < 5.0


def test_answers_that_are_just_in_time_change_nothing() -> None:
    assert effort(0.2, 0.2, 0.9).reach_s == effort(0.2, 0.2).reach_s


def test_nothing_more_is_dared_while_windows_wait_for_each_other() -> None:
    assert effort(0.4, 0.4, queued_s=0.3).reach_s == 0.0


def test_without_a_target_all_is_done_however_long_it_takes() -> None:
    untiring = Effort(20.0, None)
    untiring.learn(100.0, 90.0)
    assert untiring.reach_s == 20.0
    assert untiring.is_thorough
    assert untiring.context_chars == CONTEXT_CHARS


def test_a_stream_that_is_in_a_hurry_has_less_context_and_no_beam() -> None:
    hurried, calm = effort(1.1, 1.1), effort(*4 * [0.2])
    assert calm.is_thorough
    assert not hurried.is_thorough
    assert hurried.context_chars < calm.context_chars


@given(st.lists(st.tuples(seconds, seconds)))
def test_the_reach_stays_within_its_bounds(answers: list[tuple[float, float]]) -> None:
    trying = Effort(20.0, TARGET_S)
    for answer_s, queued_s in answers:
        trying.learn(answer_s, queued_s)
        assert 0.0 <= trying.reach_s <= 20.0
