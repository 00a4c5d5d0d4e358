from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from faster_whisper.feature_extractor import FeatureExtractor
from hypothesis import given, settings
from hypothesis import strategies as st
from whisper.audio import log_mel_spectrogram, pad_or_trim
from whisper.tokenizer import Tokenizer, get_tokenizer

from whisper_serve.engines import decoder
from whisper_serve.engines.base import DecodeTask, EngineInfo, Samples, TemperaturePolicy
from whisper_serve.engines.build import warm_up_task
from whisper_serve.engines.decoder import ModelShape, WindowDecoder, mel_of
from whisper_serve.engines.fallback import Candidate
from whisper_serve.engines.prompt import Prompt
from whisper_serve.engines.word_times import Alignment
from whisper_serve.errors import EngineFailed, InvalidParameter
from whisper_serve.text.transcript import Hypothesis, Segment

MULTILINGUAL = get_tokenizer(multilingual=True, num_languages=99, language="en")
SPEECH = DecodeTask(np.ones(10 * 16_000, np.int16))
# Two sentences with timestamps, as a decode gives them.
SAID = " Ask not. What can you do?"


def at(seconds: float) -> int:
    return int(MULTILINGUAL.timestamp_begin) + round(seconds * 50)


def text_tokens(text: str) -> list[int]:
    return list(MULTILINGUAL.encode(text))


TWO_SPANS = (
    at(0.0),
    *text_tokens(" Ask not."),
    at(2.0),
    at(3.0),
    *text_tokens(" What can you do?"),
    at(6.0),
)


