from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.observability.logged import Logged, package
from whisper_serve.observability.logs import AUDIT


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Logged]:
    """Nothing is configured yet; in the end all is as it was."""
    audit = logging.getLogger(AUDIT)
    kept = package.handlers[:], package.level, package.propagate, audit.level
    package.handlers = []
    logged = Logged(tmp_path)
    yield logged
    logged.stop()
    package.handlers, package.level, package.propagate, audit.level = kept
