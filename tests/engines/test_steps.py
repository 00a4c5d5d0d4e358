from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
import whisper
from hypothesis import given, settings
from hypothesis import strategies as st
from whisper.decoding import DecodingOptions, DecodingResult
from whisper.tokenizer import get_tokenizer

from whisper_serve.engines.base import DecodeTask, TemperaturePolicy
from whisper_serve.engines.build import warm_up_task
from whisper_serve.engines.fallback import Candidate
from whisper_serve.engines.padding import WHOLE_FRAMES, WHOLE_ONLY, Padding
from whisper_serve.engines.prompt import suppressed_tokens
from whisper_serve.engines.shape import ModelShape
from whisper_serve.engines.steps import (
    MAX_TOKENS,
    Align,
    DetectLanguage,
    Encode,
    Generate,
    Step,
    decode_window,
)
from whisper_serve.engines.word_times import Alignment
from whisper_serve.errors import InvalidParameter
from whisper_serve.text.transcript import Hypothesis, Segment

MULTILINGUAL = get_tokenizer(multilingual=True, num_languages=99, language="en")
SPEECH = DecodeTask(np.ones(10 * 16_000, np.int16))
SHORT = Padding(margin_s=2.0, compression_ratio=2.0, avg_logprob=-0.6)
S = TypeVar("S")


def at(seconds: float) -> int:
    return int(MULTILINGUAL.timestamp_begin) + round(seconds * 50)


def text_tokens(text: str) -> list[int]:
    return list(MULTILINGUAL.encode(text))


# Two sentences with timestamps, as a decode gives them.
TWO_SPANS = (
    at(0.0),
    *text_tokens(" Ask not."),
    at(2.0),
    at(3.0),
    *text_tokens(" What can you do?"),
    at(6.0),
)
STUCK = (at(0.0), *text_tokens(" Ask not." * 40), at(6.0))


def said(
    tokens: Sequence[int] = TWO_SPANS,
    *,
    avg_logprob: float = -0.3,
    no_speech_prob: float = 0.1,
    text: str | None = None,
) -> Candidate:
    """What a network hears; the temperature is that of the step."""
    heard_text = str(MULTILINGUAL.decode(list(tokens))).strip() if text is None else text
    return Candidate(tuple(tokens), heard_text, avg_logprob, no_speech_prob, temperature=-1.0)


@dataclass
class Network:
    """Answers steps as it was told to, whatever is said. Each decode gives the next of
    `decodes`, the last of which repeats; each token sounds for `token_frames`."""

    decodes: Sequence[Candidate] = (said(),)
    multilingual: bool = True
    detected: tuple[str, float] = ("de", 0.75)
    token_frames: int = 10
    asked: list[Step] = field(default_factory=list)

    @property
    def shape(self) -> ModelShape:
        return ModelShape(80, self.multilingual, num_languages=99, name="tiny")

    def answer(self, step: Step) -> object:
        decodes_before = len(self.of(Generate))
        self.asked.append(step)
        match step:
            case Encode():
                return ("encoded", step.frames)
            case DetectLanguage():
                return self.detected
            case Generate():
                candidate = self.decodes[min(decodes_before, len(self.decodes) - 1)]
                return replace(candidate, temperature=step.temperature)
            case Align():
                return self._aligned(len(step.text_tokens))

    def _aligned(self, count: int) -> Alignment:
        path = np.repeat(np.arange(count + 1), self.token_frames)
        return Alignment(path, np.arange(len(path)), np.full(count, 0.5, np.float32))

    def of(self, kind: type[S]) -> list[S]:
        """The steps of one kind that were asked, in order."""
        return [step for step in self.asked if isinstance(step, kind)]

    @property
    def frames(self) -> list[int]:
        return [step.frames for step in self.of(Encode)]

    @property
    def temperatures(self) -> list[float]:
        return [step.temperature for step in self.of(Generate)]


def heard(
    network: Network, task: DecodeTask = SPEECH, /, padding: Padding = WHOLE_ONLY, **changes: Any
) -> Hypothesis:
    steps = decode_window(replace(task, **changes), network.shape, padding)
    answer: object = None
    try:
        while True:
            answer = network.answer(steps.send(answer))
    except StopIteration as done:
        hypothesis: Hypothesis = done.value
        return hypothesis


def control(network: Network) -> list[str]:
    """The control tokens before the last decode, by name."""
    names = {number: name for name, number in MULTILINGUAL.special_tokens.items()}
    last = network.of(Generate)[-1]
    return [names[token] for token in last.prompt.tokens(last.tokenizer) if token in names]


# Language and task


