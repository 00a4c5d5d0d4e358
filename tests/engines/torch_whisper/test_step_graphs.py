from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from whisper.model import Whisper

from tests.engines.torch_whisper.networks import SMALL, noise_model, one_thread, sound
from whisper_serve.engines.torch_whisper import network
from whisper_serve.engines.torch_whisper.model_runner import ModelRunner, Prefill
from whisper_serve.engines.torch_whisper.network import StepShape
from whisper_serve.engines.torch_whisper.step_graphs import (
    FixedStep,
    StepGraphs,
    at_least,
    length_buckets,
    row_buckets,
)

CPU = torch.device("cpu")
PROMPTS = ([50_258, 50_259, 50_359], [50_361, 7, 8, 9, 50_258, 50_259, 50_359])


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def model() -> Whisper:
    return noise_model()


def begun(model: Whisper) -> ModelRunner:
    """Two rows of unlike lengths in the first two of five slots, and one in the fourth."""
    runner = ModelRunner(model, slots=5)
    [long] = runner.encode([sound(1)], 3000)
    [short] = runner.encode([sound(2, 32_000)], 400)
    pairs = ((long, PROMPTS[0], 0), (short, PROMPTS[1], 1), (long, PROMPTS[1], 3))
    runner.prefill([Prefill(audio, text, 0, [slot]) for audio, text, slot in pairs])
    return runner


def graphs_of(runner: ModelRunner, model: Whisper) -> StepGraphs:
    def compute(inputs: torch.Tensor, shape: StepShape) -> torch.Tensor:
        return network.step(model.decoder, runner.cache, inputs, shape)

    return StepGraphs(compute, runner.cache, CPU)


def inputs_of(runner: ModelRunner, tokens: list[int], positions: list[int]) -> torch.Tensor:
    return torch.tensor([tokens, positions, runner.cache.audio_lengths[: len(tokens)]])


@torch.inference_mode()
def test_steps_of_fixed_shapes_give_what_steps_of_exact_shapes_give(model: Whisper) -> None:
    exact, fixed = begun(model), begun(model)
    graphs = graphs_of(fixed, model)
    for number in range(4):
        tokens, positions = [400 + number, 500 + number], [3 + number, 7 + number]
        expected = exact.step(tokens, positions)
        found = graphs(inputs_of(fixed, tokens, positions))
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_fewer_rows_than_before_fit_the_same_buffers(model: Whisper) -> None:
    exact, fixed = begun(model), begun(model)
    shape = StepShape(first=0, rows=4, text=96, audio=1504)

    def compute(inputs: torch.Tensor, shape: StepShape) -> torch.Tensor:
        return network.step(model.decoder, fixed.cache, inputs, shape)

    step = FixedStep(compute, shape, fixed.cache.spare, CPU)
    assert len(step(inputs_of(fixed, [400, 500], [3, 7]))) == 2
    found = step(inputs_of(fixed, [401], [4]))
    exact.step([400, 500], [3, 7])
    torch.testing.assert_close(found, exact.step([401], [4]), atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_rows_that_are_too_many_harm_nobody_in_their_slots(model: Whisper) -> None:
    """As when some of several rows are tried alone, or a shape is recorded while rows run."""
    runner = begun(model)
    runner.cache.audio_lengths[2] = 1
    texts = runner.cache.text_keys[:, :, :, : SMALL.n_text_ctx].clone()
    logits = graphs_of(runner, model)(inputs_of(runner, [400, 500, 600], [3, 7, 0]))
    changed = (runner.cache.text_keys[:, :, :, : SMALL.n_text_ctx] != texts).any(dim=(0, 2, 4))
    assert len(logits) == 3
    assert changed.nonzero().tolist() == [[0, 3], [1, 7], [2, 0]]


@given(slots=st.integers(1, 300), data=st.data())
def test_every_number_of_rows_has_a_bucket_that_is_not_much_larger(
    slots: int, data: st.DataObject
) -> None:
    rows = data.draw(st.integers(1, slots))
    bucket = at_least(row_buckets(slots), rows)
    assert rows <= bucket <= slots
    assert bucket < 2 * rows or bucket <= rows + 8


@given(longest=st.integers(16, 2_000), parts=st.integers(1, 5), data=st.data())
def test_every_length_has_a_bucket(longest: int, parts: int, data: st.DataObject) -> None:
    wanted = data.draw(st.integers(1, longest))
    buckets = length_buckets(longest, parts)
    assert wanted <= at_least(buckets, wanted) <= longest
    assert len(buckets) == parts


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@torch.inference_mode()
def test_a_recorded_step_gives_what_a_computed_one_gives() -> None:
    model = noise_model().to("cuda")
    recorded, computed = begun(model), begun(model)
    for number in range(4):
        tokens, positions = [400 + number, 500 + number], [3 + number, 7 + number]
        inputs = inputs_of(computed, tokens, positions)
        shape = StepShape(0, 2, positions[1] + 1, 1500)
        expected = network.step(model.decoder, computed.cache, inputs.cuda(), shape)
        found = recorded.step(tokens, positions)
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
