"""A copy of the database of jobs, taken while the service goes on."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from whisper_serve.errors import ConfigError, ConfigProblem
from whisper_serve.storage.database import make_private

# After each, whoever wants to write gets a turn.
PAGES_AT_ONCE = 1024
UNFINISHED = ".unfinished"


def back_up(place: str | None, target: Path) -> int:
    """Copy the SQLite file `place` to `target`, which must not exist yet; returns its bytes.

    The copy is of one moment, and is only called `target` when it is whole. Raises
    `ConfigError` for another kind of database, or when it cannot be copied.
    """
    if place is None:
        raise _problem("there is no database for jobs")
    if "://" in place:
        raise _problem("PostgreSQL has a program of its own for this: pg_dump --format=custom")
    if target.exists():
        raise _problem(f"{target} is there already, and is not written over")
    unfinished = target.with_name(target.name + UNFINISHED)
    make_private(unfinished)
    try:
        _copy(Path(place), unfinished)
        unfinished.rename(target)
    except (sqlite3.Error, OSError) as exc:
        unfinished.unlink(missing_ok=True)
        raise _problem(f"it cannot be copied: {exc}") from exc
    return target.stat().st_size


def _copy(place: Path, copy: Path) -> None:
    # Opened like this, a file that is not there is not made.
    source = sqlite3.connect(f"{place.resolve().as_uri()}?mode=rw", uri=True)
    with closing(source), closing(sqlite3.connect(copy)) as target:
        source.backup(target, pages=PAGES_AT_ONCE)
        [(verdict,)] = target.execute("PRAGMA quick_check(1)").fetchall()
        # Whole in one file, without a journal beside it.
        target.execute("PRAGMA journal_mode = DELETE")
    if verdict != "ok":
        raise sqlite3.DatabaseError(f"the database is damaged: {verdict}")


def _problem(reason: str) -> ConfigError:
    return ConfigError("jobs backup", [ConfigProblem("jobs.database", None, reason)])
