from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from whisper_serve.config import LoggingConfig
from whisper_serve.errors import ConfigError
from whisper_serve.observability.context import bound_request_id
from whisper_serve.observability.logs import (
    KEPT_FILES,
    LOGGER_NAME,
    MAX_FILE_BYTES,
    configure_logging,
    process_file,
)

logger = logging.getLogger(f"{LOGGER_NAME}.test")
package = logging.getLogger(LOGGER_NAME)


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    kept = package.handlers[:], package.level, package.propagate
    package.handlers = []
    yield
    for handler in package.handlers:
        handler.close()
    package.handlers, package.level, package.propagate = kept


def configure(file: Path | None = None, *, style: str = "text", level: Any = "INFO") -> None:
    configure_logging(LoggingConfig(file=file, format=style, level=level), "test")


def lines_in(folder: Path) -> list[str]:
    [file] = folder.glob("*.log")
    return file.read_text(encoding="utf-8").splitlines()


# Forms


def test_a_line_of_text_says_when_how_bad_who_and_for_which_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(tmp_path / "service.log")
    with bound_request_id("r-1"):
        logger.warning("%d windows", 3)
    [line] = lines_in(tmp_path)
    assert line.endswith(" WARNING whisper_serve.test [r-1] 3 windows")
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ", line)
    assert capsys.readouterr().err == f"{line}\n"


def test_a_line_of_json_says_the_same(tmp_path: Path) -> None:
    configure(tmp_path / "service.log", style="json")
    with bound_request_id("r-1"):
        logger.warning("%d wörter", 3)
    [line] = lines_in(tmp_path)
    assert "wörter" in line
    record = json.loads(line)
    age = datetime.now(timezone.utc) - datetime.fromisoformat(record.pop("time"))
    assert 0 <= age.total_seconds() < 60
    assert record == {
        "level": "WARNING",
        "logger": "whisper_serve.test",
        "request_id": "r-1",
        "message": "3 wörter",
    }


def test_fields_are_merged_into_json(tmp_path: Path) -> None:
    configure(tmp_path / "service.log", style="json")
    logger.info("done", extra={"fields": {"status": 200, "path": Path("/x")}})
    [line] = lines_in(tmp_path)
    assert {"status": 200, "path": "/x", "request_id": "-"}.items() <= json.loads(line).items()


def test_an_exception_stays_in_its_line_of_json(tmp_path: Path) -> None:
    configure(tmp_path / "service.log", style="json")
    logger.error("failed", exc_info=ValueError("broken\nbadly"))
    [line] = lines_in(tmp_path)
    assert json.loads(line)["exception"].endswith("ValueError: broken\nbadly")


def test_a_line_break_in_a_message_is_none_in_json(tmp_path: Path) -> None:
    configure(tmp_path / "service.log", style="json")
    logger.info("one\ntwo")
    assert len(lines_in(tmp_path)) == 1


def test_a_form_can_be_given(tmp_path: Path) -> None:
    configure(tmp_path / "service.log", style="%(levelname)s|%(request_id)s|%(message)s")
    logger.info("done")
    assert lines_in(tmp_path) == ["INFO|-|done"]


# Levels and loggers


def test_less_severe_lines_are_left_out(tmp_path: Path) -> None:
    configure(tmp_path / "service.log", level="WARNING", style="%(message)s")
    logger.info("quiet")
    logger.warning("loud")
    assert lines_in(tmp_path) == ["loud"]


def test_other_packages_are_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = logging.getLogger().handlers[:]
    configure(tmp_path / "service.log")
    logger.info("ours")
    logging.getLogger("somebody.else").warning("theirs")
    assert len(lines_in(tmp_path)) == 1
    assert logging.getLogger().handlers == before
    assert [record.message for record in caplog.records] == ["theirs"]


# Files


def test_each_process_has_a_file_of_its_own() -> None:
    name = process_file(Path("logs/whisper_service.log"), "ingress")
    assert name == Path(f"logs/whisper_service.ingress-{os.getpid()}.log")


def test_a_file_without_a_suffix_keeps_none() -> None:
    assert process_file(Path("service"), "asr") == Path(f"service.asr-{os.getpid()}")


def test_folders_are_made(tmp_path: Path) -> None:
    configure(tmp_path / "a" / "b" / "service.log")
    logger.info("done")
    assert len(lines_in(tmp_path / "a" / "b")) == 1


def test_without_a_file_the_console_is_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    configure(None, style="%(message)s")
    logger.info("done")
    assert capsys.readouterr().err == "done\n"
    assert not list(tmp_path.iterdir())


def test_files_do_not_grow_for_ever(tmp_path: Path) -> None:
    configure(tmp_path / "service.log", style="%(message)s")
    for _ in range(3):
        logger.info("x" * (MAX_FILE_BYTES // 2))
    sizes = [file.stat().st_size for file in tmp_path.iterdir()]
    assert len(sizes) == 3
    assert max(sizes) <= MAX_FILE_BYTES
    assert len(sizes) <= KEPT_FILES + 1


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(ConfigError) as refused:
        configure(tmp_path / "taken" / "service.log")
    [problem] = refused.value.problems
    assert problem.key == "logging.file"
    assert str(problem.value).startswith(str(tmp_path / "taken" / "service.test-"))


# Again


def test_configuring_again_doubles_no_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(3):
        configure(tmp_path / "service.log", style="%(message)s")
    logger.info("once")
    assert lines_in(tmp_path) == ["once"]
    assert capsys.readouterr().err == "once\n"


def test_configuring_again_replaces_what_was(tmp_path: Path) -> None:
    configure(tmp_path / "old" / "service.log", level="DEBUG")
    configure(tmp_path / "new" / "service.log", level="ERROR", style="json")
    logger.error("new")
    logger.info("left out")
    assert lines_in(tmp_path / "old") == []
    assert json.loads(lines_in(tmp_path / "new")[0])["message"] == "new"


def test_a_configuration_that_fails_changes_nothing(tmp_path: Path) -> None:
    configure(tmp_path / "service.log", style="%(message)s")
    (tmp_path / "taken").touch()
    with pytest.raises(ConfigError):
        configure(tmp_path / "taken" / "service.log")
    logger.info("still here")
    assert lines_in(tmp_path) == ["still here"]
