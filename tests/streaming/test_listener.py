"""A stream is heard so that every word is there once, however its audio comes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.streaming.speaker import (
    Ears,
    cuts,
    hear,
    heard_words,
    lengths,
    speech,
    text_of,
    utterances,
)
from whisper_serve.audio.pcm import Samples, seconds, to_samples
from whisper_serve.audio.vad import FRAME_SAMPLES, VadOptions
from whisper_serve.streaming.effort import Effort
from whisper_serve.streaming.listener import (
    MAX_PAUSE_S,
    MAX_WINDOW_S,
    AlwaysSpeech,
    LiveListener,
    LiveWindow,
    Mark,
    Vad,
)
from whisper_serve.streaming.messages import ResumePoint
from whisper_serve.streaming.policies import (
    AgreementPolicy,
    ChunkPolicy,
    Policy,
    UtterancePolicy,
)
from whisper_serve.text.transcript import Hypothesis, Segment, Word

SILENCE = Hypothesis((), "en", 1.0)
POLICIES: dict[str, Callable[[], Policy]] = {
    "chunk": lambda: ChunkPolicy(5.0, 0.5),
    "short chunk": lambda: ChunkPolicy(1.0, 0.8),
    "long chunk": lambda: ChunkPolicy(20.0, 0.5),
    "agreement": lambda: AgreementPolicy(0.5),
    "utterance": lambda: UtterancePolicy(0.5),
}
policies = pytest.mark.parametrize("policy", POLICIES)
pieces = st.lists(st.integers(1, 40_000), min_size=1, max_size=8)
Hear = Callable[[LiveWindow], Hypothesis]


def listener_for(
    policy: Policy, vad: Vad | None = None, resume: ResumePoint | None = None
) -> LiveListener:
    effort = Effort(12.0, None)
    return LiveListener(policy, vad or Ears(), VadOptions(), effort=effort, resume=resume)


@dataclass
class Hearing:
    """A listener with an engine that answers at once."""

    listener: LiveListener
    engine: Hear
    final: list[Word] = field(default_factory=list)
    windows: list[LiveWindow] = field(default_factory=list)
    longest: float = 0.0

    def run(self) -> None:
        while (window := self.listener.next_window(partial=False)) is not None:
            self.windows.append(window)
            outcome = self.listener.answer(window, self.engine(window))
            assert outcome is not None
            self.final += outcome.final

    def push(self, samples: Samples) -> None:
        self.listener.push(samples)
        self.run()

    def finish(self) -> None:
        self.listener.finish()
        self.listener.settle("end")
        self.run()
        assert [mark.reason for mark in self.listener.passed()][-1:] == ["end"]
        assert self.listener.settled == self.listener.received

    @property
    def text(self) -> list[str]:
        return "".join(word.text for word in self.final).split()


def heard(
    words: Sequence[tuple[float, float]], policy: str, sizes: Sequence[int] = (1600,)
) -> Hearing:
    spoken_s = lengths(words)
    hearing = Hearing(listener_for(POLICIES[policy]()), lambda w: hear(w, spoken_s=spoken_s))
    for piece in cuts(speech(words), sizes):
        hearing.push(piece)
    hearing.finish()
    return hearing


# Every word once


@policies
@settings(max_examples=30, deadline=None)
@given(words=utterances())
def test_every_word_is_final_once_and_in_order(
    policy: str, words: list[tuple[float, float]]
) -> None:
    assert heard(words, policy).text == text_of(len(words))


@policies
def test_unbroken_speech_is_committed_while_it_goes_on(policy: str) -> None:
    words = [(0.0, 0.4)] * 200
    spoken_s = lengths(words)
    hearing = Hearing(listener_for(POLICIES[policy]()), lambda w: hear(w, spoken_s=spoken_s))
    for second, piece in enumerate(cuts(speech(words), [16_000]), 1):
        hearing.push(piece)
        assert second - seconds(hearing.listener.settled) <= MAX_WINDOW_S
    hearing.finish()
    assert hearing.text == text_of(200)


@policies
@settings(max_examples=15, deadline=None)
@given(words=utterances(max_words=25), sizes=pieces)
def test_audio_may_come_in_any_pieces(
    policy: str, words: list[tuple[float, float]], sizes: list[int]
) -> None:
    whole, cut = heard(words, policy, [1 << 30]), heard(words, policy, sizes)
    assert [word.text for word in cut.final] == [word.text for word in whole.final]
    assert [_shape(window) for window in cut.windows] == [_shape(w) for w in whole.windows]


@policies
@settings(max_examples=20, deadline=None)
@given(words=utterances(max_words=25), data=st.data())
def test_windows_that_fail_lose_nothing(
    policy: str, words: list[tuple[float, float]], data: st.DataObject
) -> None:
    spoken_s = lengths(words)
    listener = listener_for(POLICIES[policy]())
    final: list[Word] = []

    def run(*, may_fail: bool) -> None:
        while (window := listener.next_window(partial=False)) is not None:
            if may_fail and data.draw(st.booleans()):
                listener.fail(window)
                continue
            outcome = listener.answer(window, hear(window, spoken_s=spoken_s))
            assert outcome is not None
            final.extend(outcome.final)

    for piece in cuts(speech(words), [8_000]):
        listener.push(piece)
        run(may_fail=True)
    listener.finish()
    listener.settle("end")
    run(may_fail=False)
    assert "".join(word.text for word in final).split() == text_of(len(words))


@policies
@settings(max_examples=20, deadline=None)
@given(words=utterances(), at=st.integers(0, 100))
def test_a_stream_goes_on_from_any_of_its_resume_points(
    policy: str, words: list[tuple[float, float]], at: int
) -> None:
    spoken_s = lengths(words)
    audio = speech(words)
    points = [(ResumePoint(committed_until=0.0), 0)]
    before = Hearing(listener_for(POLICIES[policy]()), lambda w: hear(w, spoken_s=spoken_s))
    for piece in cuts(audio, [4_000]):
        before.push(piece)
        points.append((before.listener.resume_point, len(before.final)))
    point, count = points[at % len(points)]
    after = Hearing(
        listener_for(POLICIES[policy](), resume=point), lambda w: hear(w, spoken_s=spoken_s)
    )
    start = to_samples(point.committed_until if point.audio_from is None else point.audio_from)
    for piece in cuts(audio[start:], [4_000]):
        after.push(piece)
    after.finish()
    text = "".join(word.text for word in before.final[:count]).split()
    assert text + after.text == text_of(len(words))


@settings(max_examples=30, deadline=None)
@given(words=utterances(), at=st.integers(0, 100))
def test_a_resumed_stream_asks_for_the_windows_that_were_to_come(
    words: list[tuple[float, float]], at: int
) -> None:
    spoken_s = lengths(words)
    audio = speech(words)
    whole = heard(words, "chunk", [4_000])
    before = Hearing(listener_for(POLICIES["chunk"]()), lambda w: hear(w, spoken_s=spoken_s))
    for piece in cuts(audio, [4_000])[: at % (len(audio) // 4_000 + 1)]:
        before.push(piece)
    point = before.listener.resume_point
    after = Hearing(
        listener_for(POLICIES["chunk"](), resume=point), lambda w: hear(w, spoken_s=spoken_s)
    )
    start = to_samples(point.audio_from or 0.0)
    for piece in cuts(audio[start:], [4_000]):
        after.push(piece)
    after.finish()
    expected = [_shape(window) for window in whole.windows[len(before.windows) :]]
    assert [_shape(window) for window in after.windows] == expected


def _shape(window: LiveWindow) -> tuple[int, int, str, str]:
    return window.start, window.end, window.context, window.prefix


# Nothing that is not speech


@policies
@pytest.mark.parametrize("size", [160, 16_000, 1 << 30])
def test_silence_asks_nothing_and_is_settled_as_it_comes(policy: str, size: int) -> None:
    hearing = Hearing(listener_for(POLICIES[policy]()), _never)
    for piece in cuts(np.zeros(16_000 * 60, np.int16), [size]):
        hearing.push(piece)
    assert hearing.listener.received - hearing.listener.settled < 16_000
    hearing.finish()


@policies
def test_a_long_silence_divides_speech_and_takes_no_memory(policy: str) -> None:
    words = [(0.5, 0.4), (0.1, 0.4), (60.0, 0.4), (0.1, 0.4)]
    hearing = heard(words, policy)
    assert hearing.text == text_of(4)
    assert all(window.duration_s < 5 + MAX_PAUSE_S for window in hearing.windows)


def test_memory_stays_flat_for_as_long_as_a_stream_lasts() -> None:
    words = [(0.2, 0.4)] * 15 + [(5.0, 0.4)]
    audio = speech(words)
    hearing = Hearing(
        listener_for(ChunkPolicy(5.0, 0.5)), lambda w: Hypothesis(_one_word(w), "en", 1.0)
    )
    held = []
    for _ in range(60):
        for piece in cuts(audio, [4_000]):
            hearing.push(piece)
        buffer = hearing.listener._buffer
        held.append(
            (buffer.end - buffer.start, len(buffer._data), len(hearing.listener._speech.regions))
        )
    assert max(held[30:]) <= max(held[:30])


def _one_word(window: LiveWindow) -> tuple[Segment, ...]:
    word = Word(" word", window.duration_s - 1.0, window.duration_s - 0.6, 0.9)
    return (Segment(0.0, window.duration_s, "").with_words([word]),)


def _never(window: LiveWindow) -> Hypothesis:
    raise AssertionError(f"{window} was asked for")


# An engine that is no help


@policies
def test_an_engine_that_hears_nothing_holds_nothing_up(policy: str) -> None:
    hearing = Hearing(listener_for(POLICIES[policy]()), lambda _: SILENCE)
    for second, piece in enumerate(cuts(speech([(0.0, 0.4)] * 300), [16_000]), 1):
        hearing.push(piece)
        assert second - seconds(hearing.listener.settled) <= MAX_WINDOW_S + 1
    hearing.finish()
    assert hearing.final == []


@policies
@settings(max_examples=20, deadline=None)
@given(words=utterances(max_words=30), data=st.data())
def test_whatever_an_engine_answers_the_stream_ends_and_times_never_go_back(
    policy: str, words: list[tuple[float, float]], data: st.DataObject
) -> None:
    def babble(window: LiveWindow) -> Hypothesis:
        times = data.draw(st.lists(st.floats(-1, 31), max_size=8))
        said = [
            Word(f" b{number}", start, start + data.draw(st.floats(0, 5)), 0.5)
            for number, start in enumerate(sorted(times))
        ]
        segments = (Segment(0.0, window.duration_s, "").with_words(said),) if said else ()
        return Hypothesis(segments, "en", data.draw(st.floats(0, 1)))

    hearing = Hearing(listener_for(POLICIES[policy]()), babble)
    for piece in cuts(speech(words), [8_000]):
        hearing.push(piece)
    hearing.finish()
    times = [time for word in hearing.final for time in (word.start, word.end)]
    assert times == sorted(times)
    assert all(len(w.samples) <= 30 * 16_000 for w in hearing.windows)


# Partials


@settings(max_examples=20, deadline=None)
@given(words=utterances(max_words=25), sizes=pieces)
@pytest.mark.parametrize("policy", ["chunk", "long chunk", "utterance"])
def test_partials_show_what_is_not_final_and_change_nothing(
    policy: str, words: list[tuple[float, float]], sizes: list[int]
) -> None:
    spoken_s = lengths(words)
    listener = listener_for(POLICIES[policy]())
    final: list[str] = []

    def run() -> None:
        while (window := listener.next_window(partial=True)) is not None:
            outcome = listener.answer(window, hear(window, spoken_s=spoken_s))
            assert outcome is not None
            assert window.final or outcome.final == ()
            final.extend(word.text.strip() for word in outcome.final)
            assert not {word.text.strip() for word in outcome.tail} & set(final)

    for piece in cuts(speech(words), sizes):
        listener.push(piece)
        run()
    listener.finish()
    listener.settle("end")
    run()
    assert final == text_of(len(words))


def test_a_partial_that_is_still_out_gives_way_to_a_final_window() -> None:
    listener = listener_for(ChunkPolicy(2.0, 0.5))
    listener.push(speech([(0.0, 0.4)] * 4))
    partial = listener.next_window(partial=True)
    assert partial is not None
    assert not partial.final
    assert listener.next_window(partial=True) is None
    listener.push(speech([(0.0, 0.4)] * 4))
    final = listener.next_window(partial=True)
    assert final is not None
    assert final.final
    assert listener.answer(partial, SILENCE) is None
    assert listener.answer(final, SILENCE) is not None


# Small things


def test_without_voice_activity_detection_everything_is_heard() -> None:
    listener = listener_for(ChunkPolicy(5.0, 0.5), vad=AlwaysSpeech())
    listener.push(np.zeros(16_000 * 6, np.int16))
    window = listener.next_window(partial=False)
    assert window is not None
    assert window.start == 0
    assert window.duration_s == pytest.approx(5.0, abs=0.05)


def test_a_flush_settles_everything_and_the_stream_goes_on() -> None:
    words = [(0.3, 0.4)] * 3
    hearing = Hearing(listener_for(ChunkPolicy(20.0, 0.5)), hear)
    hearing.push(speech(words))
    hearing.listener.settle("flush")
    hearing.run()
    assert hearing.listener.passed() == [Mark(hearing.listener.received, "flush")]
    assert hearing.text == text_of(3)
    assert hearing.listener.settled == hearing.listener.received
    later = speech([(0.0, 0.4)] * 3 + words)[to_samples(1.2) :]
    hearing.push(later)
    hearing.finish()
    assert hearing.text == text_of(6)


@policies
@settings(max_examples=30, deadline=None)
@given(words=utterances(max_words=25), frames=st.lists(st.integers(1, 400), max_size=6))
def test_a_mark_is_passed_once_all_before_it_is_final(
    policy: str, words: list[tuple[float, float]], frames: list[int]
) -> None:
    samples, spoken_s = speech(words), lengths(words)
    # Within a word a mark would divide it.
    marks = [
        position
        for position in sorted({frame * FRAME_SAMPLES for frame in frames})
        if position < len(samples) and not samples[position - 1 : position + 1].any()
    ]
    hearing = Hearing(listener_for(POLICIES[policy]()), lambda w: hear(w, spoken_s=spoken_s))
    hearing.listener.push(samples)
    for position in marks:
        hearing.listener.settle("silence", position)
    waiting = [*marks]
    while (window := hearing.listener.next_window(partial=False)) is not None:
        for mark in hearing.listener.passed():
            assert mark.position == waiting.pop(0)
            assert len(hearing.final) >= len(heard_words(samples[: mark.position], {}))
        assert not waiting or all(to_samples(w.end) <= waiting[0] for w in hearing.final)
        outcome = hearing.listener.answer(window, hearing.engine(window))
        assert outcome is not None
        hearing.final += outcome.final
    assert [mark.position for mark in hearing.listener.passed()] == waiting
    hearing.finish()
    assert hearing.text == text_of(len(words))


def test_a_reset_drops_what_is_not_final() -> None:
    hearing = Hearing(listener_for(ChunkPolicy(20.0, 0.5)), hear)
    hearing.push(speech([(0.3, 0.4)] * 3))
    hearing.listener.reset()
    hearing.finish()
    assert hearing.text == []


def test_the_language_is_held_to_once_it_is_certain() -> None:
    answers: Iterable[tuple[str, float]] = iter([("de", 0.4), ("en", 0.95), ("fr", 0.99)])
    languages = []

    def speak(window: LiveWindow) -> Hypothesis:
        languages.append(window.language)
        language, probability = next(iter(answers), ("xx", 0.0))
        return Hypothesis(_one_word(window), language, probability)

    hearing = Hearing(listener_for(ChunkPolicy(5.0, 0.5)), speak)
    hearing.push(speech([(0.0, 0.4)] * 50))
    assert languages == [None, None, "en"]
