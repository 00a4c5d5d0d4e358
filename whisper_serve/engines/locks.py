"""One process at a time works on a model's files."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path

from filelock import FileLock, Timeout

log = logging.getLogger(__name__)


@contextmanager
def locked(folder: Path, name: str) -> Iterator[None]:
    """Keep other processes off the files of `name` in `folder`, which is made, and remove what
    one of them left that was killed: `.name~*.tmp`. Where no lock can be had, go on without."""
    lock = FileLock(folder / f".{name}.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _acquire(lock, name)
        for left in folder.glob(f".{escape(name)}~*.tmp"):
            shutil.rmtree(left, ignore_errors=True)
    # The second is what filelock says of a file system that knows no locks.
    except (OSError, NotImplementedError) as exc:
        log.info("%s cannot be locked: %s", folder, exc)
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: FileLock, name: str) -> None:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("another process is at work on %s, waiting for it", name)
        lock.acquire()
