"""The log files of one process: their names, when they are put aside, and when they go.

Several processes must not put one file aside, so each has its own, with its name and its pid
before the suffix: `whisper_service.log` becomes `whisper_service.ingress-4711.log`, and for the
lines of a category `whisper_service.access.ingress-4711.log`. Files that were put aside have a
number or a date behind that.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from contextlib import suppress
from logging.handlers import BaseRotatingHandler, RotatingFileHandler, TimedRotatingFileHandler
from pathlib import Path
from typing import get_args

import psutil

from whisper_serve.config import LogCategory, LoggingConfig
from whisper_serve.errors import ConfigError, ConfigProblem


def process_file(file: Path, process: str, category: str = "") -> Path:
    kind = f".{category}" if category else ""
    return file.with_name(f"{file.stem}{kind}.{process}-{os.getpid()}{file.suffix}")


def file_handler(config: LoggingConfig, path: Path, *, delay: bool) -> BaseRotatingHandler:
    """Writes to `path`; with `delay` the file is there when there is something to write. Raises
    `ConfigError` when it cannot be opened."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _rotating(config, path, delay=delay)
    except OSError as exc:
        problem = ConfigProblem("logging.file", str(path), exc.strerror or str(exc))
        raise ConfigError("logging", [problem]) from exc


def _rotating(config: LoggingConfig, path: Path, *, delay: bool) -> BaseRotatingHandler:
    if config.rotate == "size":
        return RotatingFileHandler(
            path,
            maxBytes=config.max_bytes,
            backupCount=config.kept_files,
            encoding="utf-8",
            delay=delay,
        )
    return TimedRotatingFileHandler(
        path, "midnight", backupCount=config.kept_files, encoding="utf-8", delay=delay, utc=True
    )


def remove_left_over(file: Path, kept: int) -> None:
    """Of the files beside `file` whose processes have ended, `kept` of each kind stay, those that
    were written last."""
    ended: defaultdict[str, list[Path]] = defaultdict(list)
    name = _name_pattern(file)
    for path in file.parent.iterdir():
        found = name.fullmatch(path.name)
        if found is not None and not psutil.pid_exists(int(found["pid"])):
            ended[found["kind"]].append(path)
    for paths in ended.values():
        for path in sorted(paths, key=_written_at, reverse=True)[kept:]:
            with suppress(OSError):  # another process that starts removes them too
                path.unlink()


def _name_pattern(file: Path) -> re.Pattern[str]:
    """What `process_file` makes of `file`, put aside or not."""
    categories = "|".join(get_args(LogCategory))
    stem, suffix = re.escape(file.stem), re.escape(file.suffix)
    aside = r"(?:\.\d{1,4}|\.\d{4}-\d\d-\d\d)?"
    return re.compile(
        rf"{stem}\.(?P<kind>(?:(?:{categories})\.)?[a-z_]+)-(?P<pid>\d+){suffix}{aside}"
    )


def _written_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
