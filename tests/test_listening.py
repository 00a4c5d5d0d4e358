"""A known row of words is heard through windows, by an engine as good or as bad as the test
wants it, and must come back: every word once, in order, none lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import accumulate, pairwise
from random import Random
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whisper_serve.audio.pcm import SAMPLE_RATE, Samples, to_samples
from whisper_serve.audio.vad import Region
from whisper_serve.audio.windows import MIN_PAUSE_S, WindowCutter
from whisper_serve.engines.base import DecodeTask
from whisper_serve.errors import EngineFailed, Overloaded
from whisper_serve.listening import (
    CERTAIN_LANGUAGE,
    CONTEXT_CHARS,
    MAX_CONTEXT_TEMPERATURE,
    MAX_UNHEARD_S,
    MAX_WORD_S,
    Heard,
    Listener,
)
from whisper_serve.text.transcript import Hypothesis, Segment, Word

Mode = Literal["in sequence", "side by side"]
MODES: tuple[Mode, ...] = ("in sequence", "side by side")
both_modes = pytest.mark.parametrize("mode", MODES)

# The aligner's times are off by this much, though never by half a word.
JITTER_S = 0.06
# A word that a window cuts off by less is understood; of one that shows less nothing is heard.
EDGE_S = JITTER_S + 0.011
# What is heard of a word that is cut in half.
HALF = " xx"
TICK = 160
TASK = DecodeTask(np.zeros(0, np.int16))


@dataclass(frozen=True)
class Chunking:
    length_s: float
    overlap_s: float


USUAL = Chunking(5.0, 1.0)


@dataclass(frozen=True)
class Truth:
    """What is spoken. The speech is a clock: each sample is the number of its 10 ms, so that
    a window tells where it lies."""

    words: tuple[Word, ...]
    total_s: float

    @property
    def texts(self) -> list[str]:
        return [word.text for word in self.words]

    @property
    def speech(self) -> Samples:
        return (np.arange(to_samples(self.total_s)) // TICK).astype(np.int16)

    @property
    def regions(self) -> list[Region]:
        regions: list[Region] = []
        for word in self.words:
            region = Region(to_samples(word.start), to_samples(word.end))
            if regions and region.start - regions[-1].end < to_samples(0.1):
                region = Region(regions.pop().start, region.end)
            regions.append(region)
        return regions

    def cutter(self, chunking: Chunking = USUAL) -> WindowCutter:
        return WindowCutter(
            self.regions,
            to_samples(self.total_s),
            length_s=chunking.length_s,
            overlap_s=chunking.overlap_s,
        )

    def speech_behind(self, number: int) -> float:
        """Seconds of speech from the end of a word to the next pause."""
        spoken = 0.0
        for word, later in pairwise(self.words[number:]):
            if later.start - word.end >= MIN_PAUSE_S:
                break
            spoken += later.end - later.start
        return spoken


def start_of(samples: Samples) -> float:
    ticks_left = int(np.count_nonzero(samples[:TICK] == samples[0]))
    return ((int(samples[0]) + 1) * TICK - ticks_left) / SAMPLE_RATE


def row_of_words(*lengths_s: float, first_s: float = 0.0) -> Truth:
    """Words without pauses, each with a text of its own."""
    edges = [*accumulate(lengths_s, initial=first_s)]
    words = (Word(f" w{n}", a, b, 1.0) for n, (a, b) in enumerate(pairwise(edges)))
    return Truth(tuple(words), edges[-1])


@st.composite
def truths(
    draw: st.DrawFn,
    *,
    texts: Sequence[str] = (),
    shortest_s: float = 0.1,
    broken: bool = True,
    most: int = 40,
) -> Truth:
    """Up to `most` words of up to 1.2 s; without `texts` each has one of its own. When
    `broken`, there are breaths and pauses between them."""
    pauses = st.floats(MIN_PAUSE_S + 0.05, 2.5)
    gaps = st.one_of(st.just(0.0), st.floats(0, MIN_PAUSE_S - 0.05), pauses)
    count = draw(st.integers(1, most))
    words: list[Word] = []
    time = draw(st.floats(0, 0.8))
    for number in range(count):
        time += draw(gaps) if broken and number else 0.0
        length = draw(st.floats(shortest_s, 1.2))
        text = draw(st.sampled_from(texts)) if texts else f"w{number}"
        words.append(Word(f" {text}", time, time + length, 1.0))
        time += length
    return Truth(tuple(words), time + draw(st.floats(0, 0.8)))


chunkings = st.builds(
    Chunking, st.sampled_from([5.0, 6.5, 8.0]), st.sampled_from([0.2, 0.5, 1.0, 2.4])
)
seeds = st.integers(0, 2**32)


@dataclass(frozen=True)
class Hit:
    """A word as it was heard, and which one it is; None for half a word."""

    number: int | None
    word: Word


Fault = Callable[[list[Hit], Truth, Random], list[Hit]]


@dataclass
class Ear:
    """Hears the words that are whole in a window, each with slightly wrong times. Every other
    window suffers from one of `faults`."""

    truth: Truth
    seed: int = 0
    faults: Sequence[Fault] = ()
    tasks: list[DecodeTask] = field(default_factory=list)
    spans: list[tuple[float, float]] = field(default_factory=list)
    heard: list[list[str]] = field(default_factory=list)

    async def transcribe(self, task: DecodeTask) -> Hypothesis:
        start = start_of(task.samples)
        end = start + task.duration_s
        # The same window is heard in the same way, in whatever order windows come.
        random = Random(f"{self.seed} {start:.3f} {end:.3f}")
        hits = self._hits(start, end, random)
        if self.faults and random.random() < 0.5:
            hits = random.choice(self.faults)(hits, self.truth, random)
        words = [hit.word.shifted(-start) for hit in hits]
        self.tasks.append(task)
        self.spans.append((start, end))
        self.heard.append([word.text for word in words])
        assert len(self.tasks) < 1000
        cut = random.randint(0, len(words))
        return hypothesis_of(words[:cut], words[cut:])

    def _hits(self, start: float, end: float, random: Random) -> list[Hit]:
        hits: list[Hit] = []
        before = start
        for number, word in enumerate(self.truth.words):
            inside = min(word.end, end) - max(word.start, start)
            outside = word.end - word.start - inside
            if outside <= EDGE_S and inside > outside:
                off = self._jitter(number)
                first, last = (t + random.uniform(-off, off) for t in (word.start, word.end))
                first = min(max(before, first), end)
                last = min(max(first, last), end)
                hits.append(Hit(number, replace(word, start=first, end=last)))
            elif inside > EDGE_S:
                first, last = max(word.start, start), min(word.end, end)
                hits.append(Hit(None, Word(HALF, first, last, 1.0)))
            before = hits[-1].word.end if hits else start
        return hits

    def _jitter(self, number: int) -> float:
        around = self.truth.words[max(0, number - 1) : number + 2]
        return min(JITTER_S, 0.45 * min(word.end - word.start for word in around))


def hypothesis_of(*parts: Sequence[Word]) -> Hypothesis:
    segments = (Segment(0, 0, "").with_words(words) for words in parts if words)
    return Hypothesis(tuple(segments), "en", 1.0)


def stops_early(hits: list[Hit], truth: Truth, random: Random) -> list[Hit]:
    """Any number of words is heard, the rest is not."""
    numbers = [number for number, hit in enumerate(hits, start=1) if may_stop_at(hit, truth)]
    return hits[: random.choice(numbers)] if numbers else hits


def stops_after_one_word(hits: list[Hit], truth: Truth, random: Random) -> list[Hit]:
    return hits[:1] if hits and may_stop_at(hits[0], truth) else hits


def may_stop_at(hit: Hit, truth: Truth) -> bool:
    """Whether more than a breath of speech follows."""
    return hit.number is not None and truth.speech_behind(hit.number) > MAX_UNHEARD_S + 0.2


def stops_anywhere(hits: list[Hit], truth: Truth, random: Random) -> list[Hit]:
    return hits[: random.randint(1, len(hits))] if hits else hits


def hears_nothing(hits: list[Hit], truth: Truth, random: Random) -> list[Hit]:
    return []


def skips_into_a_word(hits: list[Hit], truth: Truth, random: Random) -> list[Hit]:
    """Words are left out, and the one before or behind them is stretched over their time."""
    runs = [run for run in runs_of(hits, truth) if duration(run) > MAX_WORD_S + 0.2]
    if not runs:
        return hits
    run = random.choice(runs)
    kept = random.choice([run[0], run[-1]])
    word = replace(kept.word, start=run[0].word.start, end=run[-1].word.end)
    first = hits.index(run[0])
    return [*hits[:first], Hit(kept.number, word), *hits[first + len(run) :]]


def skips_into_a_gap(hits: list[Hit], truth: Truth, random: Random) -> list[Hit]:
    runs = [run for run in runs_of(hits, truth) if duration(run[1:]) > MAX_WORD_S + 0.2]
    if not runs:
        return hits
    run = random.choice(runs)
    return [hit for hit in hits if hit not in run[1:-1]]


def runs_of(hits: list[Hit], truth: Truth) -> Iterator[list[Hit]]:
    """Words one after the other without a pause, but not from the window's start."""
    for first in range(1, len(hits)):
        for last in range(first + 1, len(hits)):
            run = hits[first : last + 1]
            numbers = [hit.number for hit in run if hit.number is not None]
            words = truth.words[numbers[0] : numbers[-1] + 1] if len(numbers) == len(run) else ()
            if words and all(b.start - a.end < MIN_PAUSE_S for a, b in pairwise(words)):
                yield run


