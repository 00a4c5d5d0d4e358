from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.engines.torch_whisper.networks import NOISE_HEADS, SMALL, noise_of
from whisper_serve.engines.checkpoints import Checkpoint
from whisper_serve.engines.torch_whisper.alignment import alignment_heads
from whisper_serve.engines.torch_whisper.model import load_model
from whisper_serve.errors import ConfigError, WeightsError


@pytest.fixture(scope="module")
def noise_weights() -> Checkpoint:
    return noise_of(SMALL)


def test_the_network_holds_the_tensors_of_the_checkpoint(noise_weights: Checkpoint) -> None:
    held = load_model(noise_weights, "cpu", "auto").state_dict()
    assert held.keys() == noise_weights.tensors.keys()
    assert all(torch.equal(held[name], noise_weights.tensors[name]) for name in held)


def test_a_cpu_computes_in_float32_unless_told_otherwise(noise_weights: Checkpoint) -> None:
    model = load_model(noise_weights, "cpu", "auto")
    assert model.device == torch.device("cpu")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_an_unknown_compute_type_is_a_fault_of_the_configuration(noise_weights: Checkpoint) -> None:
    with pytest.raises(ConfigError, match="float32, float16, bfloat16") as caught:
        load_model(noise_weights, "cpu", "int8")
    assert caught.value.problems[0].key == "model.compute_type"


@pytest.mark.parametrize("device", ["cuda:63", "abacus"])
def test_a_device_that_is_not_there_is_a_fault_of_the_configuration(
    noise_weights: Checkpoint, device: str
) -> None:
    with pytest.raises(ConfigError, match=device) as caught:
        load_model(noise_weights, device, "auto")
    assert caught.value.problems[0].key == "model.device"


def test_tensors_of_other_dimensions_are_refused(noise_weights: Checkpoint) -> None:
    larger = replace(SMALL, n_text_state=32)
    with pytest.raises(WeightsError, match="decoder"):
        load_model(replace(noise_weights, dims=larger), "cpu", "auto")


def test_words_are_aligned_by_the_heads_that_the_checkpoint_names(
    noise_weights: Checkpoint,
) -> None:
    assert alignment_heads(load_model(noise_weights, "cpu", "auto")) == list(NOISE_HEADS)


def test_a_network_can_keep_the_tensors_of_the_checkpoint(noise_weights: Checkpoint) -> None:
    held = load_model(noise_weights, "cpu", "auto", keep_tensors=True).state_dict()
    assert held.keys() == noise_weights.tensors.keys()
    assert {name: each.data_ptr() for name, each in held.items()} == {
        name: each.data_ptr() for name, each in noise_weights.tensors.items()
    }


def test_it_has_copies_unless_told_otherwise(noise_weights: Checkpoint) -> None:
    held = load_model(noise_weights, "cpu", "auto").state_dict()
    places = {each.data_ptr() for each in noise_weights.tensors.values()}
    assert places.isdisjoint(each.data_ptr() for each in held.values())


@pytest.mark.parametrize("compute_type", ["float32", "bfloat16"])
def test_tensors_of_another_type_are_converted_even_if_kept(
    noise_weights: Checkpoint, compute_type: str
) -> None:
    halves = {name: each.half() for name, each in noise_weights.tensors.items()}
    checkpoint = replace(noise_weights, tensors=halves)
    kept = load_model(checkpoint, "cpu", compute_type, keep_tensors=True).state_dict()
    copied = load_model(checkpoint, "cpu", compute_type).state_dict()
    assert {name: each.dtype for name, each in kept.items()} == {
        name: each.dtype for name, each in copied.items()
    }
    assert all(torch.equal(kept[name], copied[name]) for name in kept)


def test_no_numbers_are_drawn_for_a_network_that_is_loaded(noise_weights: Checkpoint) -> None:
    before = torch.get_rng_state()
    load_model(noise_weights, "cpu", "auto")
    assert torch.equal(torch.get_rng_state(), before)


def test_the_networks_of_others_begin_at_random(noise_weights: Checkpoint) -> None:
    load_model(noise_weights, "cpu", "auto")
    assert torch.nn.Linear(8, 8).weight.std() > 0
