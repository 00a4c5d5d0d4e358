from __future__ import annotations

from typing import Any

from benchmarks.engines import cells, fastest, speed

REFERENCES, TEXTS = ["A CAT", "THE DOG"], ["a", "the fog"]


def heard(took_s: float, part: str = "long") -> dict[str, Any]:
    """A round in which 120 s of audio took so long."""
    found = {"files": 2, "audio_s": 120.0, "took_s": took_s, "cpu_s": 2 * took_s}
    return {"parts": {part: {**found, "references": REFERENCES, "texts": TEXTS}}}


def test_the_speed_is_that_of_the_median_round() -> None:
    assert speed([heard(4.0), heard(60.0), heard(6.0)], "long") == 20.0


def test_a_part_that_was_not_heard_has_no_figures() -> None:
    assert speed([heard(4.0)], "utterances") is None
    assert set(cells([heard(4.0)], "utterances", 10.0)) == {"-"}


def test_ratios_are_to_the_faster_reference() -> None:
    results = {"a": [heard(12.0)], "b": [heard(8.0)], "ours": [heard(4.0)], "failed": []}
    reference = fastest(results, ("a", "b", "failed"), "long")
    assert reference == 15.0
    assert cells(results["ours"], "long", reference) == [
        "30.0", "2.00", "8", "50.00 %", "0 / 1 / 1",
    ]  # fmt: skip