def duration(run: Sequence[Hit]) -> float:
    return sum(hit.word.end - hit.word.start for hit in run)


def listen(
    mode: Mode,
    truth: Truth,
    ear: Ear,
    chunking: Chunking = USUAL,
    *,
    task: DecodeTask = TASK,
) -> Heard:
    listener = Listener(ear, truth.speech, truth.cutter(chunking), task)
    return asyncio.run(run(listener, mode))


async def run(listener: Listener, mode: Mode) -> Heard:
    return joined([piece async for piece in pieces_of(listener, mode)])


def pieces_of(listener: Listener, mode: Mode) -> AsyncGenerator[Heard, None]:
    return listener.in_sequence() if mode == "in sequence" else listener.side_by_side(3)


def joined(pieces: Sequence[Heard]) -> Heard:
    return reduce(Heard.then, pieces, Heard())


def words_in(heard: Heard) -> list[Word]:
    return [word for segment in heard.segments for word in segment.words]


def texts_in(heard: Heard) -> list[str]:
    return [word.text for word in words_in(heard)]


def lost_words(truth: Truth, heard: Heard) -> list[list[Word]]:
    """The words of `truth`, each with a text of its own, that are not in `heard`, in runs."""
    texts = set(texts_in(heard))
    runs: list[list[Word]] = [[]]
    for word in truth.words:
        if word.text in texts:
            runs.append([])
        else:
            runs[-1].append(word)
    return [run for run in runs if run]


