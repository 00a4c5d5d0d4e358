from __future__ import annotations

import pytest

from benchmarks.load import base_url, numbers


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000"),
        ("ws://127.0.0.1:8000/stream", "http://127.0.0.1:8000"),
        ("wss://speech.example/stream/", "https://speech.example"),
    ],
)
def test_a_service_is_found_by_either_address(given: str, address: str) -> None:
    assert base_url(given) == address


def test_levels_are_numbers_with_commas() -> None:
    assert numbers("1,8, 16") == [1, 8, 16]
