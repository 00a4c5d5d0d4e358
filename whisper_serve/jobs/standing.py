"""How many jobs there are, looked up now and then for whoever measures."""

from __future__ import annotations

from sqlalchemy import text

from whisper_serve.jobs.job import STATUSES
from whisper_serve.observability.metrics import Reading
from whisper_serve.storage.database import Database

COUNT = text(
    "SELECT status, COUNT(*) AS jobs FROM jobs WHERE status != 'receiving' GROUP BY status"
)


class Standing:
    """What was found at the last look. All runners of a database find the same."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._counts: dict[str, int] | None = None

    async def look(self) -> bool:
        """Raises `StorageUnavailable`; what was known holds then."""
        async with self._database.reading() as connection:
            rows = (await connection.execute(COUNT)).all()
        self._counts = dict.fromkeys(STATUSES, 0) | {row.status: row.jobs for row in rows}
        return True

    def read(self) -> list[Reading]:
        """Nothing before the first look."""
        return [Reading("jobs", count, (status,)) for status, count in (self._counts or {}).items()]