@both_modes
@settings(deadline=None)
@given(truth=truths(), seed=seeds, chunking=chunkings)
def test_every_word_comes_once_and_in_order(
    mode: Mode, truth: Truth, seed: int, chunking: Chunking
) -> None:
    heard = listen(mode, truth, Ear(truth, seed), chunking)
    assert texts_in(heard) == truth.texts


@both_modes
@settings(deadline=None)
@given(truth=truths(broken=False), seed=seeds, chunking=chunkings)
def test_unbroken_speech_loses_nothing_where_it_is_cut(
    mode: Mode, truth: Truth, seed: int, chunking: Chunking
) -> None:
    heard = listen(mode, truth, Ear(truth, seed), chunking)
    assert texts_in(heard) == truth.texts


@both_modes
@settings(deadline=None)
@given(
    # Only times tell one "very" from the next; in shorter ones the aligner's errors meet.
    truth=truths(texts=("very", "a"), shortest_s=0.3),
    seed=seeds,
    chunking=chunkings,
)
def test_a_word_that_is_said_again_and_again_comes_as_often(
    mode: Mode, truth: Truth, seed: int, chunking: Chunking
) -> None:
    ear = Ear(truth, seed, [stops_early, skips_into_a_word])
    heard = listen(mode, truth, ear, chunking)
    assert texts_in(heard) == truth.texts


