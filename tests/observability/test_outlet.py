from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator

import pytest

from whisper_serve.observability.context import bound
from whisper_serve.observability.outlet import Outlet, stamped

PATIENCE_S = 10.0


class Disk(logging.Handler):
    """Writes when it is let to; `lines` is what it wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.turns = threading.Event()
        self.turns.set()
        self.writing = threading.Event()
        self.lines: list[str] = []
        self.records: list[logging.LogRecord] = []
        self.is_closed = False

    def emit(self, record: logging.LogRecord) -> None:
        self.writing.set()
        assert self.turns.wait(PATIENCE_S)
        if record.msg == "unwritable":
            raise OSError("the disk is full")
        self.lines.append(record.getMessage())
        self.records.append(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - of the library
        """As usual, but not on the console."""

    def close(self) -> None:
        self.is_closed = True
        super().close()


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def outlet(disk: Disk) -> Iterator[Outlet]:
    outlet = Outlet([disk], "test", capacity=3)
    yield outlet
    disk.turns.set()
    outlet.close()


def say(outlet: Outlet, message: str, *args: object, level: int = logging.INFO) -> None:
    outlet.handle(logging.LogRecord("x", level, "", 0, message, args, None))


def test_lines_come_in_order(outlet: Outlet, disk: Disk) -> None:
    for number in range(3):
        say(outlet, "line %d", number)
    outlet.flush()
    assert disk.lines == ["line 0", "line 1", "line 2"]


def test_a_disk_that_hangs_holds_nobody_up(outlet: Outlet, disk: Disk) -> None:
    disk.turns.clear()
    began = time.monotonic()
    for number in range(1000):
        say(outlet, "%d", number)
    assert time.monotonic() - began < 1.0
    assert disk.lines == []


def test_what_there_is_no_room_for_is_dropped_and_counted(outlet: Outlet, disk: Disk) -> None:
    disk.turns.clear()
    say(outlet, "first")
    assert disk.writing.wait(PATIENCE_S)
    for number in range(10):
        say(outlet, "%d", number)
    disk.turns.set()
    outlet.flush()
    dropped = "7 lines were dropped: they came faster than they can be written"
    assert disk.lines == ["first", dropped, "0", "1", "2"]
    say(outlet, "last")
    outlet.flush()
    assert disk.lines[-1] == "last"


def test_a_line_that_cannot_be_written_stops_no_other(outlet: Outlet, disk: Disk) -> None:
    for message in ("one", "unwritable", "two"):
        say(outlet, message)
        outlet.flush()
    assert disk.lines == ["one", "two"]


def test_what_is_less_severe_than_a_handler_wants_is_left_out(disk: Disk) -> None:
    disk.setLevel(logging.ERROR)
    outlet = Outlet([disk], "test")
    say(outlet, "well")
    say(outlet, "broken", level=logging.ERROR)
    outlet.close()
    assert disk.lines == ["broken"]


def test_closing_writes_what_waits_and_closes_all(outlet: Outlet, disk: Disk) -> None:
    say(outlet, "one")
    outlet.close()
    assert disk.lines == ["one"]
    assert disk.is_closed
    outlet.close()
    outlet.flush()


def test_a_line_tells_what_was_bound_where_it_was_written(outlet: Outlet, disk: Disk) -> None:
    with bound(request_id="r-1", session_id="s-1", caller="radio"):
        say(outlet, "one")
    outlet.flush()
    [record] = disk.records
    known = {"request_id": "r-1", "session_id": "s-1", "caller": "radio", "trace_id": "-"}
    assert known.items() <= vars(record).items()
    assert record.processName == "test"
    assert record.threadName == threading.current_thread().name


def test_what_changes_later_changes_no_line(outlet: Outlet, disk: Disk) -> None:
    disk.turns.clear()
    state = ["before"]
    record = logging.LogRecord("x", logging.INFO, "", 0, "%s", (state,), None)
    record.fields = fields = {"n": 1}
    outlet.handle(record)
    state[0], fields["n"] = "after", 2
    disk.turns.set()
    outlet.flush()
    assert disk.lines == ["['before']"]
    assert vars(disk.records[0])["fields"] == {"n": 1}


def test_a_line_keeps_no_exception_alive() -> None:
    exc = ValueError("broken")
    info = (ValueError, exc, None)
    record = logging.LogRecord("x", logging.ERROR, "", 0, "failed", (), info)
    line = stamped(record, "test")
    assert line.exc_info is None
    assert vars(line)["trouble"].endswith("ValueError: broken")
    assert record.exc_info == info


@pytest.mark.parametrize(
    ("message", "told"),
    [("%(a)s", {"a"}), ("%(a)s and %(b)d", {"a", "b"}), ("neither", set()), ("a b", set())],
)
def test_what_the_message_tells_is_known(message: str, told: set[str]) -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, message, ({"a": 1, "b": 2},), None)
    assert vars(stamped(record, "test"))["told"] == told
