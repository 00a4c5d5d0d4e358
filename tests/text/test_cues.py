from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import combinations, pairwise
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.text.spoken import SEGMENTS, an_hour, even, timed
from whisper_serve.text.cues import Cue, cues_of
from whisper_serve.text.lines import columns_of
from whisper_serve.text.transcript import Segment, Word, words_of

# (text, milliseconds of silence before it, milliseconds long)
Said = tuple[str, int, int]

LETTERS = st.one_of(st.integers(1, 12), st.integers(1, 60)).map("x".__mul__)
ENDINGS = st.sampled_from(["", "", "", ",", "."])
TALK = st.lists(
    st.tuples(
        st.builds(str.__add__, LETTERS, ENDINGS),
        st.one_of(st.just(0), st.integers(0, 3000)),
        st.one_of(st.integers(1, 600), st.integers(1, 9000)),
    ),
    max_size=40,
)

# About as fast as can be read, in sentences.
HURRIED = st.lists(
    st.tuples(
        st.builds(str.__add__, st.integers(1, 10).map("x".__mul__), st.sampled_from(["", "."])),
        st.just(0),
        st.integers(100, 600),
    ),
    max_size=8,
)


def talk_of(said: Sequence[Said]) -> list[Word]:
    now, words = 0, []
    for text, pause_ms, length_ms in said:
        start, now = now + pause_ms, now + pause_ms + length_ms
        words.append(Word(f" {text}", start / 1000, now / 1000, 1.0))
    return words


def cues_with_words(words: Sequence[Word]) -> list[tuple[Cue, list[Word]]]:
    """The cues of words of which each is one behind a space, each with its own."""
    cues = cues_of([Segment(0, 0, "", tuple(words))] if words else [])
    left = iter(words)
    return [(cue, [next(left) for _ in cue.text.split()]) for cue in cues]


def texts(segments: Sequence[Segment]) -> list[str]:
    return [cue.text for cue in cues_of(segments)]


def fits_on_lines(words: Sequence[Word]) -> bool:
    texts = [word.text.strip() for word in words]
    halves = [(texts[:at], texts[at:]) for at in range(len(texts))]
    return any(len(" ".join(one)) <= 42 and len(" ".join(two)) <= 42 for one, two in halves)


def fits(words: Sequence[Word]) -> bool:
    return fits_on_lines(words) and ms(words[-1].end) - ms(words[0].start) <= 7000


def needed_ms(words: Sequence[Word]) -> int:
    return max(1000, 50 * len("".join(word.text for word in words).strip()))


def ms(seconds: float) -> int:
    return round(seconds * 1000)


def compact(text: str) -> str:
    """Without spaces and control characters, and without the dashes before a `>`."""
    joined = "".join(char for char in text if char >= " " and not "\x7f" <= char <= "\x9f")
    joined = "".join(joined.split())
    while "->" in joined:
        joined = joined.replace("->", ">")
    return joined


# What never gives way


def is_sound(cues: Sequence[Cue]) -> bool:
    return all(0 <= cue.start_ms < cue.end_ms for cue in cues) and all(
        cue.end_ms <= later.start_ms for cue, later in pairwise(cues)
    )


@given(SEGMENTS)
@example([Segment(5, 1, "backwards"), Segment(4, 4, "empty"), Segment(0, 9, "over both")])
def test_cues_are_in_order_and_never_overlap(segments: list[Segment]) -> None:
    assert is_sound(cues_of(segments))


@given(SEGMENTS)
def test_no_text_is_lost(segments: list[Segment]) -> None:
    said = "".join(
        text if compact(text := "".join(word.text for word in one.words)) else one.text
        for one in segments
    )
    assert compact("".join(texts(segments))) == compact(said)


@given(SEGMENTS)
def test_no_line_is_empty_or_holds_what_ends_a_cue(segments: list[Segment]) -> None:
    for cue in cues_of(segments):
        assert cue.lines
        for line in cue.lines:
            assert line
            assert line == " ".join(line.split())
            assert "-->" not in line


