"""Logging of one process: to the console, to a file of its own, and by category to further ones.

Modules log with `logging.getLogger(__name__)`. Facts go in `extra={"fields": {...}}`; those of a
category have its logger, such as `whisper_serve.audit`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Collection

from whisper_serve.config import LoggingConfig
from whisper_serve.errors import Superseded, WhisperServeError
from whisper_serve.observability.files import file_handler, process_file, remove_left_over
from whisper_serve.observability.formats import formatter_of
from whisper_serve.observability.outlet import Outlet

LOGGER_NAME = "whisper_serve"
AUDIT = f"{LOGGER_NAME}.audit"
PERFORMANCE = f"{LOGGER_NAME}.performance"
# Of other packages in our processes, warnings and worse go the same way. Ray's loggers hand
# nothing up, so each is named.
FOREIGN = (
    *("asyncio", "concurrent.futures", "httpx", "opentelemetry", "ray", "ray.serve"),
    *("sqlalchemy", "uvicorn"),
)
# What Ray has to say it writes to the console itself.
SPEAKS_ITSELF = "ray"
# Who logs the traceback of every exception that leaves a replica.
RAY_SERVE = "ray.serve"

Wanted = Callable[[logging.LogRecord], bool]


def configure_logging(config: LoggingConfig, process: str) -> None:
    """Set logging up for the process called `process`; replaces what was set up before. Raises
    `ConfigError` when the log file cannot be written."""
    handlers = [_console(config)]
    if config.file is not None:
        handlers += _files(config, process)
        remove_left_over(config.file, config.kept_files)
    for handler in handlers:
        handler.setFormatter(formatter_of(config.format))
    outlet = Outlet(handlers, process)
    outlet.addFilter(_severe_or_ours(config))
    stop_logging()
    _set_levels(config)
    logging.getLogger(RAY_SERVE).addFilter(_is_news)
    for name in (LOGGER_NAME, *FOREIGN):
        logging.getLogger(name).addHandler(outlet)


def stop_logging() -> None:
    """Write what waits, and undo what `configure_logging` did."""
    for name in (LOGGER_NAME, *FOREIGN):
        logger = logging.getLogger(name)
        for handler in logger.handlers[:]:
            if isinstance(handler, Outlet):
                logger.removeHandler(handler)
                handler.close()
    logging.getLogger(RAY_SERVE).removeFilter(_is_news)
    package = logging.getLogger(LOGGER_NAME)
    package.propagate = True
    package.setLevel(logging.NOTSET)


def _set_levels(config: LoggingConfig) -> None:
    package = logging.getLogger(LOGGER_NAME)
    package.setLevel(config.level)
    package.propagate = False
    # Who did what is written down however quiet the rest is to be.
    logging.getLogger(AUDIT).setLevel(min(logging.INFO, package.level))


def _is_news(record: logging.LogRecord) -> bool:
    """Not that a window was refused or came too late: whoever asked for it is told, and tells it.
    Under overload, when this would happen most, each would be a traceback."""
    error = record.exc_info[1] if record.exc_info else None
    if not isinstance(error, WhisperServeError):
        return True
    return error.http_status == 500 and not isinstance(error, Superseded)


def _severe_or_ours(config: LoggingConfig) -> Wanted:
    least = max(logging.WARNING, logging.getLevelName(config.level))

    def wanted(record: logging.LogRecord) -> bool:
        if hasattr(record, "is_taken"):  # by way of a logger below
            return False
        record.is_taken = True
        return record.levelno >= least or is_within(record.name, LOGGER_NAME)

    return wanted


def _console(config: LoggingConfig) -> logging.Handler:
    """Everything, but the lines about each window only where nothing else has them."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(lambda record: not is_within(record.name, SPEAKS_ITSELF))
    if config.file is not None and "performance" in config.categories:
        handler.addFilter(lambda record: record.name != PERFORMANCE)
    return handler


def _files(config: LoggingConfig, process: str) -> list[logging.Handler]:
    assert config.file is not None
    own = [name for name in dict.fromkeys(config.categories) if name != "error"]
    application = file_handler(config, process_file(config.file, process), delay=False)
    application.addFilter(_of_none(own))
    files: list[logging.Handler] = [application]
    for category in dict.fromkeys(config.categories):
        path = process_file(config.file, process, category)
        handler = file_handler(config, path, delay=True)
        if category == "error":
            handler.setLevel(logging.ERROR)
        else:
            handler.addFilter(_of(category))
        files.append(handler)
    return files


def _of(category: str) -> Wanted:
    return lambda record: is_within(record.name, f"{LOGGER_NAME}.{category}")


def _of_none(categories: Collection[str]) -> Wanted:
    others = [_of(category) for category in categories]
    return lambda record: not any(wanted(record) for wanted in others)


def is_within(name: str, parent: str) -> bool:
    """Whether a logger is another one or below it."""
    return name == parent or name.startswith(f"{parent}.")
