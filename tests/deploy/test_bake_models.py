from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PROJECT
from whisper_serve.engines.digests import read_record, weight_files

SCRIPT = PROJECT / "deploy" / "scripts" / "bake_models.py"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model": {"size": "base", "model_dir": "weights"}}))
    return path


def bake(config: Path, context: Path, *names: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, (SCRIPT, config, context)), *names]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=PROJECT, timeout=200
    )


@pytest.mark.weights
def test_weights_are_taken_from_the_folder_and_named(config: Path, tiny_ctranslate2: Path) -> None:
    done = bake(config, tiny_ctranslate2.parent, "tiny.en")
    assert done.returncode == 0, done.stderr
    baked = config.parent / "weights" / "tiny.en"
    assert (baked / "model.bin").stat().st_size == (tiny_ctranslate2 / "model.bin").stat().st_size
    assert json.loads(config.read_text())["model"]["size"] == "tiny.en"


@pytest.mark.weights
def test_baked_weights_need_not_be_hashed_again(config: Path, tiny_ctranslate2: Path) -> None:
    assert bake(config, tiny_ctranslate2.parent, "tiny.en").returncode == 0
    baked = config.parent / "weights" / "tiny.en"
    in_the_image = {file.name: int(file.stat().st_mtime) * 10**9 for file in weight_files(baked)}
    assert {name: kept.mtime_ns for name, kept in read_record(baked).items()} == in_the_image


@pytest.mark.weights
def test_what_is_not_what_it_should_be_is_not_baked(config: Path, tiny_ctranslate2: Path) -> None:
    folder = config.parent / "context" / "tiny.en"
    folder.mkdir(parents=True)
    for file in tiny_ctranslate2.iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "vocabulary.txt").unlink()
    (folder / "vocabulary.txt").write_text("another one")
    done = bake(config, folder.parent, "tiny.en")
    assert done.returncode == 2
    assert "vocabulary.txt" in done.stderr
    assert json.loads(config.read_text())["model"]["size"] == "base"


def test_a_model_that_nobody_knows_is_one_line(config: Path, tmp_path: Path) -> None:
    done = bake(config, tmp_path, "bass")
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("bake_models: error: ")
    assert "'bass'" in line


def test_without_names_nothing_is_baked(config: Path, tmp_path: Path) -> None:
    before = config.read_text()
    assert bake(config, tmp_path).returncode == 0
    assert config.read_text() == before
    assert not (tmp_path / "weights").exists()
