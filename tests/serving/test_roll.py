from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from whisper_serve.serving.roll import MISSED, Roll

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
