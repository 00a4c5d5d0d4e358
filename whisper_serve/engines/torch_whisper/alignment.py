"""Which encoder frames the cross-attention of a few chosen heads looks at for each token.

Source: `find_alignment` in `whisper/timing.py` of openai-whisper. Unlike there, the weights
are computed from the queries and keys of the chosen heads only: all layers keep their fast
attention, and `use_sdpa`, one switch for all models of the process, is left alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numba
import numpy as np
import numpy.typing as npt
import torch
from whisper.model import Whisper
from whisper.timing import dtw_cpu, median_filter

from whisper_serve.engines.torch_whisper.network import LayerRead

MEDIAN_FILTER_WIDTH = 7


class AlignmentScores:
    """Listens to a read of the decoder: how much the chosen heads of each row are drawn to each
    frame by each token."""

    def __init__(self, model: Whisper) -> None:
        heads = alignment_heads(model)
        self._heads = {layer: [h for at, h in heads if at == layer] for layer, _ in heads}
        self._scores: list[torch.Tensor] = []

    def seen(self, layer: int, read: LayerRead) -> None:
        if heads := self._heads.get(layer):
            queries = read.audio_queries[:, heads].float()
            keys = read.audio[0][:, heads].float()
            scale = queries.shape[-1] ** -0.5
            self._scores.append(queries @ keys.transpose(-1, -2) * scale)

    def weights(self, row: int, n_tokens: int, n_frames: int) -> torch.Tensor:
        """Shape (heads, n_tokens, n_frames), float32; each token's weights sum to 1."""
        of_row = torch.cat([scores[row, :, :n_tokens, :n_frames] for scores in self._scores])
        return of_row.softmax(dim=-1)


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


def alignment_heads(model: Whisper) -> list[tuple[int, int]]:
    """(layer, head) pairs in order."""
    return [(layer, head) for layer, head in model.alignment_heads.indices().T.tolist()]
