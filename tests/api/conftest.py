from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from starlette import formparsers

from tests.api.fakes import Lines, Spool
from whisper_serve.api import upload


@pytest.fixture
def lines() -> Iterator[Lines]:
    """What the package logs meanwhile."""
    handler, logger = Lines(), logging.getLogger("whisper_serve")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture
def spools(monkeypatch: pytest.MonkeyPatch) -> list[Spool]:
    """The temporary files that uploads go to."""
    Spool.opened.clear()
    monkeypatch.setattr(upload, "SpooledTemporaryFile", Spool)
    monkeypatch.setattr(formparsers, "SpooledTemporaryFile", Spool)
    return Spool.opened
