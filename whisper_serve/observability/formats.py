"""How a line looks: as text for people, as JSON for programs.

Nothing that a client sent can begin a line of its own: what does not print is escaped, and an
exception's text is indented.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone
from functools import partial
from typing import Any

from structlog.processors import JSONRenderer, LogfmtRenderer
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict, WrappedLogger

from whisper_serve.config import LINE_CONTEXT
from whisper_serve.observability.context import NOTHING

TEXT_FORMAT = (
    "%(asctime)s %(levelname)-7s %(processName)s-%(process)d %(name)s [%(request_id)s] %(message)s"
)
# Controls, also those that turn the direction of writing, ends of lines as Unicode has them, and
# halves of characters, which cannot be written at all.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_KNOWN = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_logfmt = LogfmtRenderer(bool_as_flag=False)


def formatter_of(style: str) -> ProcessorFormatter:
    """`style`: `text`, `json` or a format string of Python's logging module. It formats what an
    `Outlet` has stamped."""
    if style == "json":
        json = JSONRenderer(ensure_ascii=False, default=str)
        return ProcessorFormatter(processors=[_as_object, json, _escape])
    if style == "text":
        return ProcessorFormatter(
            processors=[partial(_as_text, with_context=True)], fmt=TEXT_FORMAT
        )
    return ProcessorFormatter(processors=[partial(_as_text, with_context=False)], fmt=style)


def printable(text: str) -> str:
    return _UNPRINTABLE.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    character = found.group()
    return _KNOWN.get(character, f"\\u{ord(character):04x}")


def _escape(_logger: WrappedLogger, _method: str, rendered: Any) -> Any:
    return printable(rendered)


def _as_object(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Everything that is known. A field does not take the place of what every line has."""
    record = event["_record"]
    line = {
        "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(),
        "level": record.levelname,
        "logger": record.name,
        "process": record.processName,
        "pid": record.process,
        "message": event["event"],
    }
    fields = {f"field_{k}" if k in line else k: value for k, value in record.fields.items()}
    trouble = {"exception": record.trouble} if record.trouble else {}
    return {**line, **_context(record), **fields, **trouble}


def _as_text(_logger: WrappedLogger, _method: str, event: EventDict, *, with_context: bool) -> Any:
    """The message, the facts that it does not tell, and an exception below."""
    record = event["_record"]
    untold = {k: value for k, value in record.fields.items() if k not in record.told}
    if with_context:
        context = _context(record)
        context.pop("request_id", None)  # in its brackets
        untold = {**untold, **{k: v for k, v in context.items() if k not in record.fields}}
    first = f"{event['event']} {_logfmt(None, '', untold)}".rstrip()
    trouble = (record.trouble or "").splitlines()
    return "\n".join([printable(first), *(f"    {printable(line)}" for line in trouble)])


def _context(record: Any) -> dict[str, str]:
    values = {name: getattr(record, name) for name in LINE_CONTEXT}
    return {name: value for name, value in values.items() if value != NOTHING}
