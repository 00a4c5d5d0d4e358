from __future__ import annotations

import unicodedata
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisper_serve.text.lines import (
    Piece,
    cheapest_division,
    columns_of,
    ends_sentence,
    lines_of,
    may_divide,
    pieces_of,
    plain,
)

texts = st.one_of(
    st.text(max_size=200),
    st.text("ab. ,-", max_size=200),
    st.text("字，。「」あっー word", max_size=200),
    st.text("ก็ะเ ", max_size=200),
)


def laid_out(text: str) -> list[str]:
    return [*lines_of([*pieces_of(text)])]


# Columns


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("", 0),
        ("word.", 5),
        ("Größe", 5),
        ("e\u0301te\u0301", 3),
        ("שָׁלוֹם", 4),
        ("日本語、", 8),
        ("\uff21\uff22", 4),
        ("한국어", 6),
        ("ที่นี่", 2),
        ("👍", 2),
        ("a\u200bb\u200f", 2),
    ],
)
def test_wide_characters_are_two_columns_and_marks_none(text: str, columns: int) -> None:
    assert columns_of(text) == columns


@given(st.text())
def test_plain_text_has_no_control_characters(text: str) -> None:
    assert not any(unicodedata.category(char) in {"Cc", "Cs"} for char in plain(text))
    assert len(plain(text)) == len(text)


def test_what_cannot_be_written_as_utf8_is_left_out() -> None:
    assert plain("a\ud800b\x07\x9fc") == "a b  c"


# Where text may be divided


@pytest.mark.parametrize(
    ("before", "after"),
    [("and", "so"), ("va", "«bon»"), ("said", '"Yes'), ("so", "♪"), ("so", "—"), ("(so)", "a")],
)
def test_text_is_divided_at_spaces(before: str, after: str) -> None:
    assert may_divide(before, after, spaced=True)


@pytest.mark.parametrize(
    ("before", "after"), [("well", "-known"), ("3", ".5"), ("don", "'t"), ("안", "."), ("a", "b")]
)
def test_what_is_written_together_stays_together(before: str, after: str) -> None:
    assert not may_divide(before, after, spaced=False)


@pytest.mark.parametrize(
    ("before", "after"), [("日本", "語"), ("は", "GPT"), ("ครับ", "ผม"), ("ລາວ", "ດີ"), ("မြန်", "မာ")]
)
def test_scripts_without_spaces_are_divided_between_words(before: str, after: str) -> None:
    assert may_divide(before, after, spaced=False)


@pytest.mark.parametrize(
    ("before", "after", "spaced"),
    [
        ("va", "?", True),
        ("bon", "».", True),
        ("50", "%", True),
        ("«", "bon", True),
        ("(", "so", True),
        ("—", "Bonjour", True),
        ("字", "。", False),
        ("字", "」", False),
        ("「", "字", False),
        ("コ", "ー", False),
        ("待", "って", False),
        ("เ", "ก", False),
        ("ก", "ะ", False),
        ("ท", "\u0e35\u0e48", False),
        ("👩", "\u200d", False),
        ("\u200d", "💻", False),
    ],
)
def test_marks_stay_with_what_they_belong_to(before: str, after: str, spaced: bool) -> None:
    assert not may_divide(before, after, spaced=spaced)


@pytest.mark.parametrize(
    ("text", "following"),
    [
        ("it.", "So"),
        ("it?”", "So"),
        ("it.)", "«So"),
        ("it…", "1984"),
        ("好。", "我"),
        ("है।", "यह"),
        ("هنا؟", "نعم"),
    ],
)
def test_a_sentence_ends_with_a_full_stop_or_the_like(text: str, following: str) -> None:
    assert ends_sentence(text, following)


@pytest.mark.parametrize(
    ("text", "following"),
    [
        ("it", "So"),
        ("it,", "So"),
        ("Mr.", "Smith"),
        ("“Dr.", "No"),
        ("J.", "Smith"),
        ("U.S.", "Army"),
        ("z.B.", "Berlin"),
        ("Why?”", "she"),
        ("etc.", "and"),
        ("so…", "“he"),
    ],
)
def test_no_sentence_ends_with_a_title_or_before_a_small_letter(text: str, following: str) -> None:
    assert not ends_sentence(text, following)


