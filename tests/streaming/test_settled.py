from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from whisper_serve.audio.pcm import to_samples
from whisper_serve.audio.vad import FRAME_SAMPLES, VadOptions
from whisper_serve.streaming.settled import CONTEXT_CHARS, MAX_PREFIX_BYTES, Settled
from whisper_serve.streaming.speech import SpeechMap
from whisper_serve.text.transcript import Word

NO_PAUSES = SpeechMap(0, VadOptions())


def words(*spoken: tuple[str, float, float]) -> list[Word]:
    return [Word(f" {text}", start, end, 0.9) for text, start, end in spoken]


def even(count: int, text: str = "word") -> list[Word]:
    return words(*((text, 0.5 * number, 0.5 * number + 0.4) for number in range(count)))


def pauses_at(*seconds: float) -> SpeechMap:
    """Speech of a minute with pauses of 0.5 s."""
    speech = SpeechMap(0, VadOptions())
    for frame in range(60 * 16_000 // FRAME_SAMPLES):
        time_s = frame * FRAME_SAMPLES / 16_000
        speech.push(0.0 if any(abs(time_s - at) < 0.25 for at in seconds) else 1.0)
    return speech


def test_final_words_are_the_prefix_of_the_next_window() -> None:
    settled = Settled()
    settled.add(words(("And", 0.2, 0.4), ("so", 0.5, 0.75)))
    assert settled.until == 12_000
    assert settled.text == " And so"


def test_times_never_go_back() -> None:
    settled = Settled(until=16_000)
    added = settled.add(words(("late", 0.5, 0.9), ("on", 0.8, 1.5)))
    assert [(word.start, word.end) for word in added] == [(1.0, 1.0), (1.0, 1.5)]


def test_final_words_that_are_written_once_more_are_told() -> None:
    settled = Settled()
    settled.add(words(("on", 0.5, 0.75), ("his", 0.75, 1.0), ("helmet", 1.0, 1.5)))
    again = words(("helmet,", 1.0, 1.4), ("in", 1.6, 1.8))
    assert settled.repeated(again) == 1
    both = words(("His", 0.8, 1.0), ("helmet,", 1.0, 1.5), ("in", 1.6, 1.8))
    assert settled.repeated(both) == 2


def test_a_word_that_is_spoken_twice_is_no_repetition() -> None:
    settled = Settled()
    settled.add(words(("very", 0.5, 1.0)))
    assert settled.repeated(words(("very", 1.0, 1.4), ("good", 1.5, 2.0))) == 0
    assert settled.repeated(words(("good", 0.6, 0.9))) == 0
    assert settled.repeated([]) == 0


def test_a_window_starts_at_the_earliest_pause_within_reach() -> None:
    settled = Settled()
    settled.add(even(40))
    settled.move_window(pauses_at(4.0, 12.0, 16.0), to_samples(12.0))
    assert abs(settled.window_start - to_samples(12.0)) < to_samples(0.3)
    assert settled.words[0].start >= 11.7
    assert settled.context.split() == ["word"] * (40 - len(settled.words))


def test_without_a_pause_a_window_starts_at_a_word() -> None:
    settled = Settled()
    settled.add(even(40))
    settled.move_window(NO_PAUSES, to_samples(12.0))
    assert settled.window_start == to_samples(8.0)
    assert settled.words[0].start == 8.0


def test_a_window_within_reach_stays() -> None:
    settled = Settled()
    settled.add(even(10))
    settled.move_window(pauses_at(1.0, 3.0), to_samples(12.0))
    assert settled.window_start == 0


def test_a_prefix_never_has_more_text_than_the_engine_takes() -> None:
    settled = Settled()
    settled.add(even(20, "unverhältnismäßig" * 3))
    settled.move_window(NO_PAUSES, to_samples(20.0))
    assert 0 < len(settled.text.encode()) <= MAX_PREFIX_BYTES


def test_a_single_endless_word_becomes_context() -> None:
    settled = Settled()
    settled.add(words(("a" * 1_000, 0.0, 3.0)))
    settled.move_window(NO_PAUSES, to_samples(20.0))
    assert settled.words == ()
    assert settled.window_start == settled.until


def test_the_whole_context_is_all_text_but_never_too_much() -> None:
    settled = Settled(context=" before" * 200)
    settled.add(even(3))
    assert settled.whole_context.endswith(" before word word word")
    assert len(settled.whole_context) <= CONTEXT_CHARS
    assert settled.whole_context.startswith(" before")


def test_forgotten_text_is_no_context_and_no_prefix() -> None:
    settled = Settled(context=" before")
    settled.add(even(3))
    settled.forget_text()
    assert (settled.whole_context, settled.text) == ("", "")
    assert settled.window_start == settled.until


@given(
    st.lists(st.tuples(st.text(max_size=30), st.floats(0, 50), st.floats(0, 5)), max_size=60),
    st.floats(0, 20),
)
def test_no_text_is_lost_between_context_and_prefix(
    spoken: list[tuple[str, float, float]], reach_s: float
) -> None:
    settled = Settled()
    said = words(*((text, start, start + length) for text, start, length in spoken))
    for word in said:
        settled.add([word])
        settled.move_window(NO_PAUSES, to_samples(reach_s))
    whole = "".join(word.text for word in said)
    joined = settled.context + settled.text
    assert whole.endswith(joined[1:] if len(whole) > CONTEXT_CHARS else joined)
    assert settled.window_start <= settled.until
    assert len(settled.text.encode()) <= MAX_PREFIX_BYTES
