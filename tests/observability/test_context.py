from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whisper_serve.observability.context import (
    MAX_LENGTH,
    accept_request_id,
    bound_request_id,
    current_request_id,
)


@pytest.mark.parametrize("proposed", ["r-1", "0f1e:2d/3c", "x" * MAX_LENGTH])
def test_a_client_s_id_is_kept(proposed: str) -> None:
    assert accept_request_id(proposed) == proposed


@pytest.mark.parametrize("proposed", [None, "", " ", "\r\n", "ü"])
def test_without_a_usable_id_there_is_a_new_one(proposed: str | None) -> None:
    first, second = accept_request_id(proposed), accept_request_id(proposed)
    assert len(first) == len(second) == 32
    assert first != second


def test_an_id_cannot_forge_a_line_or_a_header() -> None:
    assert accept_request_id("r-1\r\nSet-Cookie: x\n[y] ERROR") == "r-1Set-Cookie:x[y]ERROR"


@settings(deadline=None)
@given(st.text())
def test_any_id_becomes_one_that_fits(proposed: str) -> None:
    accepted = accept_request_id(proposed)
    assert 0 < len(accepted) <= MAX_LENGTH
    assert accepted.isascii()
    assert accepted.isprintable()
    assert " " not in accepted


def test_outside_of_a_request_there_is_no_id() -> None:
    assert current_request_id() == "-"


def test_an_id_is_bound_for_a_while() -> None:
    with bound_request_id("outer"):
        with bound_request_id("inner"):
            assert current_request_id() == "inner"
        assert current_request_id() == "outer"
    assert current_request_id() == "-"


def test_a_failure_unbinds_the_id() -> None:
    with pytest.raises(ValueError, match="failed"), bound_request_id("r-1"):
        raise ValueError("failed")
    assert current_request_id() == "-"


async def test_requests_side_by_side_have_their_own_ids() -> None:
    async def serve(request_id: str) -> list[str]:
        with bound_request_id(request_id):
            seen = [current_request_id()]
            await asyncio.sleep(0)
            seen.append(await asyncio.to_thread(current_request_id))
        return seen

    answers = await asyncio.gather(*(serve(f"r-{n}") for n in range(5)))
    assert answers == [[f"r-{n}"] * 2 for n in range(5)]


def test_another_thread_knows_nothing_of_it() -> None:
    seen: list[str] = []
    with bound_request_id("r-1"):
        thread = threading.Thread(target=lambda: seen.append(current_request_id()))
        thread.start()
        thread.join()
    assert seen == ["-"]
