"""Logging as it is configured, for a test: what it wrote is there when it is asked for."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from whisper_serve.config import LoggingConfig
from whisper_serve.observability.logs import LOGGER_NAME, configure_logging, stop_logging

logger = logging.getLogger(f"{LOGGER_NAME}.test")
package = logging.getLogger(LOGGER_NAME)


class Logged:
    """The logging of a process called `test`, with its files in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def configure(self, **settings: Any) -> None:
        file = settings.pop("file", self.folder / "service.log")
        configure_logging(LoggingConfig.model_validate({**settings, "file": file}), "test")

    def flush(self) -> None:
        for handler in package.handlers:
            handler.flush()

    def lines(self, category: str = "") -> list[str]:
        """What is in the log file, or in that of a category."""
        self.flush()
        kind = f".{category}" if category else ""
        files = [*self.folder.glob(f"service{kind}.test-*.log")]
        return [line for file in files for line in file.read_text("utf-8").split("\n")[:-1]]

    def objects(self, category: str = "") -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines(category)]

    def stop(self) -> None:
        stop_logging()
