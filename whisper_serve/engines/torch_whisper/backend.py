"""Whisper on torch: float32 on a CPU, float16 or bfloat16 on a GPU."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch
from whisper.model import Whisper
from whisper.tokenizer import Tokenizer

from whisper_serve.engines.base import EngineInfo
from whisper_serve.engines.decoder import ModelShape
from whisper_serve.engines.fallback import Candidate
from whisper_serve.engines.prompt import Prompt
from whisper_serve.engines.torch_whisper.alignment import align_tokens
from whisper_serve.engines.torch_whisper.decoding import PromptedDecoding
from whisper_serve.engines.word_times import Alignment
from whisper_serve.errors import EngineFailed

BYTES_PER_GIB = 2**30


class TorchBackend:
    """One model that several threads may call.

    Encoding runs side by side. What reads text runs one thread at a time: the decoding loop
    and the alignment hang hooks on the decoder that all threads share.
    """

    def __init__(self, model: Whisper, *, name: str, load_s: float) -> None:
        """`model`: from `load_model`, whose device and number type it keeps."""
        self._model: Whisper | None = model
        self._decoder_free = threading.Lock()
        self._device: torch.device = model.device
        self._dtype: torch.dtype = model.decoder.token_embedding.weight.dtype
        self.shape = ModelShape(
            n_mels=model.dims.n_mels,
            multilingual=model.is_multilingual,
            num_languages=model.num_languages,
        )
        self.info = EngineInfo(
            engine="torch",
            model=name,
            device=self._device.type,
            compute_type=str(self._dtype).removeprefix("torch."),
            multilingual=model.is_multilingual,
            load_s=load_s,
        )

    def encode(self, mel: torch.Tensor) -> torch.Tensor:
        """Shape (1, n_audio_ctx, n_audio_state), on the model's device in its type."""
        with torch.inference_mode():
            features = mel[None].to(self._device, self._dtype)
            encoded: torch.Tensor = self._loaded().embed_audio(features)
        return encoded

    def detect_language(self, encoded: torch.Tensor) -> tuple[str, float]:
        with self._decoder_free, torch.inference_mode():
            _, [probabilities] = self._loaded().detect_language(encoded)
        language = max(probabilities, key=probabilities.__getitem__)
        return language, probabilities[language]

    def generate(
        self,
        encoded: torch.Tensor,
        prompt: Prompt,
        tokenizer: Tokenizer,
        temperature: float,
        beam_size: int,
    ) -> Candidate:
        with self._decoder_free, torch.inference_mode():
            decoding = PromptedDecoding(self._loaded(), prompt, tokenizer, temperature, beam_size)
            [result] = decoding.run(encoded)
        return Candidate(
            tokens=tuple(result.tokens),
            text=result.text,
            avg_logprob=result.avg_logprob,
            no_speech_prob=result.no_speech_prob,
            temperature=temperature,
        )

    def align(
        self,
        encoded: torch.Tensor,
        tokenizer: Tokenizer,
        text_tokens: Sequence[int],
        num_frames: int,
    ) -> Alignment:
        with self._decoder_free, torch.inference_mode():
            return align_tokens(self._loaded(), encoded, tokenizer, text_tokens, num_frames)

    def gpu_memory_gib(self) -> float:
        if self._device.type != "cuda":
            return 0.0
        return torch.cuda.memory_allocated(self._device) / BYTES_PER_GIB

    def close(self) -> None:
        """Free the weights once the decode that is running is done."""
        with self._decoder_free:
            self._model = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _loaded(self) -> Whisper:
        if self._model is None:
            raise EngineFailed("the model is closed")
        return self._model