@both_modes
@pytest.mark.parametrize(
    "fault", [stops_early, stops_after_one_word, skips_into_a_word, skips_into_a_gap]
)
@settings(deadline=None, max_examples=60)
@given(truth=truths(), seed=seeds, chunking=chunkings)
def test_what_a_decode_missed_is_heard_again(
    mode: Mode, fault: Fault, truth: Truth, seed: int, chunking: Chunking
) -> None:
    heard = listen(mode, truth, Ear(truth, seed, [fault]), chunking)
    assert texts_in(heard) == truth.texts


@both_modes
@settings(deadline=None)
@given(truth=truths(), seed=seeds, chunking=chunkings)
def test_an_early_stop_before_a_pause_costs_no_more_than_a_breath(
    mode: Mode, truth: Truth, seed: int, chunking: Chunking
) -> None:
    heard = listen(mode, truth, Ear(truth, seed, [stops_anywhere]), chunking)
    texts = texts_in(heard)
    assert texts == [text for text in truth.texts if text in set(texts)]
    for run in lost_words(truth, heard):
        assert truth.speech_behind(truth.words.index(run[-1])) == 0
        assert sum(word.end - word.start for word in run) <= MAX_UNHEARD_S + 2 * JITTER_S


@both_modes
@settings(deadline=None)
@given(truth=truths(), seed=seeds, chunking=chunkings)
def test_a_window_in_which_nothing_is_heard_costs_its_own_words_only(
    mode: Mode, truth: Truth, seed: int, chunking: Chunking
) -> None:
    ear = Ear(truth, seed, [hears_nothing])
    heard = listen(mode, truth, ear, chunking)
    silent = [span for span, texts in zip(ear.spans, ear.heard, strict=True) if not texts]
    texts = [text for text in texts_in(heard) if text != HALF]
    # Nobody knows where a word ends in such a window, so one may be cut in half behind it.
    assert texts_in(heard).count(HALF) <= len(silent)
    assert texts == [text for text in truth.texts if text in set(texts)]
    for run in lost_words(truth, heard):
        for word in run:
            assert any(start < word.end and word.start < end for start, end in silent)


@both_modes
def test_one_word_is_heard(mode: Mode) -> None:
    truth = row_of_words(0.4, first_s=0.3)
    assert texts_in(listen(mode, truth, Ear(truth))) == [" w0"]


@both_modes
def test_words_keep_their_times_over_all_windows(mode: Mode) -> None:
    truth = row_of_words(*[0.5] * 60)
    heard = listen(mode, truth, Ear(truth))
    for word, spoken in zip(words_in(heard), truth.words, strict=True):
        assert word.start == pytest.approx(spoken.start, abs=EDGE_S)
        assert word.end == pytest.approx(spoken.end, abs=EDGE_S)