def test_a_language_that_is_not_given_is_detected() -> None:
    network = Network(detected=("de", 0.75))
    hypothesis = heard(network)
    assert (hypothesis.language, hypothesis.language_probability) == ("de", 0.75)
    assert control(network) == ["<|startoftranscript|>", "<|de|>", "<|transcribe|>"]


def test_a_language_that_is_given_is_believed() -> None:
    network = Network()
    hypothesis = heard(network, language="fr")
    assert (hypothesis.language, hypothesis.language_probability) == ("fr", 1.0)
    assert control(network) == ["<|startoftranscript|>", "<|fr|>", "<|transcribe|>"]
    assert not network.of(DetectLanguage)


def test_a_language_is_detected_once_however_often_a_window_is_decoded() -> None:
    network = Network([said(avg_logprob=-2.0)])
    heard(network, padding=SHORT)
    assert len(network.frames) == 2
    [step] = network.of(DetectLanguage)
    assert step.encoded == ("encoded", network.frames[0])


def test_a_translation_is_asked_for() -> None:
    network = Network()
    heard(network, language="fr", task="translate")
    assert control(network)[-1] == "<|translate|>"


@pytest.mark.parametrize("language", [None, "en"])
def test_an_english_only_model_hears_english(language: str | None) -> None:
    network = Network([said(())], multilingual=False)
    hypothesis = heard(network, language=language)
    assert (hypothesis.language, hypothesis.language_probability) == ("en", 1.0)
    assert not network.of(DetectLanguage)


@pytest.mark.parametrize(
    ("multilingual", "changes", "parameter"),
    [
        (True, {"language": "yue"}, "language"),  # known to large-v3 only
        (False, {"language": "de"}, "language"),
        (False, {"task": "translate"}, "task"),
    ],
)
def test_what_the_model_cannot_do_is_refused_before_anything_is_computed(
    multilingual: bool, changes: dict[str, Any], parameter: str
) -> None:
    network = Network(multilingual=multilingual)
    with pytest.raises(InvalidParameter) as refused:
        heard(network, **changes)
    assert refused.value.parameter == parameter
    assert not network.asked


# Prompt, beams and samples


def test_context_and_prefix_stand_in_the_prompt() -> None:
    network = Network()
    heard(network, context="before", prefix="now", language="en")
    assert control(network) == [
        "<|startofprev|>",
        "<|startoftranscript|>",
        "<|en|>",
        "<|transcribe|>",
        "<|0.00|>",
    ]


def test_beams_count_at_temperature_0_and_samples_above_it() -> None:
    network = Network([said(avg_logprob=-2.0)])
    policy = TemperaturePolicy(temperatures=(0.0, 0.2, 0.4))
    heard(network, beam_size=4, best_of=3, temperature=policy)
    decodes = network.of(Generate)
    assert [step.beam_size for step in decodes] == [4, 1, 1]
    assert [step.best_of for step in decodes] == [1, 3, 3]


@pytest.mark.parametrize("asked", [(-1,), (), (440, 50), (-1, 440)])
def test_tokens_that_a_task_forbids_are_forbidden_to_the_decode(asked: tuple[int, ...]) -> None:
    network = Network()
    heard(network, suppress_tokens=asked, language="en")
    [step] = network.of(Generate)
    assert step.suppressed == suppressed_tokens(step.tokenizer, asked)


@pytest.mark.parametrize("prefix", ["", "One two three"])
def test_a_whole_decode_has_half_of_whisper_s_places(prefix: str) -> None:
    network = Network()
    heard(network, prefix=prefix)
    assert [step.max_tokens for step in network.of(Generate)] == [MAX_TOKENS]


KNOWN = (at(0.0), *text_tokens(" Ask not."))


@pytest.mark.parametrize("tokens", [KNOWN, (*KNOWN, at(2.0))])
def test_beams_that_end_behind_the_prefix_are_not_believed(tokens: tuple[int, ...]) -> None:
    network = Network([said(tokens), said()])
    hypothesis = heard(network, beam_size=5, prefix="Ask not.", language="en")
    assert [step.beam_size for step in network.of(Generate)] == [5, 1]
    assert network.temperatures == [0.0, 0.0]
    assert hypothesis.text == "What can you do?"


@pytest.mark.parametrize(
    ("beam_size", "prefix", "tokens"), [(1, "Ask not.", KNOWN), (5, "", (at(0.0), at(2.0)))]
)
def test_else_a_decode_that_adds_nothing_is_believed(
    beam_size: int, prefix: str, tokens: tuple[int, ...]
) -> None:
    network = Network([said(tokens)])
    heard(network, beam_size=beam_size, prefix=prefix, language="en")
    assert len(network.of(Generate)) == 1


