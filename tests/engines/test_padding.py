from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisper_serve.engines.base import WINDOW_SAMPLES, DecodeTask
from whisper_serve.engines.fallback import Candidate
from whisper_serve.engines.padding import WHOLE_FRAMES, WHOLE_ONLY, Padding

PADDING = Padding(margin_s=2.0, compression_ratio=2.0, avg_logprob=-0.6)
SAID = "Ask not what your country can do for you."
SAMPLES_PER_FRAME = 160

samples = st.integers(1, WINDOW_SAMPLES)
margins_s = st.floats(0, 30)
languages = st.sampled_from(["en", "ja", None])


def said(text: str = SAID, *, tokens: int = 10, avg_logprob: float = -0.3) -> Candidate:
    return Candidate(tuple(range(tokens)), text, avg_logprob, 0.1, 0.0)


def window(n_samples: int, *, full_padding: bool = False) -> DecodeTask:
    return DecodeTask(np.zeros(n_samples, np.int16), full_padding=full_padding)


# How far


@given(samples, margins_s)
def test_the_audio_and_its_margin_have_room(n_samples: int, margin_s: float) -> None:
    frames = Padding(margin_s=margin_s).frames(window(n_samples))
    wanted = n_samples / SAMPLES_PER_FRAME + 100 * margin_s
    assert min(wanted, WHOLE_FRAMES) <= frames <= WHOLE_FRAMES
    assert frames * SAMPLES_PER_FRAME >= n_samples


@given(samples, margins_s)
def test_the_encoder_halves_the_frames(n_samples: int, margin_s: float) -> None:
    frames = Padding(margin_s=margin_s).frames(window(n_samples))
    assert isinstance(frames, int)
    assert frames % 2 == 0


@given(samples, st.integers(0, 16_000), margins_s)
def test_a_longer_window_is_not_padded_to_less(n_samples: int, more: int, margin_s: float) -> None:
    padding = Padding(margin_s=margin_s)
    assert padding.frames(window(n_samples)) <= padding.frames(window(n_samples + more))


def test_windows_of_like_length_come_out_alike() -> None:
    lengths = {PADDING.frames(window(n)) for n in range(1, WINDOW_SAMPLES + 1, 160)}
    assert len(lengths) < 100


def test_a_short_window_is_padded_to_much_less_than_a_whole_one() -> None:
    assert PADDING.frames(window(16_000)) < WHOLE_FRAMES / 2


def test_a_whole_window_stays_whole() -> None:
    assert WHOLE_FRAMES == 3_000
    assert PADDING.frames(window(WINDOW_SAMPLES)) == WHOLE_FRAMES


@given(samples)
def test_a_window_that_asks_for_it_is_padded_to_a_whole_one(n_samples: int) -> None:
    assert PADDING.frames(window(n_samples, full_padding=True)) == WHOLE_FRAMES


@given(samples)
def test_without_a_margin_all_windows_are_padded_to_whole_ones(n_samples: int) -> None:
    assert WHOLE_ONLY.frames(window(n_samples)) == WHOLE_FRAMES


# What is suspicious


def test_a_sure_text_of_some_words_is_not_suspicious() -> None:
    assert not PADDING.is_suspicious(said(), max_tokens=50)


def test_a_text_that_the_model_doubts_is_suspicious() -> None:
    assert PADDING.is_suspicious(said(avg_logprob=-0.61), max_tokens=50)
    assert not PADDING.is_suspicious(said(avg_logprob=-0.6), max_tokens=50)


def test_a_text_that_repeats_itself_is_suspicious() -> None:
    assert PADDING.is_suspicious(said(f"{SAID} " * 5), max_tokens=50)


@pytest.mark.parametrize("text", ["Try again. Try again.", "No. It is, it is so.", "A b A b"])
def test_words_that_stand_twice_in_a_row_are_suspicious(text: str) -> None:
    assert PADDING.is_suspicious(said(text), max_tokens=50)


@pytest.mark.parametrize(
    "text", ["No, no, it is.", "Ever tried. Ever failed.", "Try again. Fail again. Fail better."]
)
def test_one_word_twice_or_words_apart_are_not(text: str) -> None:
    assert not PADDING.is_suspicious(said(text), max_tokens=50)


def test_a_text_that_fills_its_places_is_suspicious() -> None:
    assert PADDING.is_suspicious(said(tokens=50), max_tokens=50)
    assert not PADDING.is_suspicious(said(tokens=49), max_tokens=50)


def test_no_text_is_not_suspicious() -> None:
    assert not PADDING.is_suspicious(said("", tokens=0), max_tokens=50)


@given(st.floats(0, 30), st.floats(0, 30), languages)
def test_longer_windows_may_have_more_tokens(
    duration_s: float, more_s: float, language: str | None
) -> None:
    alone = PADDING.max_tokens(duration_s, language)
    assert 0 < alone <= PADDING.max_tokens(duration_s + more_s, language)


@given(st.floats(0, 30))
def test_languages_that_need_more_tokens_may_have_more(duration_s: float) -> None:
    assert PADDING.max_tokens(duration_s, "ja") >= PADDING.max_tokens(duration_s, "en")


@pytest.mark.parametrize("seconds", [0.5, 5, 15, 27])
def test_fast_speech_has_fewer_tokens_than_are_suspicious(seconds: float) -> None:
    """Of a hundred windows of English the fastest had 4.6 tokens a second."""
    assert PADDING.max_tokens(seconds, "en") > 4.6 * seconds


@pytest.mark.parametrize("limit", ["compression_ratio", "avg_logprob"])
def test_what_whisper_rejects_is_suspicious_before(limit: str) -> None:
    rejected = {
        "compression_ratio": said("Ask not. " * 40),  # above 2.4
        "avg_logprob": said(avg_logprob=-1.01),
    }
    assert Padding().is_suspicious(rejected[limit], max_tokens=1_000)
