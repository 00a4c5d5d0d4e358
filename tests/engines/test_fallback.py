from __future__ import annotations

import pytest
import whisper
from hypothesis import given
from hypothesis import strategies as st

from whisper_serve.engines.base import TemperaturePolicy
from whisper_serve.engines.fallback import (
    Candidate,
    compression_ratio,
    is_acceptable,
    is_silence,
    likeliest,
    repeats_itself,
)

SAID = "Ask not what your country can do for you."
STUCK = "Ask not. " * 40
POLICY = TemperaturePolicy()


def candidate(
    text: str = SAID,
    *,
    avg_logprob: float = -0.3,
    no_speech_prob: float = 0.1,
    temperature: float = 0.0,
) -> Candidate:
    return Candidate((1, 2), text, avg_logprob, no_speech_prob, temperature)


def test_a_sure_text_is_acceptable() -> None:
    assert is_acceptable(candidate(), POLICY)
    assert not repeats_itself(candidate(), POLICY)


@pytest.mark.parametrize("bad", [candidate(STUCK), candidate(avg_logprob=-1.2)])
def test_a_text_that_repeats_itself_or_is_doubted_is_not(bad: Candidate) -> None:
    assert not is_acceptable(bad, POLICY)


def test_only_a_text_that_repeats_itself_does() -> None:
    assert repeats_itself(candidate(STUCK), POLICY)
    assert not repeats_itself(candidate(avg_logprob=-1.2), POLICY)


@pytest.mark.parametrize("text", [SAID, STUCK])
def test_no_speech_is_silence_when_the_text_is_doubted_too(text: str) -> None:
    assert is_silence(candidate(text, avg_logprob=-1.5, no_speech_prob=0.9), POLICY)
    assert not is_silence(candidate(text, avg_logprob=-0.3, no_speech_prob=0.99), POLICY)
    assert not is_silence(candidate(text, avg_logprob=-1.5, no_speech_prob=0.5), POLICY)


def test_a_policy_may_be_stricter() -> None:
    strict = TemperaturePolicy(
        compression_ratio_threshold=1.0, logprob_threshold=-0.2, no_speech_threshold=0.05
    )
    doubtful = candidate(avg_logprob=-0.3)
    assert is_silence(doubtful, strict)
    assert not is_acceptable(doubtful, strict)
    assert repeats_itself(candidate(SAID * 2), strict)


def test_the_likeliest_that_does_not_repeat_itself_is_taken() -> None:
    candidates = [
        candidate(STUCK, avg_logprob=-0.1),
        candidate(avg_logprob=-1.2),
        candidate(avg_logprob=-1.9),
    ]
    assert likeliest(candidates, POLICY) is candidates[1]


def test_when_all_repeat_themselves_the_likeliest_is_taken() -> None:
    candidates = [candidate(STUCK, avg_logprob=-0.5), candidate(STUCK, avg_logprob=-0.2)]
    assert likeliest(candidates, POLICY) is candidates[1]


@given(
    st.lists(
        st.builds(candidate, st.sampled_from([SAID, STUCK]), avg_logprob=st.floats(-3, 0)),
        min_size=1,
    )
)
def test_no_candidate_is_better_than_the_one_that_is_taken(candidates: list[Candidate]) -> None:
    taken = likeliest(candidates, POLICY)
    assert taken in candidates
    for other in candidates:
        if repeats_itself(other, POLICY) == repeats_itself(taken, POLICY):
            assert other.avg_logprob <= taken.avg_logprob
        else:
            assert repeats_itself(other, POLICY)


@pytest.mark.parametrize("text", ["", "a", SAID, STUCK, "ß∂ƒ 日本語"])
def test_the_compression_ratio_is_whisper_s(text: str) -> None:
    assert compression_ratio(text) == whisper.utils.compression_ratio(text)
    assert candidate(text).compression_ratio == compression_ratio(text)