# Short padding


def test_a_window_is_decoded_once_when_nothing_is_suspicious() -> None:
    network = Network()
    hypothesis = heard(network, padding=SHORT)
    [frames] = network.frames
    assert 1_000 < frames < WHOLE_FRAMES
    assert network.temperatures == [0.0]
    assert hypothesis.text == "Ask not. What can you do?"


# As many words as fill a decode of whatever length, and none twice.
MANY_WORDS = text_tokens("".join(f" {n}" for n in range(1_000)))


@pytest.mark.parametrize(
    "suspicious",
    [
        said(avg_logprob=-0.7),
        said(STUCK[:60], avg_logprob=-0.1),
        said(MANY_WORDS[: 12 + 8 * 10], text="a text"),
    ],
    ids=["doubtful", "stuck", "long"],
)
def test_a_suspicious_window_is_decoded_again_with_all_its_padding(suspicious: Candidate) -> None:
    network = Network([suspicious, said()])
    hypothesis = heard(network, padding=SHORT)
    assert len(network.frames) == 2
    assert network.frames[1] == WHOLE_FRAMES
    assert network.temperatures == [0.0, 0.0]
    assert hypothesis.text == "Ask not. What can you do?"


def test_with_all_its_padding_a_window_is_judged_by_whisper_s_rules() -> None:
    doubtful, acceptable = said(avg_logprob=-2.0), said(avg_logprob=-0.9)
    network = Network([acceptable, doubtful, doubtful, acceptable])
    hypothesis = heard(network, padding=SHORT)
    assert network.temperatures == [0.0, 0.0, 0.2, 0.4]
    assert network.frames[1:] == [WHOLE_FRAMES]
    assert {segment.avg_logprob for segment in hypothesis.segments} == {-0.9}


def test_a_short_decode_has_the_task_s_first_temperature() -> None:
    network = Network()
    heard(network, padding=SHORT, temperature=TemperaturePolicy(temperatures=(0.5, 0.7)))
    assert network.temperatures == [0.5]


def test_a_window_without_room_for_padding_is_decoded_whole_at_once() -> None:
    network = Network([said(avg_logprob=-0.9)])
    heard(network, padding=SHORT, samples=np.ones(480_000, np.int16))
    assert network.frames == [WHOLE_FRAMES]
    assert network.temperatures == [0.0]


def test_text_and_words_are_of_the_same_try() -> None:
    for decodes in ([said()], [said(avg_logprob=-2.0), said()]):
        network = Network(decodes)
        heard(network, padding=SHORT)
        [align] = network.of(Align)
        assert align.encoded == network.of(Generate)[-1].encoded
        assert align.encoded == ("encoded", network.frames[-1])


def test_a_prefix_makes_no_decode_suspicious() -> None:
    prefix = "".join(f" {n}" for n in range(60))
    tokens = (at(0.0), *text_tokens(prefix), *text_tokens(" new"))
    network = Network([said(tokens, text="a text")])
    hypothesis = heard(
        network, padding=SHORT, prefix=prefix, language="en", samples=np.ones(16_000, np.int16)
    )
    assert len(network.of(Generate)) == 1
    assert hypothesis.text == "new"


class NeverEnding(Network):
    """Says new words for as long as it may."""

    def answer(self, step: Step) -> object:
        answer = super().answer(step)
        if isinstance(step, Generate) and len(self.of(Generate)) == 1:
            return said(MANY_WORDS[: step.max_tokens], text="a text")
        return answer


@pytest.mark.parametrize("prefix_words", [0, 90])
@pytest.mark.parametrize("seconds", [0.5, 10, 20, 21])
def test_a_short_decode_that_does_not_end_is_suspicious(seconds: float, prefix_words: int) -> None:
    network = NeverEnding()
    samples = np.ones(round(seconds * 16_000), np.int16)
    prefix = "".join(f" {n}" for n in range(prefix_words))
    heard(network, padding=SHORT, samples=samples, prefix=prefix, language="en")
    assert network.frames[0] < WHOLE_FRAMES == network.frames[-1]


# Temperatures

GOOD = said()
DOUBTFUL = said(avg_logprob=-1.2)
REPEATING = said(STUCK)


def test_a_good_decode_is_taken_at_once() -> None:
    network = Network([GOOD])
    heard(network)
    assert network.temperatures == [0.0]


