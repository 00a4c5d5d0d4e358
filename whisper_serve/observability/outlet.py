"""The way of a line out of a process: written down where it arises, written out in a thread.

A disk that hangs would otherwise hang the event loop with everybody's requests. The queue in
between is bounded: when it is full a line is dropped, and how many were is told in the log.
"""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from logging.handlers import QueueHandler
from queue import Full, Queue
from typing import Any

from whisper_serve.observability.context import current
from whisper_serve.observability.tracing import current_trace

# Lines of about a kilobyte.
CAPACITY = 10_000
# How long the end of the process, or who wants to read the files, waits for the thread.
PATIENCE_S = 5.0
END = None
_plain = logging.Formatter()


class Outlet(QueueHandler):
    """Hands lines over to a thread, in which `handlers` write them. `process` is what the process
    is called. Closing it writes what waits, and closes `handlers`."""

    def __init__(
        self, handlers: Sequence[logging.Handler], process: str, capacity: int = CAPACITY
    ) -> None:
        self._waiting: Queue[Any] = Queue(capacity)
        super().__init__(self._waiting)
        self._handlers = handlers
        self._process = process
        self._dropped = 0
        self._counting = threading.Lock()
        self._writer = threading.Thread(target=self._write_all, name="log", daemon=True)
        self._writer.start()

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return stamped(record, self._process)

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self._waiting.put_nowait(record)
        except Full:
            with self._counting:
                self._dropped += 1

    def flush(self) -> None:
        """Wait until what was logged is written, for some seconds at most."""
        waiting = self._waiting
        with waiting.all_tasks_done:
            waiting.all_tasks_done.wait_for(self._is_written, PATIENCE_S)

    def close(self) -> None:
        """When their disk hangs, `handlers` are left as they are."""
        super().close()
        if not self._writer.is_alive():
            return
        with suppress(Full):
            self._waiting.put(END, timeout=PATIENCE_S)
            self._writer.join(PATIENCE_S)
        if not self._writer.is_alive():
            for handler in self._handlers:
                handler.close()

    def _is_written(self) -> bool:
        return not (self._waiting.unfinished_tasks and self._writer.is_alive())

    def _write_all(self) -> None:
        while (record := self._waiting.get()) is not END:
            self._write(record)
            if dropped := self._take_dropped():
                self._write(self.prepare(_lost(dropped)))
            self._waiting.task_done()
        self._waiting.task_done()

    def _write(self, record: logging.LogRecord) -> None:
        for handler in self._handlers:
            if record.levelno < handler.level:
                continue
            try:
                handler.handle(record)
            except Exception:  # noqa: BLE001  # the lines behind it have to be written
                handler.handleError(record)

    def _take_dropped(self) -> int:
        """How many lines were dropped since the last time."""
        with self._counting:
            dropped, self._dropped = self._dropped, 0
        return dropped


def stamped(record: logging.LogRecord, process: str) -> logging.LogRecord:
    """A copy of `record` that any thread can format. It tells whose work it is about: see
    `config.LINE_CONTEXT`. `fields` are facts, of which `told` are in the message too; `trouble` is
    the exception as text."""
    line = copy.copy(record)
    whose = current()
    facts = {
        "processName": process,
        "request_id": whose.request_id,
        "session_id": whose.session_id,
        "caller": whose.caller,
        "fields": dict(getattr(record, "fields", {})),
        "told": _told_keys(record),
        "trouble": _trouble(record),
    }
    facts["trace_id"], facts["span_id"] = current_trace()
    vars(line).update(facts)
    line.msg, line.args = record.getMessage(), None
    line.exc_info = line.exc_text = line.stack_info = None
    return line


def _told_keys(record: logging.LogRecord) -> frozenset[str]:
    if not isinstance(record.args, Mapping):
        return frozenset()
    return frozenset(str(key) for key in record.args if f"%({key})" in str(record.msg))


def _trouble(record: logging.LogRecord) -> str | None:
    """The exception, and where the line was written from if that was asked for, as text."""
    raised = _plain.formatException(record.exc_info) if record.exc_info else record.exc_text
    return "\n".join(filter(None, [raised, record.stack_info])) or None


def _lost(dropped: int) -> logging.LogRecord:
    message = "%d lines were dropped: they came faster than they can be written"
    return logging.LogRecord(__name__, logging.WARNING, __file__, 0, message, (dropped,), None)
