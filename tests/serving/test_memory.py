from __future__ import annotations

import pytest

from whisper_serve.serving.memory import GIB, MemoryGuard


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
