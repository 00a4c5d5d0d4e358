"""A file is trusted while its record says unchanged, and never when its digest is wrong."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisper_serve.engines.digests import (
    MISSING,
    check,
    is_folder_file,
    read_record,
    record_digests,
    record_path,
    sha256_of,
    verify,
    weight_files,
)
from whisper_serve.errors import WeightsCorrupt

GOOD, BAD = b"good weights", b"evil weights"


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "own.pt"
    path.write_bytes(GOOD)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "own"
    path.mkdir()
    (path / "model.bin").write_bytes(GOOD)
    (path / "config.json").write_text("{}")
    return path


def change_secretly(path: Path, content: bytes) -> None:
    """New content of the same length under the old modification time."""
    before = path.stat().st_mtime_ns
    path.write_bytes(content)
    os.utime(path, ns=(before, before))


@given(content=st.binary(max_size=100), repeats=st.sampled_from([1, 20_000]))
def test_a_digest_does_not_depend_on_the_size_of_the_pieces(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, repeats: int
) -> None:
    path = tmp_path_factory.mktemp("digest") / "file"
    path.write_bytes(content * repeats)

    assert sha256_of(path) == digest(content * repeats)


@pytest.mark.parametrize("name", ["model.bin", "vocabulary.txt", "vocabulary.json", "config.json"])
def test_the_files_of_a_folder_are_known_by_name(name: str) -> None:
    assert is_folder_file(name)


@pytest.mark.parametrize(
    "name", ["README.md", "sha256.json", "old/model.bin", "vocabulary./../../x", ".gitattributes"]
)
def test_other_files_are_left_alone(name: str) -> None:
    assert not is_folder_file(name)


def test_the_files_of_a_folder_come_without_its_record(folder: Path) -> None:
    check(folder, known=dict)

    assert [file.name for file in weight_files(folder)] == ["config.json", "model.bin"]


def test_a_file_that_nobody_knows_is_recorded_and_logged(
    checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    check(checkpoint, known=dict)

    assert read_record(checkpoint)["own.pt"].sha256 == digest(GOOD)
    assert digest(GOOD) in caplog.text


def test_a_file_that_is_known_is_recorded_quietly(
    checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    check(checkpoint, known=lambda: {"own.pt": digest(GOOD)})

    assert read_record(checkpoint)["own.pt"].sha256 == digest(GOOD)
    assert not caplog.text


def test_a_file_with_another_digest_than_the_known_one_is_corrupt(checkpoint: Path) -> None:
    with pytest.raises(WeightsCorrupt) as caught:
        check(checkpoint, known=lambda: {"own.pt": digest(BAD)})

    assert caught.value.path == str(checkpoint)
    assert caught.value.expected == digest(BAD)
    assert caught.value.actual == digest(GOOD)
    assert not record_path(checkpoint).exists()


def test_an_unchanged_file_is_not_read_again(checkpoint: Path) -> None:
    check(checkpoint, known=dict)
    change_secretly(checkpoint, BAD)

    check(checkpoint, known=dict)


def test_a_changed_file_is_corrupt(checkpoint: Path) -> None:
    check(checkpoint, known=dict)
    checkpoint.write_bytes(BAD)
    os.utime(checkpoint, ns=(1, 1))

    with pytest.raises(WeightsCorrupt) as caught:
        check(checkpoint, known=dict)

    assert caught.value.expected == digest(GOOD)


def test_a_file_in_a_folder_that_changed_is_named(folder: Path) -> None:
    check(folder, known=dict)
    (folder / "config.json").write_text("{ }")

    with pytest.raises(WeightsCorrupt, match=r"config\.json"):
        check(folder, known=dict)


def test_a_file_in_a_folder_that_is_gone_is_named(folder: Path) -> None:
    check(folder, known=dict)
    (folder / "config.json").unlink()

    with pytest.raises(WeightsCorrupt, match=r"config\.json") as caught:
        check(folder, known=dict)

    assert caught.value.actual == MISSING


def test_a_copy_with_a_new_time_is_accepted_and_recorded_anew(checkpoint: Path) -> None:
    check(checkpoint, known=dict)
    os.utime(checkpoint, ns=(1, 1))

    check(checkpoint, known=dict)

    assert read_record(checkpoint)["own.pt"].mtime_ns == 1


def test_the_digest_from_another_source_stays_right(checkpoint: Path) -> None:
    record_digests(checkpoint, {"own.pt": digest(GOOD)})
    os.utime(checkpoint, ns=(1, 1))

    check(checkpoint, known=lambda: {"own.pt": digest(BAD)})


def test_an_unreadable_record_counts_as_none(checkpoint: Path) -> None:
    record_path(checkpoint).write_text('{"own.pt": 7}')

    check(checkpoint, known=dict)

    assert read_record(checkpoint)["own.pt"].sha256 == digest(GOOD)


def test_a_renamed_checkpoint_does_not_miss_its_old_self(checkpoint: Path) -> None:
    check(checkpoint, known=dict)
    renamed = checkpoint.rename(checkpoint.with_name("new.pt"))
    record_path(checkpoint).rename(record_path(renamed))

    check(renamed, known=dict)

    assert set(read_record(renamed)) == {"new.pt"}


def test_without_a_place_for_the_record_the_file_is_hashed_every_time(checkpoint: Path) -> None:
    record_path(checkpoint).mkdir()  # cannot be written as a file
    check(checkpoint, known=lambda: {"own.pt": digest(GOOD)})
    change_secretly(checkpoint, BAD)

    with pytest.raises(WeightsCorrupt):
        check(checkpoint, known=lambda: {"own.pt": digest(GOOD)})


def test_verifying_does_not_trust_the_record(checkpoint: Path) -> None:
    check(checkpoint, known=dict)
    change_secretly(checkpoint, BAD)

    (result,) = verify("own", checkpoint, known=dict)

    assert not result.ok
    assert (result.expected, result.actual) == ((digest(GOOD),), digest(BAD))


def test_verifying_a_folder_tells_of_every_file(folder: Path) -> None:
    check(folder, known=dict)
    (folder / "config.json").unlink()

    results = {result.path.name: result.ok for result in verify("own", folder, known=dict)}

    assert results == {"config.json": False, "model.bin": True}


def test_verifying_a_file_that_nobody_knows_finds_no_fault(checkpoint: Path) -> None:
    (result,) = verify("own", checkpoint, known=dict)

    assert result.ok
    assert result.expected == ()
