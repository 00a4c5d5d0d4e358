"""Ways to spoil what would be valid."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

DEEP = 5_000
ODD_TEXTS = (
    *(
        "",
        " ",
        "\x00",
        "a\x00b",
        "\ud800",
        "\udfff\ud800",
        "\u202e",
        "\ufeff",
        "é" * 300,
        "\U0001d54f",
    ),
    *("null", "NaN", "-1", "1e999", "1" * 400, "../../etc/passwd", "%00", "${x}", "\r\nX: y"),
    *("x" * 5_000, "true", "[]", "{}", "'; --"),
)
ODD_NUMBERS: tuple[Any, ...] = (
    *(0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**400, 0.1, -0.0, 1e308, 5e-324),
    *(math.nan, math.inf, -math.inf),
)
ODD_JSON: tuple[str, ...] = (
    *("", "{", "}", "[]", "null", "1", '"x"', "{}", "{}{}", '{"a"}', '{"type":}', "NaN", "-"),
    *("[" * DEEP, '{"a":' * DEEP, "[" * DEEP + "]" * DEEP, '{"type": "\\ud800"}', "\ufeff{}"),
    *('{"type":"config","type":"end"}', '{"type": 1e999}', "1" * 6_000, "\x00"),
)

odd_texts = st.one_of(st.sampled_from(ODD_TEXTS), st.text(max_size=12))
odd_values: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(ODD_NUMBERS),
    odd_texts,
    st.sampled_from([None, True, False, [], {}, [[]], {"a": {"b": []}}, [None] * 500]),
)


@dataclass(frozen=True, slots=True)
class Edit:
    """One change of some bytes, at a place that is a share of them in 1/65536."""

    kind: str
    at: int
    data: bytes

    def __call__(self, data: bytes) -> bytes:
        return CHANGES[self.kind](data, len(data) * self.at >> 16, self.data)


CHANGES: dict[str, Callable[[bytes, int, bytes], bytes]] = {
    "cut": lambda data, at, _: data[:at],
    "drop": lambda data, at, new: data[:at] + data[at + 1 + len(new) :],
    "put": lambda data, at, new: data[:at] + new + data[at:],
    "over": lambda data, at, new: data[:at] + new + data[at + len(new) :],
    "twice": lambda data, at, _: data + data[at:],
    "swap": lambda data, at, _: data[at:] + data[:at],
}

edits = st.builds(
    Edit, st.sampled_from(sorted(CHANGES)), st.integers(0, 65_535), st.binary(max_size=8)
)
spoiling = st.lists(edits, max_size=3)


def spoiled(data: bytes, changes: list[Edit]) -> bytes:
    for change in changes:
        data = change(data)
    return data


def spoiled_text(text: str, changes: list[Edit]) -> str:
    """Cut, doubled and so on by characters; what is put in are the bytes as characters."""
    return spoiled(text.encode("utf-8", "surrogatepass"), changes).decode("latin-1")


def as_json(value: object) -> str:
    """With NaN, infinities and halves of characters, as careless clients write them."""
    return json.dumps(value)
