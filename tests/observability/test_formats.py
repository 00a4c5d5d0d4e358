from __future__ import annotations

import json
import logging
import os
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.observability.logged import Logged, logger
from whisper_serve.observability.context import bound
from whisper_serve.observability.formats import formatter_of, printable
from whisper_serve.observability.outlet import stamped

NASTY = "x\n2030-01-01 00:00:00,000 ERROR   forged\r\x1b[31m\u2028\u202e\x85\ud800"


def formatted(style: str, message: str, **extra: Any) -> str:
    record = logging.LogRecord("whisper_serve.test", logging.INFO, "", 0, message, (), None)
    vars(record).update(extra)
    return formatter_of(style).format(stamped(record, "test"))


# Text


def test_a_line_of_text_says_when_how_bad_where_who_and_for_which_request(
    log: Logged, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure()
    with bound(request_id="r-1"):
        logger.warning("%d windows", 3)
    [line] = log.lines()
    assert line.endswith(f" WARNING test-{os.getpid()} whisper_serve.test [r-1] 3 windows")
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ", line)
    assert capsys.readouterr().err == f"{line}\n"


def test_text_has_the_facts_that_its_message_does_not_tell(log: Logged) -> None:
    log.configure()
    fields = {"status": 200, "path": "/a b", "client": None, "open": True}
    logger.info("answered %(status)d", fields, extra={"fields": fields})
    [line] = log.lines()
    assert line.endswith('[-] answered 200 path="/a b" client= open=true')


def test_text_says_whose_work_it_was(log: Logged) -> None:
    log.configure()
    traceparent = f"00-{'a' * 32}-{'b' * 16}-01"
    with bound(request_id="r-1", session_id="s-1", caller="radio", traceparent=traceparent):
        logger.info("heard", extra={"fields": {"caller": "somebody"}})
    [line] = log.lines()
    assert line.endswith(
        f"[r-1] heard caller=somebody session_id=s-1 trace_id={'a' * 32} span_id={'b' * 16}"
    )


def test_an_exception_is_indented_below_its_line(log: Logged) -> None:
    log.configure()
    logger.error("failed", exc_info=ValueError(f"broken: {NASTY}"))
    first, *below = log.lines()
    assert first.endswith("[-] failed")
    assert all(line.startswith("    ") for line in below)
    assert "ValueError: broken" in below[0]


# JSON


def test_a_line_of_json_says_the_same(log: Logged) -> None:
    log.configure(format="json")
    with bound(request_id="r-1"):
        logger.warning("%d wörter", 3)
    [line] = log.lines()
    assert "wörter" in line
    record = json.loads(line)
    age = datetime.now(timezone.utc) - datetime.fromisoformat(record.pop("time"))
    assert 0 <= age.total_seconds() < 60
    assert record == {
        "level": "WARNING",
        "logger": "whisper_serve.test",
        "process": "test",
        "pid": os.getpid(),
        "message": "3 wörter",
        "request_id": "r-1",
    }


def test_fields_are_merged_into_json(log: Logged) -> None:
    log.configure(format="json")
    logger.info("done", extra={"fields": {"status": 200, "path": Path("/x")}})
    [line] = log.objects()
    assert {"status": 200, "path": "/x"}.items() <= line.items()


def test_a_field_takes_the_place_of_nothing_that_every_line_has(log: Logged) -> None:
    log.configure(format="json")
    logger.info("done", extra={"fields": {"message": "mine", "level": 3}})
    [line] = log.objects()
    assert (line["message"], line["level"]) == ("done", "INFO")
    assert (line["field_message"], line["field_level"]) == ("mine", 3)


def test_an_exception_stays_in_its_line_of_json(log: Logged) -> None:
    log.configure(format="json")
    logger.error("failed", exc_info=ValueError("broken\nbadly"))
    [line] = log.objects()
    assert line["exception"].endswith("ValueError: broken\nbadly")


def test_where_a_line_was_written_can_be_asked_for(log: Logged) -> None:
    log.configure(format="json")
    logger.info("here", stack_info=True)
    [line] = log.objects()
    assert line["exception"].startswith("Stack (most recent call last)")


# A form of one's own


def test_a_form_can_be_given(log: Logged) -> None:
    log.configure(
        format="%(levelname)s|%(processName)s|%(request_id)s|%(session_id)s|%(caller)s|"
        "%(trace_id)s|%(span_id)s|%(message)s"
    )
    logger.info("done")
    with bound(request_id="r-1", session_id="s-1", caller="radio"):
        logger.info("done", extra={"fields": {"n": 1}})
    assert log.lines() == [
        "INFO|test|-|-|-|-|-|done",
        "INFO|test|r-1|s-1|radio|-|-|done n=1",
    ]


# What clients send


@pytest.mark.parametrize("style", ["text", "json", "%(message)s"])
def test_nobody_forges_a_line(style: str, log: Logged) -> None:
    log.configure(format=style)
    logger.info("message: %s", NASTY, extra={"fields": {"prompt": NASTY}})
    log.flush()
    [file] = log.folder.iterdir()
    written = file.read_text("utf-8")
    assert len(written.splitlines()) == 1
    assert written[:-1].isprintable()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters()), st.sampled_from(["text", "json", "%(message)s"]))
def test_whatever_is_said_is_one_line_that_can_be_written(said: str, style: str) -> None:
    line = formatted(style, said, fields={"said": said})
    assert len(line.splitlines()) == 1
    assert line.encode("utf-8")
    if style == "json":
        assert json.loads(line)["said"] == said


@given(st.text())
def test_what_prints_is_left_as_it_is(text: str) -> None:
    assert printable(text) == text or not text.isprintable()
