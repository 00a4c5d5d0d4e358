from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from whisper_serve.serving.roll import LEAVER_GONE_S, MISSED, Handover, Leavers, Roll

OTHERS = ["b", "c"]
calls = st.lists(
    st.lists(st.sampled_from(["me", "b", "c", OSError()]), max_size=4), min_size=1, max_size=30
)


def test_a_replica_that_is_called_serves_on() -> None:
    roll = Roll("me")
    assert not any(roll.called(["me", *OTHERS]) for _ in range(10))


def test_one_that_is_no_longer_called_was_taken_off() -> None:
    roll = Roll("me")
    roll.called(["me", *OTHERS])
    assert [roll.called(OTHERS) for _ in range(MISSED)] == [False] * (MISSED - 1) + [True]


def test_so_was_one_that_has_no_peers_any_more() -> None:
    roll = Roll("me")
    roll.called(["me"])
    assert [roll.called([]) for _ in range(MISSED)][-1]


def test_one_that_was_not_called_yet_just_began() -> None:
    roll = Roll("me")
    assert not any(roll.called(OTHERS) for _ in range(10))


def test_who_does_not_answer_may_be_this_one() -> None:
    roll = Roll("me")
    roll.called(["me", "b"])
    assert not any(roll.called(["b", OSError()]) for _ in range(10))


@given(calls)
def test_it_is_taken_off_exactly_when_missing_from_whole_calls_in_a_row(
    answers: list[list[object]],
) -> None:
    roll, was_there, missed = Roll("me"), False, 0
    for names in answers:
        if "me" in names:
            was_there, missed = True, 0
        elif all(isinstance(name, str) for name in names):
            missed += 1
        assert roll.called(names) == (was_there and missed >= MISSED)


# How long one that was taken off may go on


def test_it_goes_on_while_others_serve() -> None:
    handover = Handover(30.0)
    assert [handover.called([None, None]) for _ in range(10)] == [None] * 10


def test_it_ends_with_the_first_of_those_that_drain() -> None:
    assert Handover(30.0).called([None, 12.5, 10.0]) == 10.0
    assert Handover(30.0).called([0.0]) == 0.0


def test_when_nobody_serves_on_it_drains_as_the_service_does() -> None:
    handover = Handover(30.0)
    assert [handover.called([]) for _ in range(MISSED)] == [None] * (MISSED - 1) + [30.0]


def test_who_does_not_answer_may_serve_on() -> None:
    handover = Handover(30.0)
    for _ in range(10):
        assert handover.called([]) is None
        assert handover.called([OSError()]) is None


def test_those_that_leave_count_until_they_are_done_or_gone() -> None:
    leavers = Leavers()
    leavers.told("a", 3, 0.0)
    leavers.told("b", 2, 1.0)
    assert leavers.under_way(1.0) == 5
    leavers.told("b", 0, 2.0)
    assert leavers.under_way(LEAVER_GONE_S) == 3
    assert leavers.under_way(LEAVER_GONE_S + 0.1) == 0