@dataclass
class Scripted:
    """Answers as it is told, with times that count from the start of the speech; the last
    answer repeats."""

    answers: Sequence[Hypothesis | Exception]
    spans: list[tuple[float, float]] = field(default_factory=list)

    async def transcribe(self, task: DecodeTask) -> Hypothesis:
        start = start_of(task.samples)
        self.spans.append((start, start + task.duration_s))
        answer = self.answers[min(len(self.spans), len(self.answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return replace(answer, segments=tuple(s.shifted(-start) for s in answer.segments))


def said(*words: tuple[str, float, float]) -> Hypothesis:
    return hypothesis_of([Word(*word, 1.0) for word in words])


def hear(
    truth: Truth, *answers: Hypothesis, mode: Mode = "in sequence"
) -> tuple[Heard, list[tuple[float, float]]]:
    """With windows of 5 s that are cut 1 s before their end."""
    port = Scripted(answers)
    listener = Listener(port, truth.speech, truth.cutter(), TASK)
    return asyncio.run(run(listener, mode)), port.spans


@both_modes
def test_more_than_a_breath_behind_the_last_word_is_heard_again(mode: Mode) -> None:
    truth = row_of_words(4.0)
    _, spans = hear(truth, said((" a", 0, 2), (" b", 2, 3.4)), said(), mode=mode)
    assert spans == [(0.0, 4.0), (3.4, 4.0)]
    _, spans = hear(truth, said((" a", 0, 2), (" b", 2, 3.6)), mode=mode)
    assert spans == [(0.0, 4.0)]


def doubted(hypothesis: Hypothesis, avg_logprob: float) -> Hypothesis:
    segments = [replace(segment, avg_logprob=avg_logprob) for segment in hypothesis.segments]
    return replace(hypothesis, segments=tuple(segments))


@both_modes
def test_a_guess_at_what_a_decode_left_out_is_no_text(mode: Mode) -> None:
    truth, first = row_of_words(4.0), said((" a", 0, 2), (" b", 2, 3.4))
    rest = said((" c", 3.5, 3.9))
    for avg_logprob, texts in ((-1.1, [" a", " b"]), (-0.9, [" a", " b", " c"])):
        heard, spans = hear(truth, first, doubted(rest, avg_logprob), mode=mode)
        assert texts_in(heard) == texts
        assert spans == [(0.0, 4.0), (3.4, 4.0)]


@both_modes
def test_all_that_there_is_of_a_recording_is_no_rest(mode: Mode) -> None:
    heard, _ = hear(row_of_words(1.0), doubted(said((" c", 0, 0.9)), -2.0), mode=mode)
    assert texts_in(heard) == [" c"]


def test_side_by_side_a_window_hears_more_than_the_edge_of_what_the_next_one_hears() -> None:
    truth = row_of_words(8.0)
    _, spans = hear(truth, said((" a", 0, 2.6)), said(), mode="side by side")
    assert spans == [(0.0, 5.0), (2.6, 5.0), (2.5, 7.5), (5.0, 8.0)]
    _, spans = hear(truth, said((" a", 0, 2.8)), said(), mode="side by side")
    assert spans == [(0.0, 5.0), (2.5, 7.5), (5.0, 8.0)]


def test_a_word_that_reaches_over_the_cut_is_heard_whole_though_nothing_came_before_it() -> None:
    truth = row_of_words(8.0)
    _, spans = hear(truth, said((" a", 3.5, 4.5)), said())
    assert spans[1] == (3.5, 8.0)


def test_a_word_that_the_aligner_stretched_over_a_whole_window_is_kept() -> None:
    truth = row_of_words(8.0)
    heard, spans = hear(truth, said((" a", 0.1, 4.9)), said())
    assert texts_in(heard) == [" a"]
    assert spans[1] == (4.0, 8.0)


def test_a_first_word_that_holds_too_much_speech_is_kept_with_all_that_follows() -> None:
    truth = row_of_words(4.0, first_s=0.8)
    heard, spans = hear(truth, said((" a", 0.8, 3.5), (" b", 3.5, 4.8)))
    assert texts_in(heard) == [" a", " b"]
    assert len(spans) == 1


def test_a_word_with_a_long_silence_in_it_holds_no_skipped_speech() -> None:
    truth = Truth((Word(" a", 0, 0.5, 1.0), Word(" b", 3.5, 4.0, 1.0)), 4.0)
    heard, spans = hear(truth, said((" a", 0, 0.5), (" b", 0.5, 4.0)))
    assert texts_in(heard) == [" a", " b"]
    assert len(spans) == 1


def test_words_that_nobody_can_speak_in_their_time_are_left_out() -> None:
    truth = row_of_words(4.0)
    made_up = [Word(f" m{n}", 3.9, 3.9, 1.0) for n in range(8)]
    spoken = [Word(" a", 0, 2, 1.0), Word(" b", 2, 3.9, 1.0)]
    heard, _ = hear(truth, hypothesis_of(spoken, made_up))
    assert texts_in(heard) == [" a", " b"]


any_words = st.lists(
    st.tuples(st.sampled_from([" a", " b"]), st.floats(-1, 6), st.floats(-1, 6)), max_size=6
)


@both_modes
@settings(deadline=None, max_examples=60)
@given(truth=truths(most=12), answers=st.lists(any_words, min_size=1, max_size=6), seed=seeds)
def test_whatever_an_engine_answers_the_end_is_reached(
    mode: Mode, truth: Truth, answers: list[list[tuple[str, float, float]]], seed: int
) -> None:
    spans: list[tuple[float, float]] = []

    class Confused:
        async def transcribe(self, task: DecodeTask) -> Hypothesis:
            start = start_of(task.samples)
            spans.append((start, start + task.duration_s))
            return said(*Random(f"{seed} {len(spans)}").choice(answers))

    cutter = truth.cutter()
    listener = Listener(Confused(), truth.speech, cutter, TASK)
    asyncio.run(run(listener, mode))
    assert all(0 < end - start < 5.001 for start, end in spans)
    # Every decode gets on by a tenth of a second, and side by side some speech is heard twice.
    assert len(spans) <= 2 * 10 * truth.total_s + len(cutter.windows())


@settings(deadline=None, max_examples=60)
@given(truth=truths(), seed=seeds, chunking=chunkings)
def test_the_context_is_all_text_before_the_window_and_none_of_it(
    truth: Truth, seed: int, chunking: Chunking
) -> None:
    ear = Ear(truth, seed, [stops_early, skips_into_a_word])
    listen("in sequence", truth, ear, chunking)
    for task, texts in zip(ear.tasks, ear.heard, strict=True):
        before = truth.texts[: truth.texts.index(texts[0])] if texts else truth.texts
        assert task.context == "".join(before).strip()


def test_the_context_is_the_last_of_a_long_text_in_whole_words() -> None:
    truth = row_of_words(*[0.5] * 400)
    ear = Ear(truth)
    listen("in sequence", truth, ear, Chunking(20.0, 1.0))
    context = ear.tasks[-1].context
    assert CONTEXT_CHARS - 6 < len(context) <= CONTEXT_CHARS
    assert "".join(truth.texts).split(f" {context} ")[1].startswith(ear.heard[-1][0].strip())


def test_a_long_text_without_spaces_is_context_too() -> None:
    heard = Heard((Segment(0, 1, "好" * CONTEXT_CHARS + "吗"),))
    assert heard.context == "好" * (CONTEXT_CHARS - 1) + "吗"


def test_side_by_side_there_is_no_context() -> None:
    truth = row_of_words(*[0.5] * 60)
    ear = Ear(truth)
    listen("side by side", truth, ear)
    assert {task.context for task in ear.tasks} == {""}


@both_modes
def test_the_prompt_stands_before_every_window(mode: Mode) -> None:
    truth = row_of_words(*[0.5] * 60)
    ear = Ear(truth)
    listen(mode, truth, ear, task=replace(TASK, context="Names: Ray."))
    assert {task.context[:11] for task in ear.tasks} == {"Names: Ray."}
    assert ear.tasks[0].context == "Names: Ray."
    if mode == "in sequence":
        assert ear.tasks[1].context.startswith("Names: Ray. w0 w1 ")


def test_text_up_to_a_window_that_was_hard_to_decode_is_no_context() -> None:
    hard = MAX_CONTEXT_TEMPERATURE + 0.1
    segments = [
        Segment(n, n + 1, f" s{n}", temperature=t) for n, t in enumerate([0.0, hard, 0.0, 0.2])
    ]
    assert [Heard(tuple(segments[:n])).context for n in range(5)] == ["", "s0", "", "s2", "s2 s3"]


@dataclass
class Polyglot(Ear):
    """Hears one language after the other, unless it is told which, and no words in the first
    `silent` windows."""

    languages: list[tuple[str, float]] = field(default_factory=list)
    silent: int = 0

    async def transcribe(self, task: DecodeTask) -> Hypothesis:
        hypothesis = await super().transcribe(task)
        if len(self.tasks) <= self.silent:
            hypothesis = hypothesis_of()
        language, probability = (
            (task.language, 1.0)
            if task.language
            else self.languages[min(len(self.tasks), len(self.languages)) - 1]
        )
        return replace(hypothesis, language=language, language_probability=probability)


@both_modes
def test_the_language_that_was_asked_for_goes_to_every_window(mode: Mode) -> None:
    truth = row_of_words(*[0.5] * 60)
    ear = Polyglot(truth, languages=[("en", 0.9)])
    heard = listen(mode, truth, ear, task=replace(TASK, language="de"))
    assert {task.language for task in ear.tasks} == {"de"}
    assert (heard.language, heard.language_probability) == ("de", 1.0)


@both_modes
def test_a_language_is_detected_once_if_it_is_certain(mode: Mode) -> None:
    truth = row_of_words(*[0.5] * 60)
    ear = Polyglot(truth, languages=[("fr", CERTAIN_LANGUAGE), ("en", 0.9)])
    heard = listen(mode, truth, ear)
    assert [task.language for task in ear.tasks] == [None] + ["fr"] * (len(ear.tasks) - 1)
    assert (heard.language, heard.language_probability) == ("fr", CERTAIN_LANGUAGE)


def test_a_language_is_detected_anew_until_it_is_certain() -> None:
    truth = row_of_words(*[0.5] * 60)
    ear = Polyglot(truth, languages=[("fr", 0.4), ("it", 0.3), ("es", 0.8), ("en", 0.9)])
    heard = listen("in sequence", truth, ear)
    assert [task.language for task in ear.tasks[:5]] == [None, None, None, "es", "es"]
    assert (heard.language, heard.language_probability) == ("es", 0.8)


@both_modes
def test_without_a_certain_language_the_likeliest_is_told(mode: Mode) -> None:
    truth = row_of_words(*[0.5] * 60)
    ear = Polyglot(truth, languages=[("fr", 0.3), ("es", 0.4), ("it", 0.2)])
    heard = listen(mode, truth, ear)
    assert {task.language for task in ear.tasks} == {None}
    assert (heard.language, heard.language_probability) == ("es", 0.4)


def test_the_language_of_a_window_without_words_holds_for_no_other() -> None:
    truth = row_of_words(*[0.5] * 16)
    ear = Polyglot(truth, languages=[("cy", 0.9), ("en", 0.7)], silent=1)
    heard = listen("in sequence", truth, ear)
    assert ear.tasks[1].language is None
    assert (heard.language, heard.language_probability) == ("en", 0.7)


def test_the_most_gpu_memory_is_told() -> None:
    parts = [Heard(gpu_memory_gib=gib) for gib in (0.5, 2.0, 1.0)]
    assert parts[0].then(parts[1]).then(parts[2]).gpu_memory_gib == 2.0


@dataclass
class Slow(Ear):
    """Takes a while for each window and counts how many it is asked for at once."""

    running: int = 0
    at_once: list[int] = field(default_factory=list)

    async def transcribe(self, task: DecodeTask) -> Hypothesis:
        self.running += 1
        self.at_once.append(self.running)
        for _ in range(5):
            await asyncio.sleep(0)
        self.running -= 1
        return await super().transcribe(task)


async def test_windows_are_asked_for_side_by_side_after_the_first_up_to_the_limit() -> None:
    truth = row_of_words(*[0.5] * 100)
    ear = Slow(truth)
    heard = await run(Listener(ear, truth.speech, truth.cutter(), TASK), "side by side")
    assert ear.at_once[:4] == [1, 1, 2, 3]
    assert max(ear.at_once) == 3
    assert texts_in(heard) == truth.texts


async def test_windows_in_sequence_are_asked_for_one_at_a_time() -> None:
    truth = row_of_words(*[0.5] * 60)
    ear = Slow(truth)
    await run(Listener(ear, truth.speech, truth.cutter(), TASK), "in sequence")
    assert set(ear.at_once) == {1}


@dataclass
class Stuck(Ear):
    """Answers the first window at once, fails at window number `fails_at`, and never answers
    any other."""

    fails_at: int = 0
    asked: int = 0
    waiting: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: int = 0

    async def transcribe(self, task: DecodeTask) -> Hypothesis:
        self.asked += 1
        if self.asked == 1:
            return await super().transcribe(task)
        if self.asked == self.fails_at:
            raise Overloaded(1.0)
        if self.asked == 4:
            self.waiting.set()
        never: asyncio.Future[Hypothesis] = asyncio.get_running_loop().create_future()
        try:
            return await never
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


async def test_a_failure_in_one_window_cancels_the_others_and_is_raised() -> None:
    truth = row_of_words(*[0.5] * 100)
    ear = Stuck(truth, fails_at=4)
    with pytest.raises(Overloaded):
        await run(Listener(ear, truth.speech, truth.cutter(), TASK), "side by side")
    # A place that the failure left may be taken once more before all is cancelled.
    assert ear.asked <= 5
    assert ear.cancelled == ear.asked - 2


async def test_cancelling_the_call_cancels_what_runs() -> None:
    truth = row_of_words(*[0.5] * 100)
    ear = Stuck(truth)
    listener = Listener(ear, truth.speech, truth.cutter(), TASK)
    call = asyncio.ensure_future(run(listener, "side by side"))
    await ear.waiting.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (ear.asked, ear.cancelled) == (4, 3)


# Piece by piece


@dataclass
class Gated(Ear):
    """Answers window number n, as they were asked for, once `gates[n]` is open."""

    gates: list[asyncio.Event] = field(default_factory=lambda: [asyncio.Event() for _ in range(99)])
    asked: int = 0
    cancelled: int = 0

    async def transcribe(self, task: DecodeTask) -> Hypothesis:
        self.asked += 1
        try:
            await self.gates[self.asked - 1].wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return await super().transcribe(task)

    def opens(self, *numbers: int) -> None:
        for number in numbers:
            self.gates[number].set()


async def until_idle() -> None:
    """Let everything run that need not wait."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_in_sequence_a_window_is_asked_for_when_the_piece_before_it_was_taken() -> None:
    truth = row_of_words(*[0.5] * 60)
    ear = Gated(truth)
    ear.opens(*range(99))
    async with aclosing(Listener(ear, truth.speech, truth.cutter(), TASK).in_sequence()) as pieces:
        for count in range(1, 4):
            piece = await anext(pieces)
            await until_idle()
            assert ear.asked == count
            assert texts_in(piece) != []


async def test_side_by_side_a_piece_comes_as_soon_as_those_before_it_are_there() -> None:
    truth = row_of_words(*[0.5] * 60)
    ear = Gated(truth)
    listener = Listener(ear, truth.speech, truth.cutter(), TASK)
    pieces: list[Heard] = []

    async def collect() -> None:
        async for piece in listener.side_by_side(3):
            pieces.append(piece)  # noqa: PERF401 - one by one is what is tested

    collecting = asyncio.ensure_future(collect())
    await until_idle()
    counts = []
    for number in (0, 2, 1, 3):
        ear.opens(number)
        await until_idle()
        counts.append(len(pieces))
    assert counts == [1, 1, 3, 4]
    ear.opens(*range(99))
    await asyncio.wait_for(collecting, 10)
    assert texts_in(joined(pieces)) == truth.texts


@both_modes
async def test_closing_the_pieces_gives_up_what_is_asked_for(mode: Mode) -> None:
    truth = row_of_words(*[0.5] * 100)
    ear = Gated(truth)
    ear.opens(0)
    pieces = pieces_of(Listener(ear, truth.speech, truth.cutter(), TASK), mode)
    assert texts_in(await anext(pieces)) != []
    waiting = asyncio.ensure_future(anext(pieces, None))
    await until_idle()
    assert ear.asked == (2 if mode == "in sequence" else 4)
    waiting.cancel()
    await asyncio.wait([waiting])
    await pieces.aclose()
    assert ear.cancelled == ear.asked - 1


async def test_a_failure_is_raised_though_earlier_windows_wait() -> None:
    truth = row_of_words(*[0.5] * 100)

    class Torn(Gated):
        async def transcribe(self, task: DecodeTask) -> Hypothesis:
            if self.asked == 3:
                raise Overloaded(1.0)
            return await super().transcribe(task)

    ear = Torn(truth)
    ear.opens(0)
    pieces = Listener(ear, truth.speech, truth.cutter(), TASK).side_by_side(3)
    await anext(pieces)
    with pytest.raises(Overloaded):
        await asyncio.wait_for(anext(pieces), 10)
    assert ear.cancelled == 2


@both_modes
def test_a_failure_in_the_first_window_is_raised(mode: Mode) -> None:
    truth = row_of_words(*[0.5] * 60)
    listener = Listener(
        Scripted([EngineFailed("out of memory")]), truth.speech, truth.cutter(), TASK
    )
    with pytest.raises(EngineFailed):
        asyncio.run(run(listener, mode))


@both_modes
def test_the_engine_is_asked_as_the_task_says(mode: Mode) -> None:
    truth = row_of_words(*[0.5] * 30)
    ear = Ear(truth)
    wish = replace(TASK, task="translate", hotwords="Ray", request_id="r1", timeout_s=7.0)
    listen(mode, truth, ear, task=wish)
    for task in ear.tasks:
        assert (task.task, task.hotwords, task.request_id, task.timeout_s) == (
            "translate",
            "Ray",
            "r1",
            7.0,
        )
