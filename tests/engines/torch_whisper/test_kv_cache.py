from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.engines.torch_whisper.networks import SMALL
from whisper_serve.engines.torch_whisper.kv_cache import (
    HEADROOM,
    KeyValueCache,
    plan_slots,
    slot_bytes,
)

BASE = replace(SMALL, n_text_state=512, n_text_head=8, n_text_layer=6, n_text_ctx=448)
CPU = torch.device("cpu")


def tensors_of(cache: KeyValueCache) -> list[torch.Tensor]:
    return [cache.text_keys, cache.text_values, cache.audio_keys, cache.audio_values]


def scribbled(slots: int) -> KeyValueCache:
    """A cache in which every number is another one, and slot n has n + 1 positions in use."""
    cache = KeyValueCache(SMALL, slots, CPU, torch.float32)
    for tensor in tensors_of(cache):
        tensor.copy_(torch.arange(tensor.numel()).view(tensor.shape))
    cache.text_lengths = [slot + 1 for slot in range(slots)]
    cache.audio_lengths = [slot + 2 for slot in range(slots)]
    return cache


# Planning


@given(
    free=st.integers(0, 2**38),
    share=st.floats(0.0, 4.0),
    element_size=st.sampled_from([2, 4]),
    maximum=st.integers(1, 200),
)
def test_planned_slots_fit_into_the_share_and_leave_room_to_compute(
    free: int, share: float, element_size: int, maximum: int
) -> None:
    slots = plan_slots(free, share, BASE, element_size, maximum)
    taken = slots * slot_bytes(BASE, element_size)
    budget = free * min(share, 1.0) * (1 - HEADROOM)
    assert 1 <= slots <= maximum
    assert taken <= budget or slots == 1
    assert taken + slot_bytes(BASE, element_size) > budget or slots == maximum


def test_half_a_gpu_holds_half_the_slots() -> None:
    whole = plan_slots(2**34, 1.0, BASE, 2, 10_000)
    assert plan_slots(2**34, 0.5, BASE, 2, 10_000) == pytest.approx(whole / 2, abs=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_slot_takes_what_was_planned_for_it(dtype: torch.dtype) -> None:
    cache = KeyValueCache(SMALL, 3, CPU, dtype)
    taken = sum(tensor.numel() * tensor.element_size() for tensor in tensors_of(cache))
    assert taken == 3 * slot_bytes(SMALL, dtype.itemsize)


def test_a_cache_holds_whole_contexts_and_begins_finite() -> None:
    cache = KeyValueCache(SMALL, 2, CPU, torch.float32)
    assert cache.text_keys.shape[3] > SMALL.n_text_ctx
    assert cache.audio_keys.shape[3] >= SMALL.n_audio_ctx
    assert all(not tensor.any() for tensor in tensors_of(cache))


def test_a_cache_may_have_no_slots() -> None:
    assert KeyValueCache(SMALL, 0, CPU, torch.float32).slots == 0


# Slots


def test_what_is_appended_stands_at_the_position_of_each_row() -> None:
    cache = KeyValueCache(SMALL, 4, CPU, torch.float32)
    new = torch.randn(2, 16), torch.randn(2, 16)
    cache.append(1, slice(1, 3), torch.tensor([5, 7]), new)
    keys, values = cache.text(1, slice(1, 3), 8)
    assert torch.equal(keys[0, :, 5].flatten(), new[0][0])
    assert torch.equal(values[1, :, 7].flatten(), new[1][1])
    assert cache.text_keys.count_nonzero() == cache.text_values.count_nonzero() == 32


def test_a_row_that_moves_takes_what_it_uses_along() -> None:
    cache, before = scribbled(4), scribbled(4)
    cache.move(3, 0)
    for tensor, old, used in zip(tensors_of(cache), tensors_of(before), (4, 4, 5, 5), strict=True):
        assert torch.equal(tensor[:, 0, :, :used], old[:, 3, :, :used])
        assert torch.equal(tensor[:, 1:], old[:, 1:])
    assert (cache.text_lengths[0], cache.audio_lengths[0]) == (4, 5)


@given(sources=st.lists(st.sampled_from([1, 2, 4]), min_size=3, max_size=3))
def test_beams_go_on_from_what_their_sources_have_read(sources: list[int]) -> None:
    slots = [1, 2, 4]
    cache, before = scribbled(5), scribbled(5)
    for each in (cache, before):
        each.text_lengths = [6] * 5
    cache.reorder(slots, sources)
    for slot, source in zip(slots, sources, strict=True):
        assert torch.equal(cache.text_keys[:, slot, :, :6], before.text_keys[:, source, :, :6])
        assert torch.equal(cache.text_values[:, slot, :, :6], before.text_values[:, source, :, :6])
    assert torch.equal(cache.text_keys[:, [0, 3]], before.text_keys[:, [0, 3]])
    assert torch.equal(cache.audio_keys, before.audio_keys)


def test_a_cleared_slot_is_zero_and_the_others_are_not() -> None:
    cache = scribbled(3)
    cache.clear(1)
    for tensor in tensors_of(cache):
        assert not tensor[:, 1].any()
        assert tensor[:, 2].all()
