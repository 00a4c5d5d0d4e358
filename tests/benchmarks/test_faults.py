from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from benchmarks.faults import KINDS, Losses, several_of
from benchmarks.figures import write_json
from benchmarks.word_diffs import WordDiff


def test_a_death_that_costs_nothing() -> None:
    losses = Losses("engine replica", rounds=1, streams=2, interrupted=2, whole=2)
    losses.words += WordDiff(80, other=1)
    losses.files.update({"200": 5, "ConnectError": 3})
    losses.healed_s.append(3.72)
    assert losses.is_lossless
    cells = losses.show().strip("| ").split(" | ")
    assert cells[:6] == ["engine replica", "1", "2", "2", "2", "0 / 0 / 1 of 80"]
    assert cells[6:] == ["0", "0", "5", "3 x ConnectError", "3.7", "0"]


def test_a_lost_job_or_a_lost_word_is_a_loss() -> None:
    assert not Losses("driver", streams=2, whole=1).is_lossless
    losses = Losses("driver", streams=2, whole=2, jobs=3)
    assert losses.is_lossless
    losses.jobs_lost["lost"] += 1
    assert not losses.is_lossless


def test_findings_can_be_kept_as_json(tmp_path: Path) -> None:
    losses = Losses("driver", streams=2, words=WordDiff(80, other=1))
    losses.files["200"] += 5
    path = tmp_path / "losses.json"
    write_json(path, {"losses": [losses]})
    (kept,) = json.loads(path.read_text())["losses"]
    assert (kept["streams"], kept["files"], kept["words"]["other"]) == (2, {"200": 5}, 1)


def test_kinds_are_named_and_no_others() -> None:
    kinds = several_of(KINDS)
    assert kinds("engine,ingress") == ["engine", "ingress"]
    with pytest.raises(argparse.ArgumentTypeError, match="known are engine"):
        kinds("engine,moon")
