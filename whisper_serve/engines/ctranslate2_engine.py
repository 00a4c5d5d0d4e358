"""Whisper on CTranslate2: int8 on a CPU, float16 on a GPU."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import ctranslate2
import numpy as np
import torch
from whisper.tokenizer import Tokenizer

from whisper_serve.engines.base import EngineInfo
from whisper_serve.engines.decoder import ModelShape
from whisper_serve.engines.fallback import BEST_OF, Candidate
from whisper_serve.engines.prompt import Prompt, suppressed_tokens
from whisper_serve.engines.word_times import Alignment
from whisper_serve.errors import ConfigError, ConfigProblem, WeightsError


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
        )
        self.info = EngineInfo(
            engine="ctranslate2",
            model=name,
            device=self._model.device,
            compute_type=self._model.compute_type,
            multilingual=self._model.is_multilingual,
            load_s=time.monotonic() - began,
        )

    def encode(self, mel: torch.Tensor) -> ctranslate2.StorageView:
        features = np.ascontiguousarray(mel.numpy()[np.newaxis])
        # Encoded features stay where the decoder needs them.
        return self._model.encode(ctranslate2.StorageView.from_array(features), to_cpu=False)

    def detect_language(self, encoded: ctranslate2.StorageView) -> tuple[str, float]:
        token, probability = self._model.detect_language(encoded)[0][0]
        return token.strip("<|>"), float(probability)

    def generate(
        self,
        encoded: ctranslate2.StorageView,
        prompt: Prompt,
        tokenizer: Tokenizer,
        temperature: float,
        beam_size: int,
    ) -> Candidate:
        sampling = temperature > 0
        result = self._model.generate(
            encoded,
            [prompt.tokens(tokenizer)],
            beam_size=1 if sampling else beam_size,
            num_hypotheses=BEST_OF if sampling else 1,
            sampling_topk=0 if sampling else 1,
            sampling_temperature=temperature if sampling else 1.0,
            return_scores=True,
            return_no_speech_prob=True,
            suppress_tokens=suppressed_tokens(tokenizer),
        )[0]
        tokens = tuple(result.sequences_ids[0])
        return Candidate(
            tokens=tokens,
            text=tokenizer.decode(list(tokens)).strip(),
            # The score is a mean over the tokens without the end of text; Whisper counts it.
            avg_logprob=result.scores[0] * len(tokens) / (len(tokens) + 1),
            no_speech_prob=result.no_speech_prob,
            temperature=temperature,
        )

    def align(
        self,
        encoded: ctranslate2.StorageView,
        tokenizer: Tokenizer,
        text_tokens: Sequence[int],
        num_frames: int,
    ) -> Alignment:
        result = self._model.align(
            encoded, list(tokenizer.sot_sequence), [list(text_tokens)], num_frames
        )[0]
        path = np.array(result.alignments, dtype=np.int64)  # (path length, 2)
        return Alignment(path[:, 0], path[:, 1], np.array(result.text_token_probs, np.float32))

    def gpu_memory_gib(self) -> float:
        return 0.0

    def close(self) -> None:
        self._model.unload_model()