@pytest.mark.parametrize("bad", [DOUBTFUL, REPEATING])
def test_a_bad_decode_is_tried_hotter(bad: Candidate) -> None:
    network = Network([bad, bad, GOOD])
    hypothesis = heard(network)
    assert network.temperatures == [0.0, 0.2, 0.4]
    assert {segment.temperature for segment in hypothesis.segments} == {0.4}
    assert len(network.frames) == 1


def test_only_the_temperatures_of_the_task_are_tried_and_in_their_order() -> None:
    network = Network([REPEATING])
    heard(network, temperature=TemperaturePolicy(temperatures=(0.5, 0.1)))
    assert network.temperatures == [0.5, 0.1]


def test_when_all_are_bad_the_likeliest_that_does_not_repeat_itself_is_taken() -> None:
    policy = TemperaturePolicy(temperatures=(0.0, 0.2, 0.4))
    network = Network([said(STUCK, avg_logprob=-0.1), DOUBTFUL, said(avg_logprob=-1.9)])
    hypothesis = heard(network, temperature=policy)
    assert {segment.temperature for segment in hypothesis.segments} == {0.2}


def test_a_sure_text_is_no_silence_whatever_the_model_says() -> None:
    network = Network([said(no_speech_prob=0.99)])
    assert heard(network).text == "Ask not. What can you do?"


# Silence


@pytest.mark.parametrize("padding", [WHOLE_ONLY, SHORT])
def test_silence_has_no_segments_and_is_not_tried_hotter(padding: Padding) -> None:
    network = Network([said(avg_logprob=-2.0, no_speech_prob=0.9)])
    hypothesis = heard(network, padding=padding)
    assert (hypothesis.segments, hypothesis.text, hypothesis.words) == ((), "", ())
    assert hypothesis.language == "de"
    assert not network.of(Align)
    assert set(network.temperatures) == {0.0}


@pytest.mark.parametrize("tokens", [(), (at(0.0), at(2.0)), (at(0.0), *text_tokens("  "), at(2.0))])
@pytest.mark.parametrize("want_words", [True, False])
def test_a_decode_without_text_has_no_segments(tokens: tuple[int, ...], want_words: bool) -> None:
    assert heard(Network([said(tokens)]), want_words=want_words).segments == ()


# Segments and words


def test_without_words_segments_lie_between_whisper_s_timestamps() -> None:
    network = Network()
    segments = heard(network, want_words=False).segments
    assert [(s.start, s.end, s.text, s.words) for s in segments] == [
        (0.0, 2.0, " Ask not.", ()),
        (3.0, 6.0, " What can you do?", ()),
    ]
    assert not network.of(Align)


def test_with_words_segments_lie_where_their_words_lie() -> None:
    segments = heard(Network(token_frames=10)).segments
    assert [[word.text for word in segment.words] for segment in segments] == [
        [" Ask", " not."],
        [" What", " can", " you", " do?"],
    ]
    assert [(s.start, round(s.end, 2)) for s in segments] == [(0.0, 0.4), (0.6, 1.4)]
    assert [s.text for s in segments] == [" Ask not.", " What can you do?"]


def test_a_segment_tells_about_its_decode() -> None:
    network = Network()
    for want_words in (True, False):
        first, second = heard(network, want_words=want_words).segments
        assert first.tokens == tuple(text_tokens(" Ask not."))
        assert second.tokens == tuple(text_tokens(" What can you do?"))
        assert (first.avg_logprob, first.no_speech_prob, first.temperature) == (-0.3, 0.1, 0.0)
        assert first.compression_ratio == second.compression_ratio > 0


def test_a_mark_that_begins_a_sentence_goes_with_its_word() -> None:
    tokens = (at(0.0), *text_tokens(" ("), at(2.0), *text_tokens("Ask not)"), at(4.0))
    for want_words in (True, False):
        assert heard(Network([said(tokens)]), want_words=want_words).text == "(Ask not)"
    [segment] = heard(Network([said(tokens)])).segments
    assert segment.text == " (Ask not)"


def test_a_word_that_a_timestamp_divides_is_in_one_segment() -> None:
    first, second = text_tokens(" flibbert"), text_tokens("ige")
    tokens = (at(0.0), *first, at(2.0), *second, at(4.0))
    [segment] = heard(Network([said(tokens)])).segments
    assert segment.text == " flibbertige"
    assert [word.text for word in segment.words] == [" flibbertige"]


def segments_text(segments: tuple[Segment, ...]) -> str:
    return "".join(segment.text for segment in segments)


PIECES = st.from_regex(r"[ ]?[A-Za-zé語,.\"(!-]{1,5}", fullmatch=True)


