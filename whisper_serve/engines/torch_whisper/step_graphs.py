"""One decode step, recorded once for each of a few shapes and played back on the GPU.

A step launches some thousand small kernels, which takes a CPU longer than the GPU needs to run
them. A CUDA graph launches them all at once, but is bound to the memory and the shapes that it
was recorded with: so rows and lengths are rounded up, and what is too much is masked.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any

import torch

from whisper_serve.engines.torch_whisper.kv_cache import KeyValueCache, aligned
from whisper_serve.engines.torch_whisper.network import StepShape

# Gives the logits of a step, shape (rows, vocab), for inputs of shape (3, rows).
ComputeStep = Callable[[torch.Tensor, StepShape], torch.Tensor]

logger = logging.getLogger(__name__)


class FixedStep:
    """A step of one shape over fixed buffers. Rows that are too many do no harm to the rows in
    their slots: they read into the `spare` position."""

    def __init__(
        self, compute: ComputeStep, shape: StepShape, spare: int, device: torch.device
    ) -> None:
        self._compute = compute
        self._shape = shape
        self._idle = torch.tensor([[0], [spare], [1]]).repeat(1, shape.rows)
        self._inputs = self._idle.to(device)
        self._logits = torch.empty(0)
        self._play: Callable[[], None] = self.compute

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """Logits, shape (rows, vocab), which the next call overwrites. `inputs`: on the CPU,
        shape (3, rows) with at most the rows of the shape."""
        rows = inputs.shape[1]
        self._inputs.copy_(torch.cat([inputs, self._idle[:, rows:]], dim=1))
        self._play()
        return self._logits[:rows]

    def compute(self) -> None:
        self._logits = self._compute(self._inputs, self._shape)

    def record(self, pool: Any) -> None:
        """From now on, play back. `pool`: memory that all graphs share, as one runs at a time.
        What cannot be recorded is computed each time, as before."""
        # Once before, so that libraries take their own memory outside the graph.
        self.compute()
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads may use the GPU meanwhile.
            with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                self.compute()
        except RuntimeError:
            logger.exception("a step of %s was not recorded", self._shape)
        else:
            self._play = graph.replay


class StepGraphs:
    """The recorded steps over one cache, each recorded when it is first needed."""

    def __init__(self, compute: ComputeStep, cache: KeyValueCache, device: torch.device) -> None:
        self._compute = compute
        self._device = device
        self._spare = cache.spare
        self._rows = row_buckets(cache.slots)
        self._text = length_buckets(aligned(cache.spare), 2)
        self._audio = length_buckets(cache.audio_keys.shape[3], 3)
        self._steps: dict[StepShape, FixedStep] = {}
        self._pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """Logits, shape (rows, vocab), which the next call overwrites; the rows are in the
        first slots. `inputs`: int64 on the CPU, shape (3, rows)."""
        _, positions, audio_lengths = inputs
        shape = StepShape(
            first=0,
            rows=at_least(self._rows, inputs.shape[1]),
            text=at_least(self._text, int(positions.max()) + 1),
            audio=at_least(self._audio, int(audio_lengths.max())),
        )
        return self._step(shape)(inputs)

    @torch.inference_mode()
    def record_all(self) -> None:
        """So that nobody waits for a recording later."""
        for rows in self._rows:
            for text in self._text:
                for audio in self._audio:
                    self._step(StepShape(0, rows, text, audio))

    def _step(self, shape: StepShape) -> FixedStep:
        if shape not in self._steps:
            step = FixedStep(self._compute, shape, self._spare, self._device)
            if self._pool is not None:
                step.record(self._pool)
            self._steps[shape] = step
        return self._steps[shape]


def row_buckets(slots: int) -> list[int]:
    """1, 2, 4, 8, and from there on in eights, less and less densely."""
    buckets = [1, 2, 4, *range(8, 64, 8), *range(64, slots, 32)]
    return [*(rows for rows in buckets if rows < slots), slots]


def length_buckets(longest: int, parts: int) -> list[int]:
    return [min(longest, aligned(longest * part // parts)) for part in range(1, parts + 1)]


def at_least(buckets: Sequence[int], wanted: int) -> int:
    return buckets[bisect_left(buckets, wanted)]
