from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from whisper.tokenizer import get_tokenizer

from whisper_serve.engines.spans import TokenSpan, split_at_timestamps

TOKENIZER = get_tokenizer(multilingual=True, num_languages=99)
HELLO, WORLD = 1000, 2000


def at(seconds: float) -> int:
    return int(TOKENIZER.timestamp_begin) + round(seconds * 50)


def split(*tokens: int, duration_s: float = 10.0) -> list[TokenSpan]:
    return split_at_timestamps(tokens, TOKENIZER, duration_s)


def test_nothing_gives_nothing() -> None:
    assert split() == []
    assert split(at(0.0), at(2.0)) == []


def test_text_between_timestamps_is_a_span() -> None:
    assert split(at(0.5), HELLO, WORLD, at(2.0)) == [TokenSpan(0.5, 2.0, (HELLO, WORLD))]


def test_spans_follow_each_other() -> None:
    spans = split(at(0.0), HELLO, at(2.0), at(3.0), WORLD, at(4.0))
    assert spans == [TokenSpan(0.0, 2.0, (HELLO,)), TokenSpan(3.0, 4.0, (WORLD,))]


def test_one_timestamp_ends_a_span_and_begins_the_next() -> None:
    spans = split(at(0.0), HELLO, at(2.0), WORLD, at(4.0))
    assert spans == [TokenSpan(0.0, 2.0, (HELLO,)), TokenSpan(2.0, 4.0, (WORLD,))]


def test_without_a_first_timestamp_a_span_begins_with_the_window() -> None:
    assert split(HELLO, at(2.0)) == [TokenSpan(0.0, 2.0, (HELLO,))]


def test_without_a_last_timestamp_a_span_ends_with_the_window() -> None:
    assert split(at(1.0), HELLO) == [TokenSpan(1.0, 10.0, (HELLO,))]


def test_without_any_timestamp_a_span_is_the_window() -> None:
    assert split(HELLO, WORLD) == [TokenSpan(0.0, 10.0, (HELLO, WORLD))]


def test_padding_is_no_part_of_the_window() -> None:
    assert split(at(1.0), HELLO, at(30.0)) == [TokenSpan(1.0, 10.0, (HELLO,))]


def test_a_timestamp_that_goes_back_is_not_believed() -> None:
    assert split(at(5.0), HELLO, at(2.0), WORLD, at(6.0)) == [
        TokenSpan(5.0, 5.0, (HELLO,)),
        TokenSpan(5.0, 6.0, (WORLD,)),
    ]


@pytest.mark.parametrize("name", ["eot", "no_speech", "sot", "sot_prev", "no_timestamps"])
def test_control_tokens_are_no_text(name: str) -> None:
    control: int = getattr(TOKENIZER, name)
    assert split(HELLO, control, WORLD, at(2.0)) == [TokenSpan(0.0, 2.0, (HELLO, WORLD))]


@settings(deadline=None)
@given(
    tokens=st.lists(
        st.one_of(
            st.integers(0, TOKENIZER.eot - 1),
            st.integers(TOKENIZER.timestamp_begin, TOKENIZER.timestamp_begin + 1500),
            st.integers(TOKENIZER.eot, TOKENIZER.timestamp_begin - 1),
        )
    ),
    duration_s=st.floats(0.01, 30.0),
)
def test_every_text_token_is_in_one_span_and_spans_are_in_order(
    tokens: list[int], duration_s: float
) -> None:
    spans = split_at_timestamps(tokens, TOKENIZER, duration_s)
    text = [token for token in tokens if token < TOKENIZER.eot]
    assert [token for span in spans for token in span.tokens] == text
    assert all(span.tokens for span in spans)
    assert all(0.0 <= span.start <= span.end <= duration_s for span in spans)
    assert all(a.end <= b.start for a, b in pairwise(spans))
