"""What CTranslate2 writes is read back, whatever its types, and half of it is refused."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import torch
from ctranslate2.specs.common_spec import LinearSpec
from ctranslate2.specs.model_spec import CURRENT_BINARY_VERSION, ModelSpec
from hypothesis import given
from hypothesis import strategies as st

from whisper_serve.engines.model_bin import BINARY_VERSION, DTYPES, read_model_bin

BROKEN = (ValueError, struct.error, LookupError, RuntimeError)


class Spec(ModelSpec):  # type: ignore[misc]
    """A model of a few tensors, written by CTranslate2's own code."""

    name = "WhisperSpec"
    revision = 3

    def __init__(self, tensors: dict[str, torch.Tensor], **linears: torch.Tensor) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            setattr(self, name, tensor.clone())
        for name, weight in linears.items():
            layer = LinearSpec()
            layer.weight = weight.clone()
            setattr(self, name, layer)

    def write(self, path: Path, quantization: str | None = None) -> Path:
        self.validate()
        self.optimize(quantization)
        self._serialize(path)
        return path


def random_weight() -> torch.Tensor:
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(1))


def test_the_version_is_the_one_that_ctranslate2_writes() -> None:
    assert BINARY_VERSION == CURRENT_BINARY_VERSION


shapes = st.lists(st.integers(1, 4), max_size=3).map(tuple)
tensors = st.builds(
    lambda shape, dtype: torch.arange(torch.Size(shape).numel()).reshape(shape).to(dtype),
    shapes,
    st.sampled_from(DTYPES),
)


@given(named=st.dictionaries(st.sampled_from(["a", "bc", "def", "long_name"]), tensors))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, named: dict[str, torch.Tensor]
) -> None:
    path = tmp_path_factory.mktemp("spec") / "model.bin"
    read = read_model_bin(Spec(named).write(path))

    assert read.keys() == named.keys()
    for name, tensor in named.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)


def test_equal_tensors_are_stored_once_and_read_twice(tmp_path: Path) -> None:
    weight = random_weight()
    path = Spec({}, first=weight, second=weight).write(tmp_path / "model.bin")

    read = read_model_bin(path)

    assert path.stat().st_size < 2 * weight.nbytes
    assert torch.equal(read["first/weight"], weight)
    assert torch.equal(read["second/weight"], weight)


@pytest.mark.parametrize(("quantization", "steps"), [("int8", 127), ("int16", 1024)])
def test_quantised_weights_come_back_within_half_a_step(
    tmp_path: Path, quantization: str, steps: int
) -> None:
    weight = random_weight()
    path = Spec({}, only=weight).write(tmp_path / "model.bin", quantization)

    read = read_model_bin(path)["only/weight"]

    assert read.dtype == torch.float32
    assert (read - weight).abs().max() <= weight.abs().max() / steps / 2 + 1e-6


def test_an_alias_of_a_quantised_weight_is_not_quantised_either(tmp_path: Path) -> None:
    weight = random_weight()
    path = Spec({}, first=weight, second=weight).write(tmp_path / "model.bin", "int8")

    read = read_model_bin(path)

    assert torch.equal(read["first/weight"], read["second/weight"])
    assert read["second/weight"].dtype == torch.float32


@given(data=st.data())
def test_a_file_cut_anywhere_is_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("cut") / "model.bin"
    whole = Spec({"a": torch.ones(3)}, b=random_weight()).write(path).read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])

    with pytest.raises(BROKEN):
        read_model_bin(path)


@given(content=st.binary(max_size=200))
def test_anything_else_is_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("else") / "model.bin"
    path.write_bytes(content)

    with pytest.raises(BROKEN):
        read_model_bin(path)


def test_another_kind_of_model_is_refused_by_its_name(tmp_path: Path) -> None:
    spec = Spec({"a": torch.ones(3)})
    path = spec.write(tmp_path / "model.bin")
    path.write_bytes(path.read_bytes().replace(b"WhisperSpec", b"RoBERTaSpec"))

    with pytest.raises(ValueError, match="RoBERTaSpec"):
        read_model_bin(path)