@settings(max_examples=50, deadline=None)
@given(
    pieces=st.lists(st.tuples(PIECES, st.booleans()), max_size=12),
    language=st.sampled_from(["en", "ja"]),
)
def test_words_change_no_text(pieces: list[tuple[str, bool]], language: str) -> None:
    tokens: list[int] = []
    for index, (text, cut_behind) in enumerate(pieces):
        tokens += text_tokens(text)
        tokens += [at(float(index))] if cut_behind else []
    network = Network([said(tokens)])
    with_words = heard(network, language=language)
    without = heard(network, language=language, want_words=False)
    assert segments_text(with_words.segments) == segments_text(without.segments)
    assert with_words.text == "".join(word.text for word in with_words.words).strip()


@pytest.mark.parametrize(
    ("samples", "frames"), [(1, 4), (479, 4), (800, 5), (16_000, 100), (480_000, 3000)]
)
def test_only_the_audio_is_aligned_and_never_too_little(samples: int, frames: int) -> None:
    network = Network()
    heard(network, samples=np.ones(samples, np.int16))
    assert [step.num_frames for step in network.of(Align)] == [frames]


def test_an_answer_holds_nothing_of_the_known_stretches() -> None:
    tokens = (
        *(at(0.0), *text_tokens(" One."), at(1.0)),
        *(at(1.2), *text_tokens(" Two is"), *text_tokens(" new"), at(2.0)),
        *(at(2.0), *text_tokens(" And three."), at(3.0)),
    )
    network = Network([said(tokens)])
    known = " One. Two is"
    hypothesis = heard(network, prefix=known, language="en", samples=np.ones(48_000, np.int16))
    assert [segment.text for segment in hypothesis.segments] == [" new", " And three."]
    assert [word.text for word in hypothesis.words] == [" new", " And", " three."]
    without = heard(
        network, prefix=known, language="en", want_words=False, samples=np.ones(48_000, np.int16)
    )
    assert [segment.text for segment in without.segments] == [" new", " And three."]


@pytest.mark.parametrize("want_words", [True, False])
def test_a_decode_that_adds_nothing_to_the_prefix_has_no_segments(want_words: bool) -> None:
    network = Network([said(KNOWN)])
    hypothesis = heard(network, prefix="Ask not.", language="en", want_words=want_words)
    assert hypothesis.segments == ()


# The rest


@pytest.mark.parametrize("padding", [WHOLE_ONLY, SHORT])
def test_the_warm_up_takes_every_step_that_a_window_may_take(padding: Padding) -> None:
    """As far as it can be known: it is sure to be decoded, and its prefix to be aligned."""
    hello = (at(0.0), *text_tokens(" Hello"))
    network = Network([said(hello, avg_logprob=-9.0, no_speech_prob=0.9)])
    heard(network, warm_up_task(), padding=padding)
    assert {type(step) for step in network.asked} == {Encode, DetectLanguage, Generate, Align}


def test_what_a_decode_cost_is_told() -> None:
    stats = heard(Network()).stats
    assert stats.encoded_s > 0
    assert stats.decoded_s > 0
    assert stats.queued_s == 0
    assert (stats.fallbacks, stats.temperature) == (0, 0.0)


def test_how_often_it_was_tried_and_how_hot_is_told() -> None:
    doubtful = said(avg_logprob=-2.0)
    stats = heard(Network([doubtful, doubtful, said()])).stats
    assert (stats.fallbacks, stats.temperature) == (2, 0.4)
    stats = heard(Network([doubtful, said()]), padding=SHORT).stats
    assert (stats.fallbacks, stats.temperature) == (1, 0.0)


# The same decisions as openai-whisper

outcomes_of_a_decode = st.builds(
    said,
    st.sampled_from([TWO_SPANS, STUCK]),
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
        model, torch.zeros(16_000), temperature=TemperaturePolicy().temperatures, fp16=False
    )
    return model.tried, not answer["segments"]


@settings(max_examples=15, deadline=None)
@given(st.lists(outcomes_of_a_decode, min_size=5, max_size=5))
def test_it_stops_where_openai_whisper_stops(bad_or_good: list[Candidate]) -> None:
    outcomes = [*bad_or_good, said()]  # the last is good: what follows is our own rule
    network = Network(outcomes)
    hypothesis = heard(network, want_words=False)
    decodes = len(network.of(Generate))
    assert (decodes, not hypothesis.segments) == whisper_decides(outcomes)
    told = {(s.avg_logprob, s.compression_ratio) for s in hypothesis.segments}
    chosen = outcomes[decodes - 1]
    assert told <= {(chosen.avg_logprob, chosen.compression_ratio)}