@pytest.fixture(autouse=True, scope="module")
def no_features() -> Iterator[None]:
    """Nobody looks at the features here, and they take longer than all the rest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder, "mel_of", lambda _, n_mels: torch.zeros(n_mels, 3000))
        yield


@dataclass
class ScriptedBackend:
    """Hears the same tokens whatever is said; each token sounds for `token_frames`."""

    tokens: Sequence[int] = TWO_SPANS
    multilingual: bool = True
    detected: tuple[str, float] = ("de", 0.75)
    avg_logprobs: Sequence[float] = (-0.3,)
    no_speech_prob: float = 0.1
    token_frames: int = 10
    prompts: list[list[int]] = field(default_factory=list)
    temperatures: list[float] = field(default_factory=list)
    beams: list[int] = field(default_factory=list)
    aligned_frames: list[int] = field(default_factory=list)
    encoded: int = 0
    closed: bool = False

    @property
    def info(self) -> EngineInfo:
        return EngineInfo("scripted", "tiny", "cpu", "none", self.multilingual, load_s=0.0)

    @property
    def shape(self) -> ModelShape:
        return ModelShape(n_mels=80, multilingual=self.multilingual, num_languages=99)

    def encode(self, mel: torch.Tensor) -> str:
        assert tuple(mel.shape) == (80, 3000)
        self.encoded += 1
        return "encoded"

    def detect_language(self, _encoded: str) -> tuple[str, float]:
        assert self.multilingual
        return self.detected

    def generate(
        self,
        _encoded: str,
        prompt: Prompt,
        tokenizer: Tokenizer,
        temperature: float,
        beam_size: int,
    ) -> Candidate:
        avg_logprob = self.avg_logprobs[min(len(self.prompts), len(self.avg_logprobs) - 1)]
        self.prompts.append(prompt.tokens(tokenizer))
        self.temperatures.append(temperature)
        self.beams.append(beam_size)
        text = str(tokenizer.decode(list(self.tokens)))
        return Candidate(tuple(self.tokens), text, avg_logprob, self.no_speech_prob, temperature)

    def align(
        self, _encoded: str, _tokenizer: Tokenizer, text_tokens: Sequence[int], num_frames: int
    ) -> Alignment:
        self.aligned_frames.append(num_frames)
        count = len(text_tokens) + 1
        path = np.repeat(np.arange(count), self.token_frames)
        return Alignment(path, np.arange(len(path)), np.full(count - 1, 0.5, np.float32))

    def gpu_memory_gib(self) -> float:
        return 1.5

    def close(self) -> None:
        self.closed = True


def heard(backend: ScriptedBackend, task: DecodeTask = SPEECH, /, **changes: Any) -> Hypothesis:
    return WindowDecoder(backend).decode(replace(task, **changes))


def control(backend: ScriptedBackend) -> list[str]:
    """The control tokens before the last decode, by name."""
    names = {number: name for name, number in MULTILINGUAL.special_tokens.items()}
    return [names[token] for token in backend.prompts[-1] if token in names]


# Language and task


def test_a_language_that_is_not_given_is_detected() -> None:
    backend = ScriptedBackend(detected=("de", 0.75))
    hypothesis = heard(backend)
    assert (hypothesis.language, hypothesis.language_probability) == ("de", 0.75)
    assert control(backend) == ["<|startoftranscript|>", "<|de|>", "<|transcribe|>"]


def test_a_language_that_is_given_is_believed() -> None:
    backend = ScriptedBackend(detected=("de", 0.75))
    hypothesis = heard(backend, language="fr")
    assert (hypothesis.language, hypothesis.language_probability) == ("fr", 1.0)
    assert control(backend) == ["<|startoftranscript|>", "<|fr|>", "<|transcribe|>"]


def test_a_translation_is_asked_for() -> None:
    backend = ScriptedBackend()
    heard(backend, language="fr", task="translate")
    assert control(backend)[-1] == "<|translate|>"


def test_a_language_that_the_model_does_not_know_is_the_client_s_fault() -> None:
    with pytest.raises(InvalidParameter, match="language: the model 'tiny' does not know it"):
        heard(ScriptedBackend(), language="yue")  # known to large-v3 only


@pytest.mark.parametrize("language", [None, "en"])
def test_an_english_only_model_hears_english(language: str | None) -> None:
    hypothesis = heard(ScriptedBackend(multilingual=False, tokens=()), language=language)
    assert (hypothesis.language, hypothesis.language_probability) == ("en", 1.0)


@pytest.mark.parametrize(
    ("changes", "parameter"), [({"language": "de"}, "language"), ({"task": "translate"}, "task")]
)
def test_an_english_only_model_refuses_all_else(changes: dict[str, Any], parameter: str) -> None:
    backend = ScriptedBackend(multilingual=False)
    with pytest.raises(InvalidParameter) as refused:
        heard(backend, **changes)
    assert refused.value.parameter == parameter
    assert not backend.prompts


# Prompt, temperatures and beams


def test_context_and_prefix_stand_in_the_prompt() -> None:
    backend = ScriptedBackend()
    heard(backend, context="before", prefix="now", language="en")
    assert control(backend) == [
        "<|startofprev|>",
        "<|startoftranscript|>",
        "<|en|>",
        "<|transcribe|>",
        "<|0.00|>",
    ]


def test_a_doubtful_decode_is_tried_hotter() -> None:
    backend = ScriptedBackend(avg_logprobs=[-2.0, -2.0, -0.3])
    hypothesis = heard(backend, beam_size=5)
    assert backend.temperatures == [0.0, 0.2, 0.4]
    assert backend.beams == [5, 5, 5]
    assert {segment.temperature for segment in hypothesis.segments} == {0.4}
    assert backend.encoded == 1


def test_only_the_temperatures_of_the_task_are_tried() -> None:
    backend = ScriptedBackend(avg_logprobs=[-2.0])
    heard(backend, temperature=TemperaturePolicy(temperatures=(0.5,)))
    assert backend.temperatures == [0.5]


# Silence


def test_silence_has_no_segments() -> None:
    backend = ScriptedBackend(avg_logprobs=[-2.0], no_speech_prob=0.9)
    hypothesis = heard(backend)
    assert (hypothesis.segments, hypothesis.text, hypothesis.words) == ((), "", ())
    assert hypothesis.language == "de"
    assert not backend.aligned_frames


@pytest.mark.parametrize("tokens", [(), (at(0.0), at(2.0)), (at(0.0), *text_tokens("  "), at(2.0))])
@pytest.mark.parametrize("want_words", [True, False])
def test_a_decode_without_text_has_no_segments(tokens: tuple[int, ...], want_words: bool) -> None:
    assert heard(ScriptedBackend(tokens=tokens), want_words=want_words).segments == ()


# Segments and words


def test_without_words_segments_lie_between_whisper_s_timestamps() -> None:
    backend = ScriptedBackend()
    segments = heard(backend, want_words=False).segments
    assert [(s.start, s.end, s.text, s.words) for s in segments] == [
        (0.0, 2.0, " Ask not.", ()),
        (3.0, 6.0, " What can you do?", ()),
    ]
    assert not backend.aligned_frames


def test_with_words_segments_lie_where_their_words_lie() -> None:
    segments = heard(ScriptedBackend(token_frames=10)).segments
    assert [[word.text for word in segment.words] for segment in segments] == [
        [" Ask", " not."],
        [" What", " can", " you", " do?"],
    ]
    assert [(s.start, round(s.end, 2)) for s in segments] == [(0.0, 0.4), (0.6, 1.4)]
    assert [s.text for s in segments] == [" Ask not.", " What can you do?"]


def test_a_segment_tells_about_its_decode() -> None:
    backend = ScriptedBackend()
    for want_words in (True, False):
        first, second = heard(backend, want_words=want_words).segments
        assert first.tokens == tuple(text_tokens(" Ask not."))
        assert second.tokens == tuple(text_tokens(" What can you do?"))
        assert (first.avg_logprob, first.no_speech_prob, first.temperature) == (-0.3, 0.1, 0.0)
        assert first.compression_ratio == second.compression_ratio > 0


def test_a_mark_that_begins_a_sentence_goes_with_its_word() -> None:
    tokens = (at(0.0), *text_tokens(" ("), at(2.0), *text_tokens("Ask not)"), at(4.0))
    for want_words in (True, False):
        assert heard(ScriptedBackend(tokens=tokens), want_words=want_words).text == "(Ask not)"
    [segment] = heard(ScriptedBackend(tokens=tokens)).segments
    assert segment.text == " (Ask not)"


def test_a_word_that_a_timestamp_divides_is_in_one_segment() -> None:
    first, second = text_tokens(" flibbert"), text_tokens("ige")
    tokens = (at(0.0), *first, at(2.0), *second, at(4.0))
    [segment] = heard(ScriptedBackend(tokens=tokens)).segments
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
    backend = ScriptedBackend(tokens=tokens)
    with_words = heard(backend, language=language)
    without = heard(backend, language=language, want_words=False)
    assert segments_text(with_words.segments) == segments_text(without.segments)
    assert with_words.text == "".join(word.text for word in with_words.words).strip()


@pytest.mark.parametrize(
    ("samples", "frames"), [(1, 4), (479, 4), (800, 5), (16_000, 100), (480_000, 3000)]
)
def test_only_the_audio_is_aligned_and_never_too_little(samples: int, frames: int) -> None:
    backend = ScriptedBackend()
    heard(backend, samples=np.ones(samples, np.int16))
    assert backend.aligned_frames == [frames]


def test_an_answer_holds_nothing_of_the_known_stretches() -> None:
    backend = ScriptedBackend(
        tokens=(
            *(at(0.0), *text_tokens(" One."), at(1.0)),
            *(at(1.2), *text_tokens(" Two is"), *text_tokens(" new"), at(2.0)),
            *(at(2.0), *text_tokens(" And three."), at(3.0)),
        )
    )
    known = " One. Two is"
    hypothesis = heard(backend, prefix=known, language="en", samples=np.ones(48_000, np.int16))
    assert [segment.text for segment in hypothesis.segments] == [" new", " And three."]
    assert [word.text for word in hypothesis.words] == [" new", " And", " three."]
    without = heard(
        backend, prefix=known, language="en", want_words=False, samples=np.ones(48_000, np.int16)
    )
    assert [segment.text for segment in without.segments] == [" new", " And three."]


def test_the_warm_up_takes_every_step() -> None:
    backend = ScriptedBackend(
        tokens=(at(0.0), *text_tokens(" Hello")), avg_logprobs=[-9.0], no_speech_prob=0.99
    )
    heard(backend, warm_up_task())
    assert backend.encoded == len(backend.prompts) == len(backend.aligned_frames) == 1


# The rest


def test_what_a_decode_cost_is_told() -> None:
    stats = heard(ScriptedBackend()).stats
    assert stats.encoded_s > 0
    assert stats.decoded_s > 0
    assert stats.gpu_memory_gib == 1.5
    assert stats.queued_s == 0


def test_a_failure_of_the_backend_is_not_hidden() -> None:
    class Broken(ScriptedBackend):
        def encode(self, _mel: torch.Tensor) -> str:
            raise EngineFailed("out of memory")

    with pytest.raises(EngineFailed):
        heard(Broken())


def test_closing_closes_the_backend() -> None:
    backend = ScriptedBackend()
    closed = WindowDecoder(backend)
    assert closed.info == backend.info
    closed.close()
    assert backend.closed


# Features


def noise(samples: int) -> Samples:
    return np.random.default_rng(0).integers(-9_000, 9_000, samples).astype(np.int16)


@pytest.mark.parametrize("n_mels", [80, 128])
@pytest.mark.parametrize("samples", [1, 16_000, 480_000])
def test_features_are_openai_whisper_s(samples: int, n_mels: int) -> None:
    audio = noise(samples)
    expected = log_mel_spectrogram(pad_or_trim(audio.astype(np.float32) / 32768.0), n_mels)
    mel = mel_of(audio, n_mels)
    assert (mel.shape, mel.dtype) == ((n_mels, 3000), torch.float32)
    assert torch.equal(mel, expected)


@pytest.mark.parametrize("n_mels", [80, 128])
@pytest.mark.parametrize("samples", [16_000, 480_000])
def test_features_are_faster_whisper_s_for_padded_audio(samples: int, n_mels: int) -> None:
    audio = noise(samples)
    padded = np.pad(audio, (0, 480_000 - samples)).astype(np.float32) / 32768.0
    expected = FeatureExtractor(feature_size=n_mels)(padded)[:, :3000]
    # The last frames differ: one mirrors the audio's end, the other pads it.
    assert np.allclose(mel_of(audio, n_mels)[:, :2998], expected[:, :2998], atol=2e-3)
