"""Whisper's network, run over caches that hold many rows at different positions.

The weights are those of the loaded modules; only the order of the work is written here.
Source: `whisper/model.py` of openai-whisper, whose own decoder has one position for a whole
batch and keeps its caches in hooks on the modules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, scaled_dot_product_attention
from torch.nn.utils.rnn import pad_sequence
from whisper.model import AudioEncoder, MultiHeadAttention, ResidualAttentionBlock, TextDecoder

from whisper_serve.engines.torch_whisper.kv_cache import KeysValues, KeyValueCache

# Multiplications from which on oneDNN's larger overhead pays.
ONEDNN_WORK = 2**22


@dataclass(eq=False, slots=True)
class EncodedAudio:
    """What the encoder gave for one window: `features` have shape (frames, n_audio_state).

    `keys_values`: what the decoder's layers make of them, each shape (frames, n_text_state);
    kept by layer where computing it again costs more than memory.
    """

    features: Tensor
    keys_values: dict[int, KeysValues] = field(default_factory=dict)

    @property
    def frames(self) -> int:
        """Of 20 ms."""
        return len(self.features)


class AudioRows:
    """Encoded windows that are read side by side; the shorter ones are padded and masked."""

    def __init__(self, encoded: Sequence[EncodedAudio], *, keep: bool) -> None:
        """`keep`: let the windows keep their keys and values."""
        self._encoded = encoded
        features = [audio.features for audio in encoded]
        self._features = None if keep else padded(features)
        self.dtype = features[0].dtype
        self.mask: Tensor | None = None
        lengths = [audio.frames for audio in encoded]
        if len(set(lengths)) > 1:
            on_device = torch.tensor(lengths, device=features[0].device)
            self.mask = length_mask(on_device, max(lengths), self.dtype)

    def keys_values(self, layer: int, attention: MultiHeadAttention) -> KeysValues:
        """Shape (rows, heads, frames, head_dim)."""
        if self._features is not None:
            keys, values = _projected(self._features, attention)
        else:
            parts = [_kept(audio, layer, attention) for audio in self._encoded]
            keys, values = (padded(side) for side in zip(*parts, strict=True))
        return in_heads(keys, attention), in_heads(values, attention)


def _kept(audio: EncodedAudio, layer: int, attention: MultiHeadAttention) -> KeysValues:
    if layer not in audio.keys_values:
        audio.keys_values[layer] = _projected(audio.features, attention)
    return audio.keys_values[layer]


def _projected(features: Tensor, attention: MultiHeadAttention) -> KeysValues:
    return project(features, attention.key), project(features, attention.value)


class LayerRead(NamedTuple):
    """What a layer of the decoder computed while it read, shape (rows, heads, tokens or frames,
    head_dim)."""

    text: KeysValues
    audio_queries: Tensor
    audio: KeysValues


# Told of each layer, by its number.
Listener = Callable[[int, LayerRead], None]


class StepShape(NamedTuple):
    """The part of the cache that a step computes on: `rows` slots from `first` on, and the
    first `text` and `audio` positions of each. Without `masked`, every row uses all of them."""

    first: int
    rows: int
    text: int
    audio: int
    masked: bool = True

    @property
    def slots(self) -> slice:
        return slice(self.first, self.first + self.rows)


def encode(encoder: AudioEncoder, mel: Tensor) -> Tensor:
    """`mel`: shape (rows, n_mels, frames of 10 ms), at most 30 s of them; gives (rows, frames of
    20 ms, n_audio_state)."""
    x = gelu(encoder.conv1(mel))
    x = gelu(encoder.conv2(x)).permute(0, 2, 1)
    x = (x + encoder.positional_embedding[: x.shape[1]]).to(x.dtype)
    for block in encoder.blocks:
        inputs = block.attn_ln(x)
        keys, values = (in_heads(part, block.attn) for part in _projected(inputs, block.attn))
        x = x + attend(block.attn, queries_of(block.attn, inputs), (keys, values))
        x = x + feed_forward(block, x)
    encoded: Tensor = encoder.ln_post(x)
    return encoded


def read(decoder: TextDecoder, tokens: Tensor, audio: AudioRows, listener: Listener) -> Tensor:
    """Read whole texts from their first position: `tokens` of shape (rows, tokens) give
    (rows, tokens, n_text_state).

    Shorter rows are padded behind their end, where no token before looks.
    """
    x = decoder.token_embedding(tokens) + decoder.positional_embedding[: tokens.shape[1]]
    x = x.to(audio.dtype)
    for layer, block in enumerate(decoder.blocks):
        inputs = block.attn_ln(x)
        keys, values = (in_heads(part, block.attn) for part in _projected(inputs, block.attn))
        x = x + attend(block.attn, queries_of(block.attn, inputs), (keys, values), causal=True)
        queries = queries_of(block.cross_attn, block.cross_attn_ln(x))
        heard = audio.keys_values(layer, block.cross_attn)
        x = x + attend(block.cross_attn, queries, heard, audio.mask)
        x = x + feed_forward(block, x)
        listener(layer, LayerRead((keys, values), queries, heard))
    ended: Tensor = decoder.ln(x)
    return ended


def step(decoder: TextDecoder, cache: KeyValueCache, inputs: Tensor, shape: StepShape) -> Tensor:
    """Read one token in every row: logits, float32, shape (rows, vocab).

    `inputs`: int64, shape (3, rows): each row's token, its position, and its audio length. The
    keys and values of the tokens are put into the cache.
    """
    tokens, positions, audio_lengths = inputs
    dtype = cache.text_keys.dtype
    text_mask = length_mask(positions + 1, shape.text, dtype) if shape.masked else None
    audio_mask = length_mask(audio_lengths, shape.audio, dtype) if shape.masked else None
    # A row that must do no harm reads at the cache's spare position, where no text reaches.
    known = positions.clamp(max=len(decoder.positional_embedding) - 1)
    x = decoder.token_embedding(tokens) + decoder.positional_embedding[known]
    x = x[:, None].to(dtype)  # (rows, 1, n_text_state)
    for layer, block in enumerate(decoder.blocks):
        state = block.attn_ln(x)
        cache.append(layer, shape.slots, positions, _projected(state[:, 0], block.attn))
        told = cache.text(layer, shape.slots, shape.text)
        x = x + attend(block.attn, queries_of(block.attn, state), told, text_mask)
        queries = queries_of(block.cross_attn, block.cross_attn_ln(x))
        heard = cache.audio(layer, shape.slots, shape.audio)
        x = x + attend(block.cross_attn, queries, heard, audio_mask)
        x = x + feed_forward(block, x)
    return logits_of(decoder, decoder.ln(x[:, 0]))


def queries_of(attention: MultiHeadAttention, x: Tensor) -> Tensor:
    return in_heads(project(x, attention.query), attention)


def attend(
    attention: MultiHeadAttention,
    queries: Tensor,
    keys_values: KeysValues,
    mask: Tensor | None = None,
    *,
    causal: bool = False,
) -> Tensor:
    """What the queries find: (rows, heads, length, head_dim) to (rows, length, n_state)."""
    found = scaled_dot_product_attention(queries, *keys_values, attn_mask=mask, is_causal=causal)
    return project(found.transpose(1, 2).flatten(start_dim=2), attention.out)


def feed_forward(block: ResidualAttentionBlock, x: Tensor) -> Tensor:
    widen, _, narrow = block.mlp
    return project(gelu(project(block.mlp_ln(x), widen)), narrow)


def logits_of(decoder: TextDecoder, states: Tensor) -> Tensor:
    """float32, shape (..., vocab)."""
    return _linear(states, decoder.token_embedding.weight, None).float()


def project(x: Tensor, layer: nn.Linear) -> Tensor:
    return _linear(x, layer.weight, layer.bias)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """On a CPU, large ones by oneDNN: torch's own choice takes up to twice as long, most so for
    few rows and on AMD."""
    if x.device.type == "cpu" and x.dtype == torch.float32:
        work = x.numel() * len(weight)
        if work >= ONEDNN_WORK and torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
            return linear(x.to_mkldnn(), weight, bias).to_dense()
    return linear(x, weight, bias)


def in_heads(projected: Tensor, attention: MultiHeadAttention) -> Tensor:
    """(rows, length, n_state) to (rows, heads, length, head_dim)."""
    return projected.view(*projected.shape[:2], attention.n_head, -1).transpose(1, 2)


def padded(parts: Sequence[Tensor]) -> Tensor:
    """Tensors of shape (length, n) as one of shape (rows, longest, n), without a copy when
    there is one only."""
    if len(parts) == 1:
        return parts[0][None]
    return pad_sequence(list(parts), batch_first=True)


def length_mask(lengths: Tensor, longest: int, dtype: torch.dtype) -> Tensor:
    """What is added to the scores of each row: 0 within its length, -inf behind it; shape
    (rows, 1, 1, longest)."""
    behind = torch.arange(longest, device=lengths.device) >= lengths[:, None]
    mask = torch.zeros(behind.shape, dtype=dtype, device=lengths.device)
    return mask.masked_fill_(behind, float("-inf"))[:, None, None]
