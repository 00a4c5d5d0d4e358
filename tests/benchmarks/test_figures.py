from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.figures import heading, quantile, row, shown_quantiles, write_json


@pytest.mark.parametrize(("share", "needed"), [(0.5, 2), (0.95, 20), (0.99, 100)])
def test_a_quantile_needs_a_sample_beyond_it(share: float, needed: int) -> None:
    assert quantile([1.0] * (needed - 1), share) is None
    assert quantile([1.0] * needed, share) == 1.0


def test_quantiles_that_cannot_be_told_are_dashes() -> None:
    values = [number / 100 for number in range(21)]
    assert shown_quantiles(values, (0.5, 0.95, 0.99)) == "0.10 / 0.19 / -"


def test_a_table_has_as_many_cells_in_each_line() -> None:
    lines = [*heading(["streams", "delay"]).splitlines(), row([8, "0.31"])]
    assert lines == ["| streams | delay |", "| --- | --- |", "| 8 | 0.31 |"]


def test_raw_results_name_the_machine(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.json"
    write_json(path, {"levels": [1, 2]})
    kept = json.loads(path.read_text())
    assert kept["levels"] == [1, 2]
    assert "cores" in kept["machine"]
