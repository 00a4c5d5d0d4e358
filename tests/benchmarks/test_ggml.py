from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from whisper.model import ModelDimensions, Whisper

from benchmarks.ggml import FLOAT16, FLOAT32, MAGIC, write_ggml
from whisper_serve.engines.checkpoints import Checkpoint

DIMS = ModelDimensions(
    n_mels=80,
    n_audio_ctx=6,
    n_audio_state=4,
    n_audio_head=2,
    n_audio_layer=1,
    n_vocab=7,
    n_text_ctx=5,
    n_text_state=4,
    n_text_head=2,
    n_text_layer=1,
)


@pytest.fixture
def checkpoint() -> Checkpoint:
    return Checkpoint(DIMS, Whisper(DIMS).state_dict(), ())


@pytest.fixture
def written(checkpoint: Checkpoint, tmp_path: Path) -> io.BytesIO:
    path = tmp_path / "model.bin"
    write_ggml(checkpoint, path)
    return io.BytesIO(path.read_bytes())


def integers(file: io.BytesIO, count: int) -> tuple[int, ...]:
    return struct.unpack(f"<{count}i", file.read(4 * count))


def skip_head(file: io.BytesIO) -> list[bytes]:
    """Returns the tokens."""
    integers(file, 12)
    rows, columns = integers(file, 2)
    file.read(4 * rows * columns)
    (count,) = integers(file, 1)
    return [file.read(*integers(file, 1)) for _ in range(count)]


def tensors(file: io.BytesIO) -> Iterator[tuple[str, int, npt.NDArray[np.float32]]]:
    while header := file.read(12):
        n_dims, n_name, kind = struct.unpack("<3i", header)
        shape = integers(file, n_dims)[::-1]
        name = file.read(n_name).decode()
        dtype = np.dtype("<f2" if kind == FLOAT16 else "<f4")
        values = np.frombuffer(file.read(dtype.itemsize * int(np.prod(shape))), dtype)
        yield name, kind, values.reshape(shape).astype(np.float32)


def test_the_head_tells_the_dimensions(written: io.BytesIO) -> None:
    assert integers(written, 12) == (MAGIC, 7, 6, 4, 2, 1, 5, 4, 2, 1, 80, FLOAT16)
    assert integers(written, 2) == (80, 201)  # the filters of the spectrogram


def test_the_tokens_are_bytes_in_the_order_of_their_numbers(written: io.BytesIO) -> None:
    tokens = skip_head(written)
    assert (tokens[0], tokens[262], len(tokens)) == (b"!", b" the", 50_256)


def test_every_tensor_is_there_with_its_values(written: io.BytesIO, checkpoint: Checkpoint) -> None:
    skip_head(written)
    found = {name: values for name, _, values in tensors(written)}
    assert found.keys() == checkpoint.tensors.keys()
    for name, values in found.items():
        expected = checkpoint.tensors[name].to(torch.float32).numpy().reshape(values.shape)
        assert np.allclose(values, expected, rtol=1e-3, atol=1e-6), name


def test_only_matrices_are_halved(written: io.BytesIO) -> None:
    skip_head(written)
    kinds = {name: (kind, values.shape) for name, kind, values in tensors(written)}
    assert kinds["decoder.token_embedding.weight"] == (FLOAT16, (7, 4))
    assert kinds["decoder.positional_embedding"] == (FLOAT32, (5, 4))
    assert kinds["encoder.conv1.bias"] == (FLOAT32, (4, 1))
    assert kinds["decoder.ln.weight"] == (FLOAT32, (4,))
