"""CTranslate2's file of weights, read into tensors by name.

Layout: `ModelSpec._serialize` in `ctranslate2/specs/model_spec.py`. All numbers are little
endian: version, name and revision of the model's specification, the variables, the aliases.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

BINARY_VERSION = 6
SPEC_NAME = "WhisperSpec"
SPEC_REVISION = 3
# In the order of CTranslate2's type numbers.
DTYPES = (
    torch.float32,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.float16,
    torch.bfloat16,
)


def read_model_bin(path: Path) -> dict[str, torch.Tensor]:
    """CTranslate2's names and tensors; quantised ones are turned back into float32.

    Raises `ValueError`, `struct.error`, `LookupError` or `RuntimeError` for a broken file.
    """
    reader = _Reader(np.memmap(path, mode="r"))
    version = reader.number("I")
    name, revision = reader.string(), reader.number("I")
    if (version, name, revision) != (BINARY_VERSION, SPEC_NAME, SPEC_REVISION):
        raise ValueError(f"model.bin is version {version} of {name} {revision}")
    stored = {reader.string(): reader.tensor() for _ in range(reader.number("I"))}
    # Before the aliases: an alias has no scale of its own.
    variables = {name: _dequantized(name, stored) for name in stored}
    for _ in range(reader.number("I")):
        alias, name = reader.string(), reader.string()
        variables[alias] = variables[name]
    return variables


def _dequantized(name: str, stored: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """A quantised weight is `round(weight * scale)`, with one scale per row or for all."""
    tensor, scale = stored[name], stored.get(f"{name}_scale")
    if scale is None:
        return tensor
    return tensor.float() / scale.reshape(-1, *[1] * (tensor.dim() - 1))


class _Reader:
    """Takes the parts of the file from its front."""

    def __init__(self, data: npt.NDArray[np.uint8]) -> None:
        self._data = data
        self._position = 0

    def number(self, form: str) -> int:
        value: int
        (value,) = struct.unpack(f"<{form}", self._take(struct.calcsize(form)).tobytes())
        return value

    def string(self) -> str:
        return self._take(self.number("H")).tobytes().rstrip(b"\0").decode()

    def tensor(self) -> torch.Tensor:
        shape = [self.number("I") for _ in range(self.number("B"))]
        dtype = DTYPES[self.number("B")]
        # Copied, because names of any length push the numbers to odd addresses.
        content = self._take(self.number("I")).copy()
        return torch.from_numpy(content).view(dtype).reshape(shape)

    def _take(self, n_bytes: int) -> npt.NDArray[np.uint8]:
        taken = self._data[self._position : self._position + n_bytes]
        if len(taken) < n_bytes:
            raise ValueError("model.bin ends early")
        self._position += n_bytes
        return taken
