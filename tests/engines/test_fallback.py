from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import whisper
from hypothesis import given, settings
from hypothesis import strategies as st
from whisper.decoding import DecodingOptions, DecodingResult
from whisper.tokenizer import get_tokenizer

from whisper_serve.engines.base import TemperaturePolicy
from whisper_serve.engines.fallback import (
    Candidate,
    compression_ratio,
    decode_with_fallback,
    is_silence,
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


def scripted(*outcomes: Candidate) -> Callable[[float], Candidate]:
    """Gives the outcomes in order and fails when it is asked once more."""
    left = iter(outcomes)
    return lambda _: next(left)


def test_a_good_decode_is_taken_at_once() -> None:
    good = candidate()
    assert decode_with_fallback(scripted(good), POLICY) is good


@pytest.mark.parametrize("bad", [candidate(STUCK), candidate(avg_logprob=-1.2)])
def test_a_bad_decode_is_tried_again(bad: Candidate) -> None:
    good = candidate(temperature=0.4)
    assert decode_with_fallback(scripted(bad, bad, good), POLICY) is good


def test_the_temperatures_are_tried_in_their_order() -> None:
    tried: list[float] = []

    def decode(temperature: float) -> Candidate:
        tried.append(temperature)
        return candidate(STUCK)

    decode_with_fallback(decode, TemperaturePolicy(temperatures=(0.5, 0.1)))
    assert tried == [0.5, 0.1]


def test_silence_is_not_tried_again() -> None:
    silence = candidate(STUCK, avg_logprob=-1.5, no_speech_prob=0.9)
    assert decode_with_fallback(scripted(silence), POLICY) is silence
    assert is_silence(silence, POLICY)


def test_a_sure_text_is_no_silence_whatever_the_model_says() -> None:
    sure = candidate(no_speech_prob=0.99)
    assert decode_with_fallback(scripted(sure), POLICY) is sure
    assert not is_silence(sure, POLICY)


def test_when_all_are_bad_the_likeliest_that_does_not_repeat_itself_is_taken() -> None:
    policy = TemperaturePolicy(temperatures=(0.0, 0.2, 0.4))
    outcomes = [
        candidate(STUCK, avg_logprob=-0.1),
        candidate(avg_logprob=-1.2),
        candidate(avg_logprob=-1.9),
    ]
    assert decode_with_fallback(scripted(*outcomes), policy) is outcomes[1]


def test_when_all_repeat_themselves_the_likeliest_is_taken() -> None:
    policy = TemperaturePolicy(temperatures=(0.0, 0.2))
    outcomes = [candidate(STUCK, avg_logprob=-0.5), candidate(STUCK, avg_logprob=-0.2)]
    assert decode_with_fallback(scripted(*outcomes), policy) is outcomes[1]


@pytest.mark.parametrize("text", ["", "a", SAID, STUCK, "ß∂ƒ 日本語"])
def test_the_compression_ratio_is_whisper_s(text: str) -> None:
    assert compression_ratio(text) == whisper.utils.compression_ratio(text)


# The same decisions as openai-whisper

outcomes_of_a_decode = st.builds(
    candidate,
    st.sampled_from([SAID, STUCK]),
    avg_logprob=st.sampled_from([-0.2, -0.99, -1.01, -1.8]),
    no_speech_prob=st.sampled_from([0.0, 0.59, 0.61, 0.99]),
)


class ScriptedWhisper:
    """As much of a model as `whisper.transcribe` asks for; one decode a temperature."""

    device = torch.device("cpu")
    dims = SimpleNamespace(n_mels=80, n_audio_ctx=1500, n_text_ctx=448)
    is_multilingual = False
    num_languages = 99

    def __init__(self, outcomes: Sequence[Candidate]) -> None:
        self.tried = 0
        self._outcomes = outcomes

    def decode(self, _mel: torch.Tensor, _options: DecodingOptions) -> DecodingResult:
        outcome = self._outcomes[self.tried]
        self.tried += 1
        begin = get_tokenizer(multilingual=False).timestamp_begin
        return DecodingResult(
            audio_features=torch.zeros(0),
            language="en",
            tokens=[begin, 1, 2, begin + 50],
            text=outcome.text,
            avg_logprob=outcome.avg_logprob,
            no_speech_prob=outcome.no_speech_prob,
            compression_ratio=outcome.compression_ratio,
        )


def whisper_decides(outcomes: Sequence[Candidate]) -> tuple[int, bool]:
    """How many decodes openai-whisper makes, and whether it takes the last for silence."""
    model: Any = ScriptedWhisper(outcomes)
    answer = whisper.transcribe(
        model, torch.zeros(16_000), temperature=POLICY.temperatures, fp16=False
    )
    return model.tried, not answer["segments"]


@settings(max_examples=15, deadline=None)
@given(st.lists(outcomes_of_a_decode, min_size=5, max_size=5))
def test_it_stops_where_openai_whisper_stops(bad_or_good: list[Candidate]) -> None:
    outcomes = [*bad_or_good, candidate()]  # the last is good: what follows is our own rule
    tried: list[float] = []

    def decode(temperature: float) -> Candidate:
        tried.append(temperature)
        return outcomes[len(tried) - 1]

    chosen = decode_with_fallback(decode, POLICY)
    assert (len(tried), is_silence(chosen, POLICY)) == whisper_decides(outcomes)
    assert chosen is outcomes[len(tried) - 1]
