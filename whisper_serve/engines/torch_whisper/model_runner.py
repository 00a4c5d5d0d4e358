"""The network as the engine calls it: each call computes one thing for many rows.

Policy is elsewhere: which rows come together, what they say next, and when they are done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from whisper.audio import HOP_LENGTH, log_mel_spectrogram, pad_or_trim
from whisper.model import Whisper
from whisper.tokenizer import Tokenizer, get_tokenizer

from whisper_serve.engines.base import Samples
from whisper_serve.engines.shape import ModelShape
from whisper_serve.engines.steps import Align
from whisper_serve.engines.torch_whisper import network
from whisper_serve.engines.torch_whisper.alignment import AlignmentScores, attention_map, warp
from whisper_serve.engines.torch_whisper.kv_cache import KeyValueCache, plan_slots
from whisper_serve.engines.torch_whisper.logit_rules import LogitRules
from whisper_serve.engines.torch_whisper.network import (
    AudioRows,
    EncodedAudio,
    LayerRead,
    Listener,
    StepShape,
)
from whisper_serve.engines.torch_whisper.step_graphs import StepGraphs
from whisper_serve.engines.word_times import Alignment

BYTES_PER_GIB = 2**30
# More rows than these make a step longer without making it worth more.
MAX_SLOTS_CPU = 16
MAX_SLOTS_GPU = 64


@dataclass(frozen=True, slots=True)
class Prefill:
    """A sequence that begins: its rows, in `slots`, have read `tokens` and nothing else.

    `start_index`: where <|startoftranscript|> stands in `tokens`.
    """

    encoded: EncodedAudio
    tokens: Sequence[int]
    start_index: int
    slots: Sequence[int]


@dataclass(frozen=True, slots=True)
class Prefilled:
    """`logits`: of the token behind each prompt, float32, shape (prompts, vocab)."""

    logits: torch.Tensor
    no_speech_probs: list[float]


class ModelRunner:
    """One loaded model and its cache; for one thread. Calls may raise `torch.OutOfMemoryError`
    and can be repeated then."""

    def __init__(self, model: Whisper, *, slots: int, name: str = "") -> None:
        """`model`: from `load_model`, whose device and number type it keeps."""
        self._model = model
        self.device: torch.device = model.device
        self.dtype: torch.dtype = model.decoder.token_embedding.weight.dtype
        self.n_text_ctx: int = model.dims.n_text_ctx
        self.shape = ModelShape(
            n_mels=model.dims.n_mels,
            multilingual=model.is_multilingual,
            num_languages=model.num_languages,
            name=name,
        )
        self._tokenizer: Tokenizer = get_tokenizer(
            model.is_multilingual, num_languages=model.num_languages
        )
        self.rules = LogitRules(self._tokenizer, model.dims.n_vocab, model.dims.n_audio_ctx)
        self.resize(slots)

    @property
    def slots(self) -> int:
        return self.cache.slots

    def resize(self, slots: int) -> None:
        """Begin with an empty cache; what was in it is gone."""
        # The old one is dropped first: there may be no memory for both.
        self._graphs: StepGraphs | None = None
        self.cache = self._cache_of(0)
        self.free_memory()
        self.cache = self._cache_of(slots)
        if self.device.type == "cuda":
            self._graphs = StepGraphs(self._step, self.cache, self.device)

    def warm_up(self) -> None:
        """Record the steps on a GPU, which takes seconds; else the first rows wait for it."""
        if self._graphs is not None:
            self._graphs.record_all()

    @torch.inference_mode()
    def encode(self, windows: Sequence[Samples], frames: int) -> list[EncodedAudio]:
        """Each window, padded with silence to `frames` mel frames of 10 ms, an even number."""
        mel = torch.stack([self._mel(samples, frames) for samples in windows])
        encoded = network.encode(self._model.encoder, mel.to(self.dtype))
        # Of its own memory, so that a window keeps no other one's.
        return [EncodedAudio(features.clone()) for features in encoded]

    @torch.inference_mode()
    def detect_language(self, encoded: Sequence[EncodedAudio]) -> list[tuple[str, float]]:
        """The likeliest language code and its probability; multilingual models only."""
        start = [[self._tokenizer.sot]] * len(encoded)
        logits = self._logits(self._read(start, encoded, lambda *_: None)[:, 0])
        languages = logits[:, list(self._tokenizer.all_language_tokens)].softmax(dim=-1)
        best, numbers = languages.max(dim=-1)
        codes = [self._tokenizer.all_language_codes[number] for number in numbers.tolist()]
        return list(zip(codes, best.tolist(), strict=True))

    @torch.inference_mode()
    def prefill(self, prompts: Sequence[Prefill]) -> Prefilled:
        """Read the prompts and put what was read into the cache, for every slot."""
        tokens = [prompt.tokens for prompt in prompts]
        states = self._read(
            tokens, [prompt.encoded for prompt in prompts], self._cache_writer(prompts)
        )
        for prompt in prompts:
            for slot in prompt.slots:
                self.cache.text_lengths[slot] = len(prompt.tokens)
                self.cache.audio_lengths[slot] = prompt.encoded.frames
        rows = range(len(prompts))
        at_start = states[rows, [prompt.start_index for prompt in prompts]]
        at_end = states[rows, [len(prompt.tokens) - 1 for prompt in prompts]]
        no_speech = self._logits(at_start).softmax(dim=-1)[:, self._tokenizer.no_speech]
        return Prefilled(self._logits(at_end), no_speech.tolist())

    @torch.inference_mode()
    def step(self, tokens: Sequence[int], positions: Sequence[int], first: int = 0) -> torch.Tensor:
        """Read the next token of the rows in the slots from `first` on: logits, float32, shape
        (rows, vocab), which may be written to until the next step. A step can be repeated."""
        slots = range(first, first + len(tokens))
        audio_lengths = [self.cache.audio_lengths[slot] for slot in slots]
        inputs = torch.tensor([tokens, positions, audio_lengths])
        if self._graphs is not None and first == 0:
            logits = self._graphs(inputs)
        else:
            logits = self._step(inputs.to(self.device), exact_shape(inputs, first))
        for slot, position in zip(slots, positions, strict=True):
            self.cache.text_lengths[slot] = position + 1
        return logits

    @torch.inference_mode()
    def align(self, steps: Sequence[Align]) -> list[Alignment]:
        """Where in the audio each token of the known texts is spoken."""
        texts = [aligned_text(step) for step in steps]
        scores = AlignmentScores(self._model)
        states = self._read(texts, [step.encoded for step in steps], scores.seen)
        return [
            self._alignment(step, states[row], scores.weights(row, len(text), step.num_frames // 2))
            for row, (step, text) in enumerate(zip(steps, texts, strict=True))
        ]

    def free_memory(self) -> None:
        """Give back what torch keeps for later."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def memory_gib(self) -> float:
        """GPU memory in use."""
        if self.device.type != "cuda":
            return 0.0
        return torch.cuda.memory_allocated(self.device) / BYTES_PER_GIB

    def _cache_of(self, slots: int) -> KeyValueCache:
        return KeyValueCache(self._model.dims, slots, self.device, self.dtype)

    def _mel(self, samples: Samples, frames: int) -> torch.Tensor:
        """float32, shape (n_mels, frames)."""
        audio = torch.from_numpy(samples.astype(np.float32) / 32768.0).to(self.device)
        whole = pad_or_trim(audio, frames * HOP_LENGTH)
        mel: torch.Tensor = log_mel_spectrogram(whole, self.shape.n_mels)
        return mel

    def _read(
        self, texts: Sequence[Sequence[int]], encoded: Sequence[EncodedAudio], listener: Listener
    ) -> torch.Tensor:
        """Shape (rows, longest text, n_text_state)."""
        tokens = [torch.tensor(text) for text in texts]
        rows = pad_sequence(tokens, batch_first=True).to(self.device)
        # Projecting audio takes a CPU as long as a tenth of encoding it.
        audio = AudioRows(encoded, keep=self.device.type == "cpu")
        return network.read(self._model.decoder, rows, audio, listener)

    def _cache_writer(self, prompts: Sequence[Prefill]) -> Listener:
        """Puts what each prompt's row has read into all of its slots."""
        pairs = [(row, slot) for row, prompt in enumerate(prompts) for slot in prompt.slots]
        owners, slots = torch.tensor(pairs, device=self.device).T

        def fill(layer: int, read: LayerRead) -> None:
            if len(pairs) == len(prompts):
                self.cache.fill(layer, slots, read.text, read.audio)
            else:
                text = read.text[0][owners], read.text[1][owners]
                audio = read.audio[0][owners], read.audio[1][owners]
                self.cache.fill(layer, slots, text, audio)

        return fill

    def _step(self, inputs: torch.Tensor, shape: StepShape) -> torch.Tensor:
        return network.step(self._model.decoder, self.cache, inputs, shape)

    def _logits(self, states: torch.Tensor) -> torch.Tensor:
        return network.logits_of(self._model.decoder, states)

    def _alignment(self, step: Align, states: torch.Tensor, weights: torch.Tensor) -> Alignment:
        """`states`: shape (tokens, n_text_state), `weights`: (heads, tokens, frames)."""
        tokenizer, text = step.tokenizer, step.text_tokens
        start = len(tokenizer.sot_sequence)
        # A token's probability stands in the row of the token before it, and the first text
        # token follows <|notimestamps|>.
        logits = self._logits(states[start : start + len(text)])[:, : tokenizer.eot]
        probabilities = logits.softmax(dim=-1)[range(len(text)), text]
        token_indices, frame_indices = warp(-attention_map(weights)[start:-1])
        return Alignment(
            token_indices, frame_indices, probabilities.cpu().numpy().astype(np.float32)
        )


def exact_shape(inputs: torch.Tensor, first: int) -> StepShape:
    """No position more than the longest row has."""
    _, positions, audio_lengths = inputs
    text, audio = int(positions.max()) + 1, int(audio_lengths.max())
    masked = bool((positions < text - 1).any() or (audio_lengths < audio).any())
    return StepShape(first, inputs.shape[1], text, audio, masked)


def aligned_text(step: Align) -> list[int]:
    tokenizer = step.tokenizer
    return [
        *tokenizer.sot_sequence,
        tokenizer.no_timestamps,
        *step.text_tokens,
        tokenizer.eot,
    ]


def planned_slots(model: Whisper, share: float, maximum: int | None = None) -> int:
    """As many rows as are worth it and, on a GPU of which this engine has `share`, as its free
    memory holds now."""
    if model.device.type != "cuda":
        return maximum or MAX_SLOTS_CPU
    free_bytes, _ = torch.cuda.mem_get_info(model.device)
    element_size = model.decoder.token_embedding.weight.element_size()
    return plan_slots(free_bytes, share, model.dims, element_size, maximum or MAX_SLOTS_GPU)
