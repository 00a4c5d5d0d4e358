from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.observability.logged import Logged, logger
from whisper_serve.errors import ConfigError
from whisper_serve.observability.files import process_file, remove_left_over

PID = os.getpid()


@pytest.fixture(scope="module")
def ended() -> int:
    """The pid of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def make(folder: Path, *found: str) -> None:
    """Files, each written later than the one before."""
    now = time.time() - len(found)
    for number, name in enumerate(found):
        (folder / name).touch()
        os.utime(folder / name, (now + number, now + number))


def test_each_process_has_a_file_of_its_own() -> None:
    name = process_file(Path("logs/whisper_service.log"), "ingress")
    assert name == Path(f"logs/whisper_service.ingress-{PID}.log")


def test_a_category_stands_before_the_process() -> None:
    name = process_file(Path("whisper_service.log"), "ingress", "access")
    assert name == Path(f"whisper_service.access.ingress-{PID}.log")


def test_a_file_without_a_suffix_keeps_none() -> None:
    assert process_file(Path("service"), "asr") == Path(f"service.asr-{PID}")


def test_folders_are_made(log: Logged) -> None:
    log.configure(file=log.folder / "a" / "b" / "service.log")
    logger.info("done")
    log.flush()
    assert len(names(log.folder / "a" / "b")) == 1


def test_a_file_that_cannot_be_written_is_told(log: Logged) -> None:
    (log.folder / "taken").touch()
    with pytest.raises(ConfigError) as refused:
        log.configure(file=log.folder / "taken" / "service.log")
    [problem] = refused.value.problems
    assert problem.key == "logging.file"
    assert str(problem.value).startswith(str(log.folder / "taken" / "service.test-"))


# Putting aside


def test_a_large_file_is_put_aside_and_so_many_are_kept(log: Logged) -> None:
    log.configure(format="%(message)s", max_bytes=1024, kept_files=2)
    for number in range(10):
        logger.info("%s", str(number) * 600)
    log.flush()
    assert names(log.folder) == [
        f"service.test-{PID}.log",
        f"service.test-{PID}.log.1",
        f"service.test-{PID}.log.2",
    ]
    assert (log.folder / f"service.test-{PID}.log").read_text()[0] == "9"
    assert max(path.stat().st_size for path in log.folder.iterdir()) <= 1024


def test_at_midnight_a_file_is_put_aside(log: Logged) -> None:
    yesterday = time.time() - 86_400
    file = log.folder / f"service.test-{PID}.log"
    file.write_text("of yesterday\n")
    os.utime(file, (yesterday, yesterday))
    log.configure(format="%(message)s", rotate="daily")
    logger.info("of today")
    date = time.strftime("%Y-%m-%d", time.gmtime(yesterday))
    assert log.lines() == ["of today"]
    assert (log.folder / f"{file.name}.{date}").read_text() == "of yesterday\n"


# What processes leave behind


def test_files_of_ended_processes_go_but_for_the_last(tmp_path: Path, ended: int) -> None:
    old = [f"service.asr-{ended}.log.{number}" for number in (3, 2, 1)]
    make(tmp_path, *old, f"service.asr-{ended}.log")
    remove_left_over(tmp_path / "service.log", 2)
    assert names(tmp_path) == [f"service.asr-{ended}.log", f"service.asr-{ended}.log.1"]


def test_each_kind_has_as_many(tmp_path: Path, ended: int) -> None:
    kinds = ["access.ingress", "asr", "ingress", "job_runner"]
    asides = ["", ".1", ".2026-01-01"]
    make(tmp_path, *(f"service.{kind}-{ended}.log{aside}" for kind in kinds for aside in asides))
    remove_left_over(tmp_path / "service.log", 1)
    assert names(tmp_path) == [f"service.{kind}-{ended}.log.2026-01-01" for kind in kinds]


def test_files_of_others_stay(tmp_path: Path, ended: int) -> None:
    others = [
        "service.log",
        f"service.asr-{PID}.log",
        f"service.asr-{PID}.log.1",
        f"other.asr-{ended}.log",
        f"service.asr-{ended}.txt",
        f"service.asr-{ended}.log.gz",
        f"service.asr-{ended}.log.1.gz",
        f"service.as/r-{ended}.log".replace("/", "-"),
        f"my-service.asr-{ended}.log",
        f"service.a.b.asr-{ended}.log",
        f"service.asr-{ended}.log.2026",
    ]
    make(tmp_path, *others)
    remove_left_over(tmp_path / "service.log", 0)
    kept = {*others} - {f"service.asr-{ended}.log.2026"}
    assert {*names(tmp_path)} == kept


def test_a_name_is_no_pattern(tmp_path: Path, ended: int) -> None:
    make(tmp_path, f"ser+vice.asr-{ended}.log", f"serrvice.asr-{ended}.log")
    remove_left_over(tmp_path / "ser+vice.log", 0)
    assert names(tmp_path) == [f"serrvice.asr-{ended}.log"]


def test_starting_removes_them(log: Logged, ended: int) -> None:
    make(log.folder, *(f"service.test-{ended}.log.{number}" for number in range(1, 9)))
    log.configure(kept_files=3)
    left = [f"service.test-{ended}.log.{number}" for number in (6, 7, 8)]
    assert names(log.folder) == sorted([f"service.test-{PID}.log", *left])
