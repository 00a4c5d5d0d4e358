from __future__ import annotations

import pytest

from whisper_serve.serving import memory
from whisper_serve.serving.memory import GIB, FreedMemory, MemoryGuard


def test_a_process_with_less_than_its_limit_is_well() -> None:
    MemoryGuard(2.0, lambda: 2 * GIB).check()


def test_one_with_more_says_how_much() -> None:
    with pytest.raises(RuntimeError, match=r"has 2\.50 GiB, more than the 2 GiB of deployment"):
        MemoryGuard(2.0, lambda: int(2.5 * GIB)).check()


def test_without_a_limit_nobody_looks() -> None:
    def look() -> int:
        raise AssertionError

    MemoryGuard(None, look).check()


def test_what_is_measured_is_this_process() -> None:
    MemoryGuard(64.0).check()
    with pytest.raises(RuntimeError):
        MemoryGuard(0.001).check()


async def test_what_is_free_is_given_back_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    freed = FreedMemory(lambda: given.append(1))
    for _ in range(3):
        await freed.give_back()
    assert given == []
    monkeypatch.setattr(memory, "GIVEN_BACK_EVERY_S", 0.0)
    await freed.give_back()
    assert given == [1]


async def test_this_system_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "GIVEN_BACK_EVERY_S", 0.0)
    await FreedMemory().give_back()
