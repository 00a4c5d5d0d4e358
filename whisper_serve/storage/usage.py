"""How many seconds of audio each key has used, by day."""

from __future__ import annotations

from sqlalchemy import text

from whisper_serve.storage.database import Database

ADD = text(
    "INSERT INTO usage (name, day, seconds) VALUES (:name, :day, :seconds) "
    "ON CONFLICT (name, day) DO UPDATE SET seconds = usage.seconds + excluded.seconds "
    "RETURNING seconds"
)


class UsageTable:
    """Seconds of audio by key and UTC day, shared by all processes of the service."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, name: str, day: str, seconds: float) -> float:
        """The total of `name` on `day` (`YYYY-MM-DD`) with `seconds` more, or fewer when they
        are negative. Raises `StorageUnavailable`."""
        values = {"name": name, "day": day, "seconds": seconds}
        async with self._database.writing() as connection:
            return float((await connection.execute(ADD, values)).scalar_one())
