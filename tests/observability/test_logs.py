from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.observability.logged import Logged, logger
from whisper_serve.errors import (
    ConfigError,
    DeadlineExceeded,
    EngineFailed,
    Overloaded,
    Superseded,
)
from whisper_serve.observability.logs import FOREIGN, LOGGER_NAME, is_within

CATEGORIES = ("access", "performance", "audit")


def of(category: str) -> logging.Logger:
    return logging.getLogger(f"{LOGGER_NAME}.{category}")


# Levels and loggers


def test_less_severe_lines_are_left_out(log: Logged) -> None:
    log.configure(level="WARNING", format="%(message)s")
    logger.info("quiet")
    logger.warning("loud")
    assert log.lines() == ["loud"]


def test_who_did_what_is_written_down_however_quiet_the_rest_is(log: Logged) -> None:
    log.configure(level="ERROR", format="%(message)s")
    of("audit").info("key refused")
    of("access").info("GET /")
    assert log.lines("audit") == ["key refused"]
    assert log.lines("access") == []


def test_other_packages_are_left_alone(log: Logged, caplog: pytest.LogCaptureFixture) -> None:
    before = logging.getLogger().handlers[:]
    log.configure()
    logger.info("ours")
    logging.getLogger("somebody.else").warning("theirs")
    assert len(log.lines()) == 1
    assert logging.getLogger().handlers == before
    assert [record.message for record in caplog.records] == ["theirs"]


@pytest.mark.parametrize("name", [*FOREIGN, "sqlalchemy.pool", "uvicorn.error"])
def test_warnings_of_what_we_run_on_go_the_same_way(
    name: str, log: Logged, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.NOTSET, name)  # whatever a server before has made of it
    log.configure(format="%(name)s %(message)s", level="DEBUG")
    logging.getLogger(name).info("quiet")
    logging.getLogger(name).warning("loud")
    assert set(log.lines()) == {f"{name} loud"}


def test_their_warnings_are_left_out_with_ours(log: Logged) -> None:
    log.configure(level="ERROR", format="%(message)s")
    logging.getLogger("asyncio").warning("slow")
    logging.getLogger("asyncio").error("broken")
    assert log.lines() == ["broken"]


def test_ray_says_on_the_console_itself_what_it_has_to_say(
    log: Logged, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ray", "ray.serve"):  # its own handlers, where it has been imported
        monkeypatch.setattr(logging.getLogger(name), "handlers", [])
    log.configure(format="%(message)s")
    logging.getLogger("ray.serve").error("of Ray")
    assert log.lines() == ["of Ray"]
    assert "of Ray" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "is_told"),
    [
        (Overloaded(5.0), False),
        (Superseded(), False),
        (DeadlineExceeded(30.0), False),
        (EngineFailed("broken"), True),
        (ZeroDivisionError(), True),
    ],
)
def test_ray_tells_of_faults_and_not_of_each_refusal(
    error: Exception, is_told: bool, log: Logged
) -> None:
    log.configure(format="%(message)s")
    logging.getLogger("ray.serve").error("Request failed.", exc_info=error)
    assert any("Request failed." in line for line in log.lines()) is is_told


@pytest.mark.parametrize(
    ("name", "parent", "is_in"),
    [("a.b", "a.b", True), ("a.b.c", "a.b", True), ("a.bc", "a.b", False), ("a", "a.b", False)],
)
def test_a_logger_is_below_another_one_by_whole_names(name: str, parent: str, is_in: bool) -> None:
    assert is_within(name, parent) is is_in


# Categories


def test_each_category_has_a_file_of_its_own(log: Logged) -> None:
    log.configure(format="%(message)s")
    logger.info("of no category")
    for category in CATEGORIES:
        of(category).info("of %s", category)
    assert log.lines() == ["of no category"]
    assert {category: log.lines(category) for category in CATEGORIES} == {
        category: [f"of {category}"] for category in CATEGORIES
    }


def test_errors_of_all_kinds_are_in_one_file_too(log: Logged) -> None:
    log.configure(format="%(message)s")
    logger.warning("not so bad")
    logger.error("broken")
    of("audit").error("stolen")
    logging.getLogger("asyncio").critical("gone")
    assert log.lines("error") == ["broken", "stolen", "gone"]
    assert log.lines() == ["not so bad", "broken", "gone"]
    assert log.lines("audit") == ["stolen"]


def test_a_category_without_a_file_is_in_the_log_file(log: Logged) -> None:
    log.configure(format="%(message)s", categories=["audit"])
    of("access").info("GET /")
    of("audit").info("key refused")
    logger.error("broken")
    assert log.lines() == ["GET /", "broken"]
    assert [path.name.split("-")[0] for path in sorted(log.folder.iterdir())] == [
        "service.audit.test",
        "service.test",
    ]


def test_a_category_has_no_file_before_it_has_a_line(log: Logged) -> None:
    log.configure()
    logger.info("of no category")
    log.flush()
    assert len([*log.folder.iterdir()]) == 1


def test_the_console_has_all_but_what_is_said_of_each_window(
    log: Logged, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure(format="%(message)s")
    for category in CATEGORIES:
        of(category).info(category)
    logger.info("of no category")
    log.flush()
    assert capsys.readouterr().err.split() == ["access", "audit", "of", "no", "category"]


@pytest.mark.parametrize("settings", [{"file": None}, {"categories": ["access"]}])
def test_the_console_has_that_too_where_nothing_else_has_it(
    settings: dict[str, object], log: Logged, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure(format="%(message)s", **settings)
    of("performance").info("a window")
    log.flush()
    assert capsys.readouterr().err == "a window\n"


# Again


def test_configuring_again_doubles_no_line(log: Logged, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        log.configure(format="%(message)s")
    logger.info("once")
    assert log.lines() == ["once"]
    assert capsys.readouterr().err == "once\n"


def test_configuring_again_replaces_what_was(log: Logged) -> None:
    log.configure(file=log.folder / "old" / "service.log", level="DEBUG")
    log.configure(level="ERROR", format="json")
    logger.error("new")
    logger.info("left out")
    assert [line["message"] for line in log.objects()] == ["new"]
    [old] = (log.folder / "old").iterdir()
    assert old.read_text() == ""


def test_a_configuration_that_fails_changes_nothing(log: Logged, tmp_path: Path) -> None:
    log.configure(format="%(message)s")
    (tmp_path / "taken").touch()
    with pytest.raises(ConfigError):
        log.configure(file=tmp_path / "taken" / "service.log")
    logger.info("still here")
    assert log.lines() == ["still here"]


def test_the_end_writes_what_waits(log: Logged) -> None:
    log.configure(format="%(message)s")
    for number in range(100):
        logger.info("%d", number)
    log.stop()
    assert log.lines() == [str(number) for number in range(100)]
    logger.info("too late")
    assert len(log.lines()) == 100


def test_without_a_file_the_console_is_all(
    log: Logged, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(log.folder)
    log.configure(file=None, format="%(message)s")
    logger.info("done")
    log.flush()
    assert capsys.readouterr().err == "done\n"
    assert not list(log.folder.iterdir())
