"""What is kept for how long."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from sqlalchemy import text

from whisper_serve.config import JobsConfig
from whisper_serve.storage.database import Database

# A body that has not come by then will not come.
LONGEST_UPLOAD_S = 6 * 3600.0
KEEP_USAGE_DAYS = 400

ENDED = text(
    "DELETE FROM jobs WHERE status IN ('succeeded', 'failed', 'cancelled') "
    "AND finished_at < :before"
)
BROKEN_OFF = text("DELETE FROM jobs WHERE status = 'receiving' AND created_at < :before")
# A caller who has no jobs needs no place in the row.
TURNS = text("DELETE FROM turns WHERE served_at < :before")
USAGE = text("DELETE FROM usage WHERE day < :day")


async def sweep(database: Database, config: JobsConfig, now: float) -> int:
    """Delete what is past its time; returns how many jobs. Raises `StorageUnavailable`."""
    day = datetime.fromtimestamp(now, timezone.utc) - timedelta(days=KEEP_USAGE_DAYS)
    kept_since = {"before": now - config.keep_results_s}
    async with database.writing() as connection:
        ended = (await connection.execute(ENDED, kept_since)).rowcount
        broken_off = await connection.execute(BROKEN_OFF, {"before": now - LONGEST_UPLOAD_S})
        await connection.execute(TURNS, kept_since)
        await connection.execute(USAGE, {"day": day.date().isoformat()})
    return ended + broken_off.rowcount