@pytest.mark.parametrize("seed", range(3))
def test_an_hour_of_odd_words_is_sound(seed: int) -> None:
    segments = an_hour(seed)
    cues = cues_of(segments)
    assert is_sound(cues)
    said = "".join(word.text for word in words_of(segments))
    assert compact("".join(cue.text for cue in cues)) == compact(said)


# Limits, and what gives way to what


@given(TALK)
def test_only_a_single_word_is_too_wide_or_too_slow(said: list[Said]) -> None:
    for cue, words in cues_with_words(talk_of(said)):
        if len(words) == 1:
            (word,) = words
            assert cue.lines == (word.text.strip(),)
            assert cue.end_ms - cue.start_ms <= max(7000, ms(word.end) - ms(word.start))
        else:
            assert len(cue.lines) <= 2
            assert all(len(line) <= 42 for line in cue.lines)
            assert cue.end_ms - cue.start_ms <= 7000


@given(TALK)
def test_a_cue_is_shown_while_its_words_are_spoken(said: list[Said]) -> None:
    for cue, words in cues_with_words(talk_of(said)):
        assert cue.start_ms == ms(words[0].start)
        assert cue.end_ms >= ms(words[-1].end)


@given(TALK)
def test_a_cue_stays_only_as_long_as_it_takes_to_read(said: list[Said]) -> None:
    shown = cues_with_words(talk_of(said))
    nexts = [cue.start_ms for cue, _ in shown[1:]] + [10**9]
    for (cue, words), next_ms in zip(shown, nexts, strict=False):
        enough_ms = cue.start_ms + min(needed_ms(words), 7000)
        assert cue.end_ms == min(max(ms(words[-1].end), enough_ms), next_ms)


@given(TALK)
def test_a_cue_is_short_only_where_no_neighbour_takes_it_in(said: list[Said]) -> None:
    shown = cues_with_words(talk_of(said))
    for (cue, words), (later, later_words) in pairwise(shown):
        if min(cue.end_ms - cue.start_ms, later.end_ms - later.start_ms) < 1000:
            assert not fits([*words, *later_words])


@given(st.one_of(TALK.map(lambda said: said[:8]), HURRIED))
def test_no_other_cues_are_short_or_too_fast_less_often(said: list[Said]) -> None:
    words = talk_of(said)
    shown = cues_with_words(words)
    cuts = [len(own) for _, own in shown]
    parts = [*pairwise([sum(cuts[:at]) for at in range(len(cuts) + 1)])]
    possible = [
        broken(words, division)
        for size in range(len(words))
        for middle in combinations(range(1, len(words)), size)
        if is_allowed(words, division := [*pairwise([0, *middle, len(words)])])
    ]
    assert broken(words, parts) == min(possible, default=(0, 0))


def is_allowed(words: Sequence[Word], parts: Sequence[tuple[int, int]]) -> bool:
    return all(end - first == 1 or fits(words[first:end]) for first, end in parts)


