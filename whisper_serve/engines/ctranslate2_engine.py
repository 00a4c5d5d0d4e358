"""Whisper on CTranslate2: int8 on a CPU, float16 on a GPU."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import TypeVar

import ctranslate2
import numpy as np
import numpy.typing as npt
import torch
from whisper.audio import HOP_LENGTH, log_mel_spectrogram, pad_or_trim
from whisper.tokenizer import Tokenizer

from whisper_serve.engines.base import EngineInfo
from whisper_serve.engines.fallback import Candidate
from whisper_serve.engines.shape import ModelShape
from whisper_serve.engines.steps import Align, DetectLanguage, Encode, Generate
from whisper_serve.engines.word_times import Alignment
from whisper_serve.errors import ConfigError, ConfigProblem, WeightsError

# Windows are decoded together when as many tokens stand before their start; so contexts are
# cut to one of these lengths.
CONTEXT_LENGTHS = (16, 32, 64, 112, 160, 223)

# What the encoder gave for one window: float32, shape (frames / 2, n_audio_state).
Encoded = npt.NDArray[np.float32]
S = TypeVar("S")
A = TypeVar("A")


class CTranslate2Backend:
    """One model, shared by `workers` threads that decode side by side.

    The weights are in memory once; each worker computes on `threads_per_worker` cores.
    """

    def __init__(
        self,
        model_dir: Path,
        *,
        name: str,
        device: str,
        compute_type: str,
        workers: int,
        threads_per_worker: int,
    ) -> None:
        """Raises `ConfigError` when the device cannot compute in `compute_type`,
        `WeightsError` when `model_dir` cannot be loaded."""
        began = time.monotonic()
        _use_widest_vectors()
        try:
            self._model = ctranslate2.models.Whisper(
                str(model_dir),
                device=device,
                compute_type=compute_type,
                inter_threads=workers,
                intra_threads=threads_per_worker,
            )
        except ValueError as exc:
            problem = ConfigProblem("model.compute_type", compute_type, str(exc))
            raise ConfigError("ctranslate2 engine", [problem]) from exc
        except RuntimeError as exc:
            raise WeightsError(f"{model_dir} cannot be loaded: {exc}") from exc
        self.shape = ModelShape(
            n_mels=self._model.n_mels,
            multilingual=self._model.is_multilingual,
            num_languages=self._model.num_languages,
            name=name,
        )
        self.info = EngineInfo(
            engine="ctranslate2",
            model=name,
            device=self._model.device,
            compute_type=self._model.compute_type,
            multilingual=self._model.is_multilingual,
            load_s=time.monotonic() - began,
        )

    def encode(self, steps: Sequence[Encode]) -> Sequence[Encoded]:
        """On a CPU one by one: there a batch takes longer than its windows do, because less of
        it stays in the cache."""
        if self._model.device == "cpu":
            return [self._encode([step])[0] for step in steps]
        return _grouped(steps, lambda step: step.frames, self._encode)

    def _encode(self, steps: Sequence[Encode]) -> Sequence[Encoded]:
        mels = np.stack([mel_of(step, self.shape.n_mels) for step in steps])
        features = ctranslate2.StorageView.from_array(mels)
        # Views of what CTranslate2 gave: nothing is copied.
        return list(np.asarray(self._model.encode(features, to_cpu=True)))

    def detect_language(self, steps: Sequence[DetectLanguage]) -> Sequence[tuple[str, float]]:
        return _grouped(steps, lambda step: len(step.encoded), self._detect_language)

    def _detect_language(self, steps: Sequence[DetectLanguage]) -> Sequence[tuple[str, float]]:
        found = self._model.detect_language(_stacked([step.encoded for step in steps]))
        return [(best[0][0].strip("<|>"), float(best[0][1])) for best in found]

    def generate(self, steps: Sequence[Generate]) -> Sequence[Candidate]:
        return _grouped(steps, _company, self._generate)

    def _generate(self, steps: Sequence[Generate]) -> Sequence[Candidate]:
        first = steps[0]
        sampling = first.temperature > 0
        prompts = [prompt_of(step) for step in steps]
        free = max(step.max_tokens for step in steps)
        start = len(prompts[0]) - len(first.prompt.prefix)
        results = self._model.generate(
            _stacked([step.encoded for step in steps]),
            prompts,
            beam_size=1 if sampling else first.beam_size,
            num_hypotheses=first.best_of if sampling else 1,
            sampling_topk=0 if sampling else 1,
            sampling_temperature=first.temperature if sampling else 1.0,
            # Of which CTranslate2 gives the text half at most.
            max_length=max(2 * free, start - 1 + free),
            return_scores=True,
            return_no_speech_prob=True,
            suppress_tokens=list(first.suppressed),
        )
        return [
            candidate_of(
                result.sequences_ids[0],
                score=result.scores[0],
                no_speech_prob=result.no_speech_prob,
                tokenizer=step.tokenizer,
                temperature=step.temperature,
            )
            for step, result in zip(steps, results, strict=True)
        ]

    def align(self, steps: Sequence[Align]) -> Sequence[Alignment]:
        if self._model.device == "cpu":
            return [self._align([step])[0] for step in steps]
        return _grouped(
            steps, lambda step: (len(step.encoded), step.tokenizer.sot_sequence), self._align
        )

    def _align(self, steps: Sequence[Align]) -> Sequence[Alignment]:
        results = self._model.align(
            _stacked([step.encoded for step in steps]),
            list(steps[0].tokenizer.sot_sequence),
            [list(step.text_tokens) for step in steps],
            [step.num_frames for step in steps],
        )
        return [alignment_of(result) for result in results]

    def close(self) -> None:
        self._model.unload_model()


def _use_widest_vectors() -> None:
    """On AMD's processors CTranslate2 keeps to AVX2 unless told otherwise; with AVX-512 base is
    encoded a sixth faster."""
    if torch.backends.cpu.get_cpu_capability() == "AVX512":
        os.environ.setdefault("CT2_FORCE_CPU_ISA", "AVX512")


def mel_of(step: Encode, n_mels: int) -> npt.NDArray[np.float32]:
    """The window as Whisper's encoder wants it, shape (n_mels, step.frames).

    It is padded with silence. Padding the spectrogram with zeros, which stand for a rather
    loud noise, made base stop before the end of speech more often.
    """
    audio = torch.from_numpy(step.samples.astype(np.float32) / 32768.0)
    mel = log_mel_spectrogram(pad_or_trim(audio, step.frames * HOP_LENGTH), n_mels)
    return np.asarray(mel)


def prompt_of(step: Generate) -> list[int]:
    """All tokens before the decode, the context cut so that windows line up."""
    return step.prompt.lined_up(CONTEXT_LENGTHS).tokens(step.tokenizer)


def candidate_of(
    tokens: Sequence[int],
    *,
    score: float,
    no_speech_prob: float,
    tokenizer: Tokenizer,
    temperature: float,
) -> Candidate:
    return Candidate(
        tokens=tuple(tokens),
        text=tokenizer.decode(list(tokens)).strip(),
        # The score is a mean over the tokens without the end of text; Whisper counts it.
        avg_logprob=score * len(tokens) / (len(tokens) + 1),
        no_speech_prob=no_speech_prob,
        temperature=temperature,
    )


def alignment_of(result: ctranslate2.models.WhisperAlignmentResult) -> Alignment:
    path = np.array(result.alignments, dtype=np.int64)  # (path length, 2)
    return Alignment(path[:, 0], path[:, 1], np.array(result.text_token_probs, np.float32))


def _company(step: Generate) -> Hashable:
    """Windows of which this is the same are generated together."""
    prompt = prompt_of(step)
    return (
        len(step.encoded),
        len(prompt) - len(step.prompt.prefix),
        step.temperature,
        step.beam_size,
        step.best_of,
        step.suppressed,
    )


def _grouped(
    steps: Sequence[S], key: Callable[[S], Hashable], answer: Callable[[Sequence[S]], Sequence[A]]
) -> list[A]:
    """The answers to `steps`, in order; those of the same `key` are asked for together."""
    groups: defaultdict[Hashable, list[int]] = defaultdict(list)
    for index, step in enumerate(steps):
        groups[key(step)].append(index)
    answers: dict[int, A] = {}
    for group in groups.values():
        answers.update(zip(group, answer([steps[index] for index in group]), strict=True))
    return [answers[index] for index in range(len(steps))]


def _stacked(encoded: Sequence[Encoded]) -> ctranslate2.StorageView:
    array = encoded[0][np.newaxis] if len(encoded) == 1 else np.stack(encoded)
    return ctranslate2.StorageView.from_array(array)
