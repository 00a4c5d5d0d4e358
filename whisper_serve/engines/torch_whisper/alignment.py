"""Which encoder frames the cross-attention of a few chosen heads looks at for each token.

Source: `find_alignment` in `whisper/timing.py` of openai-whisper. Unlike there, the weights
are computed from the queries and keys of the chosen heads only: all layers keep their fast
attention, and `use_sdpa`, one switch for all models of the process, is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache

import numba
import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from whisper.model import Whisper
from whisper.timing import dtw_cpu, median_filter
from whisper.tokenizer import Tokenizer

from whisper_serve.engines.word_times import Alignment

MEDIAN_FILTER_WIDTH = 7

# What a projection gave last: shape (1, tokens or frames, n_text_state).
Outputs = dict[nn.Module, torch.Tensor]


def align_tokens(
    model: Whisper,
    encoded: torch.Tensor,
    tokenizer: Tokenizer,
    text_tokens: Sequence[int],
    num_frames: int,
) -> Alignment:
    """`encoded`: shape (1, n_audio_ctx, n_audio_state). `num_frames`: mel frames of 10 ms that
    hold audio. Nothing else may run the decoder meanwhile: the hooks here would see it."""
    start = len(tokenizer.sot_sequence)
    tokens = [*tokenizer.sot_sequence, tokenizer.no_timestamps, *text_tokens, tokenizer.eot]
    with recorded_projections(model) as outputs:
        logits = model.decoder(torch.tensor([tokens], device=encoded.device), encoded)[0]
    # A token's probability stands in the row of the token before it, and the first text
    # token follows <|notimestamps|>.
    probabilities = logits[start:-2, : tokenizer.eot].softmax(dim=-1)  # (text tokens, eot)
    of_tokens = probabilities[torch.arange(len(text_tokens)), list(text_tokens)]
    weights = attention_weights(model, outputs, num_frames // 2)
    token_indices, frame_indices = warp(-attention_map(weights)[start:-1])
    return Alignment(token_indices, frame_indices, of_tokens.cpu().numpy().astype(np.float32))


@contextmanager
def recorded_projections(model: Whisper) -> Iterator[Outputs]:
    """Keeps what the queries and keys of the alignment heads' layers give."""
    outputs: Outputs = {}

    def keep(projection: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        outputs[projection] = output

    with ExitStack() as hooks:
        for layer in {layer for layer, _ in alignment_heads(model)}:
            attention = model.decoder.blocks[layer].cross_attn
            hooks.enter_context(attention.query.register_forward_hook(keep))
            hooks.enter_context(attention.key.register_forward_hook(keep))
        yield outputs


def attention_weights(model: Whisper, outputs: Outputs, n_frames: int) -> torch.Tensor:
    """Shape (heads, tokens, n_frames), float32; each row sums to 1."""
    rows = []
    for layer, head in alignment_heads(model):
        attention = model.decoder.blocks[layer].cross_attn
        queries = head_of(outputs[attention.query], head, attention.n_head)
        keys = head_of(outputs[attention.key], head, attention.n_head)[:n_frames]
        rows.append((queries @ keys.T * queries.shape[-1] ** -0.5).softmax(dim=-1))
    return torch.stack(rows)


def attention_map(weights: torch.Tensor) -> torch.Tensor:
    """How much more a token looks at a frame than other tokens do: (tokens, frames)."""
    std, mean = torch.std_mean(weights, dim=-2, keepdim=True, unbiased=False)
    # With a single frame all tokens look at it alike, and 0 / 0 would derail the path.
    standardized = ((weights - mean) / std).nan_to_num()
    filtered: torch.Tensor = median_filter(standardized, MEDIAN_FILTER_WIDTH)
    return filtered.mean(dim=0)


def warp(costs: torch.Tensor) -> npt.NDArray[np.int64]:
    """The cheapest way through `costs`, (tokens, frames): indices of shape (2, path length)."""
    return compiled_dtw()(costs.double().cpu().numpy())


@lru_cache(maxsize=1)
def compiled_dtw() -> Callable[[npt.NDArray[np.float64]], npt.NDArray[np.int64]]:
    """Whisper's `dtw_cpu`, compiled for one thread. As Whisper compiles it, its first call
    resets the number of OpenMP threads that torch was told to use, and it keeps the GIL."""
    compiled: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.int64]]
    compiled = numba.jit(nopython=True, nogil=True)(dtw_cpu.py_func)
    return compiled


def head_of(projected: torch.Tensor, head: int, n_head: int) -> torch.Tensor:
    """One head's part of a projection, float32: (tokens or frames, n_text_state / n_head)."""
    return projected[0].view(len(projected[0]), n_head, -1)[:, head].float()


def alignment_heads(model: Whisper) -> list[tuple[int, int]]:
    """(layer, head) pairs in order."""
    return [(layer, head) for layer, head in model.alignment_heads.indices().T.tolist()]