def broken(words: Sequence[Word], parts: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """How many cues would be short, and how many too fast."""
    short = fast = 0
    for first, end in parts:
        own = words[first:end]
        until_ms = ms(words[end].start) if end < len(words) else 10**9
        stays_ms = ms(own[0].start) + min(needed_ms(own), 7000)
        shown_ms = min(max(ms(own[-1].end), stays_ms), until_ms) - ms(own[0].start)
        short += shown_ms < 1000
        fast += shown_ms < 50 * len("".join(word.text for word in own).strip())
    return short, fast


def test_a_word_of_sixty_letters_makes_its_line_longer() -> None:
    assert texts(even(f"so {'x' * 60} it")) == ["so", "x" * 60, "it"]


def test_a_word_of_twenty_seconds_is_shown_as_long() -> None:
    cues = cues_of(timed((" So", 0, 0.5), (" looong", 0.5, 20.5), (" it", 20.5, 21)))
    assert [(cue.start_ms, cue.end_ms, cue.text) for cue in cues] == [
        (0, 500, "So"),
        (500, 20_500, "looong"),
        (20_500, 21_500, "it"),
    ]


def test_thirty_words_in_a_second_are_as_few_cues_as_hold_them() -> None:
    cues = cues_of(even("hurried " * 30, word_s=1 / 30))
    assert [len(cue.text.split()) for cue in cues] == [10, 10, 10]
    assert [cue.start_ms for cue in cues] == [0, 333, 667]
    assert cues[-1].end_ms == 667 + 79 * 50


def test_a_sentence_that_is_a_little_too_fast_shares_a_cue_with_a_slow_one() -> None:
    fast, slow = "Ever tried, ever failed, and never minded.", "No matter, try it and fail better."
    assert len(fast) == 42

    def spoken_in(seconds: float) -> list[Segment]:
        return [*even(fast, word_s=seconds / 7), *even(slow, word_s=0.6, start=seconds)]

    assert flat(spoken_in(2.1)) == [fast, slow]
    assert flat(spoken_in(2.09)) == [f"{fast} {slow}"]


def test_what_is_too_fast_in_any_case_is_no_faster_than_need_be() -> None:
    """Though the comma were the better place."""
    first = "the considerable responsibilities of international organisations, and so on and"
    rest = "on as we go by"
    assert flat(even(f"{first} {rest}", word_s=0.25)) == [first, rest]


def test_words_at_one_time_begin_a_millisecond_apart() -> None:
    word = (f" {'x' * 39}", 1.0, 1.0)
    cues = cues_of(timed(word, word, word))
    assert [(cue.start_ms, cue.end_ms) for cue in cues] == [(1000, 1001), (1001, 1001 + 79 * 50)]


def test_a_word_that_overlaps_the_next_ends_where_that_begins() -> None:
    first, second = cues_of(timed((" So", 0, 0.5), (" be", 0.5, 20), (f" {'x' * 50}", 2, 4)))
    assert first == Cue(0, 2000, ("So be",))
    assert (second.start_ms, second.end_ms) == (2000, 4500)


@pytest.mark.parametrize("said", [" 3 .5", " well -known", " don 't", " bon ! »", " « bon"])
def test_what_belongs_together_is_in_one_cue(said: str) -> None:
    one, two = said.rsplit(" ", 1)
    gap = " " if "»" in said or "«" in said else ""
    words = [(" x" * 9 + ",", 0.0, 2.0), (one, 2.0, 5.9), (gap + two, 8.0, 8.9)]
    assert texts(timed(*words))[-1] == (one + gap + two).strip()


# Where cues end


def test_a_cue_ends_behind_a_sentence() -> None:
    first = "He had never seen it before in his life."
    second = "Nobody else in the whole village had seen it either."
    assert flat(even(f"{first} {second}")) == [first, second]


def test_a_long_sentence_is_divided_behind_a_clause() -> None:
    first = "When he came down to the river in the morning,"
    second = "the boat that he had left there was gone for good."
    assert flat(even(f"{first} {second}")) == [first, second]


def test_without_punctuation_a_cue_ends_at_a_pause() -> None:
    before, behind = (
        "so this is all that there was to say",
        "but nobody wanted to listen anymore now",
    )
    (one,), (two,) = even(before), even(behind, start=12 * 0.35)
    assert flat([one, two]) == [before, behind]


def test_no_cue_goes_over_a_long_silence() -> None:
    (one,), (two,) = even("And then"), even("it rained", start=4.0)
    assert flat([one, two]) == ["And then", "it rained"]


@pytest.mark.parametrize("title", ["Mr.", "Prof.", "J."])
def test_a_title_is_not_parted_from_its_name(title: str) -> None:
    text = (
        f"After a long day out in the pouring rain {title} Pickwick went to sleep until next noon"
    )
    assert not any(line.endswith(title) for cue in cues_of(even(text)) for line in cue.lines)


def test_a_short_sentence_is_not_added_to_the_rest_of_another() -> None:
    text = "Everything that he had ever wanted from his life was in that little house near Lyon."
    assert flat(even(f"{text} He wept."))[-1] == "He wept."


def test_short_sentences_share_a_cue() -> None:
    assert texts(even("Ever tried. Ever failed. No matter.")) == [
        "Ever tried. Ever failed. No matter."
    ]


def test_cues_read_well() -> None:
    text = (
        "This fairy was named Lagree. She was so old that she only had one eye and one tooth "
        "left. She was also so spiteful that she gladly devoted all her time to carrying out "
        "all the mean or ill-natured tricks of the whole body of fairies. With her large "
        "experience, added to her native spite, she succeeded in everything."
    )
    assert texts(even(text)) == [
        "This fairy was named Lagree.",
        "She was so old that she only\nhad one eye and one tooth left.",
        "She was also so spiteful that she gladly\ndevoted all her time to carrying",
        "out all the mean or ill-natured\ntricks of the whole body of fairies.",
        "With her large experience, added to her\nnative spite, she succeeded in everything.",
    ]


def test_a_recorded_speech_reads_well() -> None:
    """Word times as Whisper gives them."""
    cues = cues_of(
        timed(
            *((" And", 0.22, 0.52), (" so", 0.52, 0.84), (" my", 0.84, 1.2)),
            *((" fellow", 1.2, 1.54), (" Americans,", 1.54, 2.1), (" ask", 3.28, 3.72)),
            *((" not", 3.72, 4.24), (" what", 4.24, 5.52), (" your", 5.52, 5.76)),
            *((" country", 5.76, 6.24), (" can", 6.24, 6.62), (" do", 6.62, 6.82)),
            *((" for", 6.82, 7.08), (" you,", 7.08, 7.34), (" ask", 7.74, 8.48)),
            *((" what", 8.48, 8.74), (" you", 8.74, 9.02), (" can", 9.02, 9.32)),
            *((" do", 9.32, 9.56), (" for", 9.56, 9.78), (" your", 9.78, 9.96)),
            (" country.", 9.96, 10.34),
        )
    )
    assert cues == [
        Cue(220, 2100, ("And so my fellow Americans,",)),
        Cue(3280, 7340, ("ask not what your country can do for you,",)),
        Cue(7740, 10_340, ("ask what you can do for your country.",)),
    ]


def flat(segments: Sequence[Segment]) -> list[str]:
    return [" ".join(cue.lines) for cue in cues_of(segments)]


# Spaces


@pytest.mark.parametrize(
    "words", [("one ", "two"), ("one", " two"), ("one", " ", "two"), ("one", "\r\n\r\ntwo")]
)
def test_a_space_stands_where_words_have_one(words: tuple[str, ...]) -> None:
    spoken = [(word, at / 5, at / 5 + 0.2) for at, word in enumerate(words)]
    assert texts(timed(*spoken)) == ["one two"]
    assert texts([one for word in spoken for one in timed(word)]) == ["one two"]


# Languages


def syllables(text: str, each_s: float) -> list[Segment]:
    """A character a word, with the punctuation behind it."""
    words = re.findall(r"\w\W*", text)
    return timed(*((word, at * each_s, (at + 1) * each_s) for at, word in enumerate(words)))


def test_chinese_is_divided_between_words_without_spaces() -> None:
    text = "我们今天晚上要去看一场电影，你要不要和我们一起去看看？他说他已经看过了，所以不想再去。"
    assert texts(syllables(text, 0.25)) == [
        "我们今天晚上要去看一场电影，\n你要不要和我们一起去看看？",
        "他说他已经看过了，所以不想再去。",
    ]


def test_wide_characters_count_double() -> None:
    cues = cues_of(syllables("字" * 60, 0.1))
    assert [[*map(len, cue.lines)] for cue in cues] == [[15, 15], [15, 15]]


def test_thai_is_divided_between_its_words() -> None:
    words = ["สวัสดี", "ครับ", "วันนี้", "ผม", "จะ", "มา", "พูด", "เรื่อง", "อาหาร", "ไทย"] * 3
    segments = timed(*((word, index * 0.3, index * 0.3 + 0.3) for index, word in enumerate(words)))
    lines = [line for cue in cues_of(segments) for line in cue.lines]
    assert "".join(lines) == "".join(words)
    assert all(columns_of(line) <= 42 for line in lines)
    ends = {sum(map(len, words[:count])) for count in range(len(words) + 1)}
    assert {sum(map(len, lines[:count])) for count in range(len(lines) + 1)} <= ends


def test_hebrew_and_arabic_stay_in_the_order_of_speech() -> None:
    text = "שלום לכולם, אני שמח לראות אתכם כאן היום. مرحبا بكم جميعا في هذا اليوم."
    assert " ".join(flat(even(text))) == text


# Segments without words


def test_a_segment_without_words_keeps_its_times() -> None:
    cues = cues_of([Segment(1.5, 1.7, " So it is."), Segment(2.0, 22.0, " Yes.")])
    assert cues == [Cue(1500, 1700, ("So it is.",)), Cue(2000, 22_000, ("Yes.",))]


def test_a_long_segment_without_words_is_on_as_many_lines_as_it_needs() -> None:
    (cue,) = cues_of([Segment(0, 30, "word " * 100)])
    assert len(cue.lines) == 13
    assert all(len(line) <= 42 for line in cue.lines)
    assert (cue.start_ms, cue.end_ms) == (0, 30_000)


def test_words_go_around_a_segment_without_words() -> None:
    segments = [*timed((" One", 0, 3)), Segment(2, 4, "two"), *timed((" three", 3, 5))]
    assert [(cue.start_ms, cue.end_ms, cue.text) for cue in cues_of(segments)] == [
        (0, 2000, "One"),
        (2000, 4000, "two"),
        (4000, 5000, "three"),
    ]


def test_words_that_say_nothing_leave_the_segments_text() -> None:
    assert texts([Segment(0, 1, "so", (Word(" ", 0, 1, 1.0),))]) == ["so"]


def test_more_segments_without_words_leave_the_first_cues_as_they_are() -> None:
    """So a file of subtitles can grow."""
    segments = [Segment(at, at + 0.5, f" Text {at}.") for at in range(9)]
    cues = cues_of(segments)
    assert all(cues_of(segments[:count]) == cues[:count] for count in range(10))


# A real text


def broken_limits(cue: Cue) -> set[str]:
    shown_ms = cue.end_ms - cue.start_ms
    columns = columns_of(" ".join(cue.lines))
    kept = {
        "lines": len(cue.lines) <= 2,
        "columns": all(columns_of(line) <= 42 for line in cue.lines),
        "second": shown_ms >= 1000,
        "seven seconds": shown_ms <= 7000,
        "speed": columns * 50 <= shown_ms,
    }
    return {name for name, is_kept in kept.items() if not is_kept}


def test_read_books_keep_the_limits(corpus: Path) -> None:
    """But for the speed of what was read faster than that."""
    recordings = json.loads((corpus / "librispeech.json").read_text(encoding="utf-8"))
    cues: list[Cue] = []
    for recording in recordings:
        word_s = recording["seconds"] / len(recording["text"].split())
        cues += cues_of(even(recording["text"].lower(), word_s))
    broken = [limits for cue in cues if (limits := broken_limits(cue))]
    assert all(limits == {"speed"} for limits in broken)
    assert len(broken) < 0.02 * len(cues)