# The cheapest division

TABLE = st.integers(1, 7).flatmap(
    lambda n: st.lists(
        st.lists(st.floats(0, 9), min_size=n + 1, max_size=n + 1), min_size=n, max_size=n
    )
)


@given(TABLE, st.integers(1, 4))
def test_no_other_division_costs_less(table: list[list[float]], longest: int) -> None:
    count = len(table)

    def price(parts: list[tuple[int, int]]) -> float:
        return sum(table[first][end] for first, end in parts)

    divisions = [
        [*pairwise([0, *cuts, count])]
        for size in range(count)
        for cuts in combinations(range(1, count), size)
    ]
    allowed = [parts for parts in divisions if all(end - first <= longest for first, end in parts)]
    found = cheapest_division(
        count,
        lambda first: range(first + 1, min(first + longest, count) + 1),
        lambda first, end: table[first][end],
    )
    assert found in allowed
    assert price(found) == pytest.approx(min(map(price, allowed)))


def test_nothing_is_no_parts() -> None:
    assert cheapest_division(0, range, lambda _first, _end: 0.0) == []


# Lines


def test_what_fits_on_one_line_is_one_line() -> None:
    text = "Ever tried. Ever failed. No matter, again."
    assert len(text) == 42
    assert laid_out(text) == [text]


@pytest.mark.parametrize(
    "lines",
    [
        ["She stood still to admire it,", "when, to her great surprise,"],
        ["and it was therefore necessary", "that the sun should shine on water"],
        ["Marius directed his steps", "toward that red light and stood"],
        ["It was not there.", "He was quite sure that it had been."],
        ["We asked in the village", "for Dr. Livingstone and his men"],
        ["Il a ajouté qu'on ne devrait", "pas le leur demander, non ?"],
        ["我们今天晚上要去看一场电影，", "你要不要和我们一起去看看？"],
        ["אני לא יודע מה לומר לך,", "אבל אני אנסה לומר משהו"],
    ],
)
def test_two_lines_are_divided_where_it_reads_well(lines: list[str]) -> None:
    joined = ("" if columns_of(lines[0]) > len(lines[0]) else " ").join(lines)
    assert laid_out(joined) == lines


def test_no_last_word_is_left_alone() -> None:
    text = "They discovered nothing besides overgrown houses."
    assert len(text) - len(" houses.") <= 42
    assert laid_out(text) == ["They discovered nothing", "besides overgrown houses."]


def test_a_word_that_is_wider_than_a_line_stays_whole() -> None:
    assert laid_out(f"so {'x' * 60} it") == ["so", "x" * 60, "it"]


def test_words_that_are_written_together_are_divided_only_when_no_line_holds_them() -> None:
    parts = [Piece("x" * 20, spaced) for spaced in (True, False, True, False)]
    assert lines_of(parts) == ("x" * 40, "x" * 40)
    assert lines_of([Piece("x" * 20, spaced=False)] * 3) == ("x" * 20, "x" * 40)


@given(texts)
def test_lines_hold_all_text_and_only_long_words_are_too_wide(text: str) -> None:
    lines = laid_out(text)
    assert compact("".join(lines)) == compact(plain(text))
    assert all(line and line == " ".join(line.split()) for line in lines)
    words = {part.text for part in pieces_of(text)}
    assert all(columns_of(line) <= 42 or line in words for line in lines)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30))
def test_there_are_no_more_lines_than_there_must_be(lengths: list[int]) -> None:
    count, width = 1, lengths[0]
    for length in lengths[1:]:
        fits = width + 1 + length <= 42
        count, width = (count, width + 1 + length) if fits else (count + 1, length)
    assert len(laid_out(" ".join("x" * length for length in lengths))) == count


@given(st.text("-> a", max_size=200))
def test_no_line_holds_the_arrow(text: str) -> None:
    assert not any("-->" in line for line in laid_out(text))


def compact(text: str) -> str:
    """Without spaces, and without the dashes before a `>`, which a line may lose."""
    joined = "".join(text.split())
    while "->" in joined:
        joined = joined.replace("->", ">")
    return joined
