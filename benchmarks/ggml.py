"""Weights as whisper.cpp loads them.

Source: `models/convert-pt-to-ggml.py` of whisper.cpp, whose layout this writes: little endian
int32 unless said otherwise; matrices in float16, vectors and positions in float32.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
import whisper

from whisper_serve.engines.checkpoints import FIRST_MULTILINGUAL_VOCAB, Checkpoint

MAGIC = 0x67676D6C
FLOAT32, FLOAT16 = 0, 1
ASSETS = Path(whisper.__file__).parent / "assets"
# They are added to float32 and not multiplied.
POSITIONS = ("encoder.positional_embedding", "decoder.positional_embedding")
COLUMNS = ("encoder.conv1.bias", "encoder.conv2.bias")


def write_ggml(checkpoint: Checkpoint, path: Path) -> None:
    with path.open("wb") as file:
        _write_head(file, checkpoint)
        for name, tensor in checkpoint.tensors.items():
            _write_tensor(file, name, tensor)


def _write_head(file: BinaryIO, checkpoint: Checkpoint) -> None:
    dims = checkpoint.dims
    file.write(struct.pack("<i", MAGIC))
    audio = (dims.n_audio_ctx, dims.n_audio_state, dims.n_audio_head, dims.n_audio_layer)
    text = (dims.n_text_ctx, dims.n_text_state, dims.n_text_head, dims.n_text_layer)
    assert len(astuple(dims)) == len((dims.n_vocab, dims.n_mels, *audio, *text))
    file.write(struct.pack("<11i", dims.n_vocab, *audio, *text, dims.n_mels, FLOAT16))
    with np.load(ASSETS / "mel_filters.npz") as all_filters:
        filters = all_filters[f"mel_{dims.n_mels}"]
    file.write(struct.pack("<2i", *filters.shape))
    file.write(filters.astype("<f4").tobytes())
    tokens = list(_tokens(multilingual=dims.n_vocab >= FIRST_MULTILINGUAL_VOCAB))
    file.write(struct.pack("<i", len(tokens)))
    file.writelines(struct.pack("<i", len(token)) + token for token in tokens)


def _tokens(*, multilingual: bool) -> Iterator[bytes]:
    """In the order of their numbers; whisper.cpp knows the special ones by itself."""
    name = "multilingual" if multilingual else "gpt2"
    for line in (ASSETS / f"{name}.tiktoken").read_text(encoding="ascii").splitlines():
        yield base64.b64decode(line.split()[0])


def _write_tensor(file: BinaryIO, name: str, tensor: torch.Tensor) -> None:
    values = tensor.to(torch.float32).squeeze().numpy()
    if name in COLUMNS:
        values = values.reshape(-1, 1)
    kind = FLOAT32 if values.ndim == 1 or name in (*POSITIONS, *COLUMNS) else FLOAT16
    encoded = name.encode()
    file.write(struct.pack("<3i", values.ndim, len(encoded), kind))
    file.write(struct.pack(f"<{values.ndim}i", *reversed(values.shape)))
    file.write(encoded)
    file.write(values.astype("<f2" if kind == FLOAT16 else "<f4").tobytes())
