"""Logging of one process: to the console and to a file of its own.

Several processes must not rotate one file, so each puts its name before the suffix:
`whisper_service.log` becomes `whisper_service.ingress-4711.log`.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import datetime, timezone
from logging.handlers import RotatingFileHandler
from pathlib import Path

from whisper_serve.config import LoggingConfig
from whisper_serve.errors import ConfigError, ConfigProblem
from whisper_serve.observability.context import current_request_id

LOGGER_NAME = "whisper_serve"
TEXT_FORMAT = "%(asctime)s %(levelname)-7s %(name)s [%(request_id)s] %(message)s"
MAX_FILE_BYTES = 10 * 2**20
KEPT_FILES = 5


class RequestIdFilter(logging.Filter):
    """Gives every record the id of the request that it belongs to."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = current_request_id()
        return True


class JsonFormatter(logging.Formatter):
    """One JSON object a line; what was passed as `extra={"fields": {...}}` is merged in."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "request_id": getattr(record, "request_id", "-"),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def configure_logging(config: LoggingConfig, process: str) -> None:
    """Set the package's logger up for the process called `process`; replaces what was set
    up before. Raises `ConfigError` when the log file cannot be written."""
    logger = logging.getLogger(LOGGER_NAME)
    handlers = _handlers(config, process)
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
        handler.close()
    logger.setLevel(config.level)
    logger.propagate = False
    for handler in handlers:
        handler.setFormatter(_formatter(config.format))
        handler.addFilter(RequestIdFilter())
        logger.addHandler(handler)


def _handlers(config: LoggingConfig, process: str) -> list[logging.Handler]:
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if config.file is not None:
        handlers.append(_file_handler(process_file(config.file, process)))
    return handlers


def _file_handler(path: Path) -> logging.Handler:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return RotatingFileHandler(
            path, maxBytes=MAX_FILE_BYTES, backupCount=KEPT_FILES, encoding="utf-8"
        )
    except OSError as exc:
        problem = ConfigProblem("logging.file", str(path), exc.strerror or str(exc))
        raise ConfigError("logging", [problem]) from exc


def process_file(file: Path, process: str) -> Path:
    return file.with_name(f"{file.stem}.{process}-{os.getpid()}{file.suffix}")


def _formatter(style: str) -> logging.Formatter:
    if style == "json":
        return JsonFormatter()
    return logging.Formatter(TEXT_FORMAT if style == "text" else style)
