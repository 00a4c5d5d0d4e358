"""What the decoder has read, kept for its next step: keys and values of every row.

A slot holds one row. Both kinds of attention have a place of fixed size in it, of which a row
uses the beginning: one position for each token read, one for each frame of 20 ms encoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import torch
from whisper.model import ModelDimensions

# Kernels for masked attention want lengths that are multiples of this.
ALIGNMENT = 16
# Part of the free memory that is left to what the network computes.
HEADROOM = 0.3

KeysValues = tuple[torch.Tensor, torch.Tensor]


class KeyValueCache:
    """Keys and values by layer and slot. All four tensors start as zeros: what lies behind a
    row's end is masked, but must be finite.

    `text_keys`, `text_values`: shape (layers, slots, heads, n_text_ctx, head_dim).
    `audio_keys`, `audio_values`: shape (layers, slots, heads, n_audio_ctx, head_dim).
    Both contexts are rounded up to `ALIGNMENT`; the text has at least one position more than
    any text, `spare`, for rows that must do no harm.
    `text_lengths`, `audio_lengths`: positions in use, by slot.
    """

    def __init__(
        self, dims: ModelDimensions, slots: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        heads = dims.n_text_head
        text, audio = (
            (dims.n_text_layer, slots, heads, length, dims.n_text_state // heads)
            for length in positions(dims)
        )
        self.spare = dims.n_text_ctx
        self.text_keys = zeros(text, device, dtype)
        self.text_values = zeros(text, device, dtype)
        self.audio_keys = zeros(audio, device, dtype)
        self.audio_values = zeros(audio, device, dtype)
        self.text_lengths = [0] * slots
        self.audio_lengths = [0] * slots

    @property
    def slots(self) -> int:
        return len(self.text_lengths)

    def text(self, layer: int, slots: slice, length: int) -> KeysValues:
        """Shape (slots, heads, length, head_dim), not copied."""
        return self.text_keys[layer, slots, :, :length], self.text_values[layer, slots, :, :length]

    def audio(self, layer: int, slots: slice, length: int) -> KeysValues:
        """Shape (slots, heads, length, head_dim), not copied."""
        keys, values = self.audio_keys[layer, slots], self.audio_values[layer, slots]
        return keys[:, :, :length], values[:, :, :length]

    def append(self, layer: int, slots: slice, positions: torch.Tensor, new: KeysValues) -> None:
        """Put what a layer has read of one token in each of `slots`, at its position; `new` has
        shape (slots, n_text_state)."""
        rows = torch.arange(len(positions), device=positions.device)
        for kept, part in zip((self.text_keys, self.text_values), new, strict=True):
            heads, dim = kept.shape[2], kept.shape[4]
            kept[layer, slots][rows, :, positions] = part.view(-1, heads, dim)

    def fill(self, layer: int, slots: torch.Tensor, told: KeysValues, heard: KeysValues) -> None:
        """Put what a layer has read into `slots`: of the text and of the audio, each shape
        (len(slots), heads, length, head_dim)."""
        text, audio = slice(told[0].shape[2]), slice(heard[0].shape[2])
        self.text_keys[layer][slots, :, text] = told[0]
        self.text_values[layer][slots, :, text] = told[1]
        self.audio_keys[layer][slots, :, audio] = heard[0]
        self.audio_values[layer][slots, :, audio] = heard[1]

    def move(self, source: int, target: int) -> None:
        """Copy a row into the free slot `target`."""
        for tensor, length in (
            (self.text_keys, self.text_lengths[source]),
            (self.text_values, self.text_lengths[source]),
            (self.audio_keys, self.audio_lengths[source]),
            (self.audio_values, self.audio_lengths[source]),
        ):
            tensor[:, target, :, :length] = tensor[:, source, :, :length]
        self.text_lengths[target] = self.text_lengths[source]
        self.audio_lengths[target] = self.audio_lengths[source]

    def reorder(self, slots: Sequence[int], sources: Sequence[int]) -> None:
        """Let each of `slots` go on with what the slot in `sources` has read; all of them hear
        the same audio."""
        changed = [pair for pair in zip(slots, sources, strict=True) if pair[0] != pair[1]]
        if not changed:
            return
        targets, origins = (list(side) for side in zip(*changed, strict=True))
        lengths = [self.text_lengths[origin] for origin in origins]
        used = slice(max(lengths))
        for tensor in (self.text_keys, self.text_values):
            tensor[:, targets, :, used] = tensor[:, origins, :, used]
        for target, length in zip(targets, lengths, strict=True):
            self.text_lengths[target] = length

    def clear(self, slot: int) -> None:
        """Forget a row whose numbers overflowed; behind the end of a later row, they would
        spoil it even where they are masked."""
        for tensor in (self.text_keys, self.text_values, self.audio_keys, self.audio_values):
            tensor[:, slot].zero_()


def plan_slots(
    free_bytes: int, share: float, dims: ModelDimensions, element_size: int, maximum: int
) -> int:
    """How many slots fit into this engine's `share` of the memory that is free, 1 at least."""
    budget = free_bytes * min(share, 1.0) * (1.0 - HEADROOM)
    return max(1, min(maximum, int(budget // slot_bytes(dims, element_size))))


def slot_bytes(dims: ModelDimensions, element_size: int) -> int:
    """Memory that one row takes, whatever its length."""
    size: int = 2 * dims.n_text_layer * sum(positions(dims)) * dims.n_text_state * element_size
    return size


def positions(dims: ModelDimensions) -> tuple[int, int]:
    """Of text and audio in a slot."""
    return aligned(dims.n_text_ctx + 1), aligned(dims.n_audio_ctx)


def aligned(length: int) -> int:
    return -(-length // ALIGNMENT) * ALIGNMENT


def zeros(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """On a CPU, memory that is taken only as it is written to; torch's own zeros take it all
    at once."""
    if device.type != "cpu" or 0 in shape:
        return torch.zeros(shape, device=device, dtype=dtype)
    untouched = np.zeros(prod(shape) * dtype.itemsize, np.uint8)
    return torch.from_numpy(untouched).view(dtype).view(shape)
