"""The tables, as steps from one version of the schema to the next.

A step that was released is never changed; what comes later is a step of its own. The
statements are those that SQLite and PostgreSQL both understand (SQLite keeps bytes in any
column, whatever the type is called). Times are Unix seconds, audio is bytes as they were sent.
"""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from whisper_serve.errors import ConfigError, ConfigProblem

JOBS = """
CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    caller TEXT NOT NULL,
    status TEXT NOT NULL,
    parameters TEXT NOT NULL,
    url TEXT,
    webhook_url TEXT,
    request_id TEXT NOT NULL,
    idempotency_key TEXT,
    fingerprint TEXT NOT NULL,
    audio_bytes BIGINT NOT NULL,
    created_at DOUBLE PRECISION NOT NULL,
    queued_at DOUBLE PRECISION NOT NULL,
    due_at DOUBLE PRECISION NOT NULL,
    started_at DOUBLE PRECISION,
    finished_at DOUBLE PRECISION,
    attempts INTEGER NOT NULL,
    claims INTEGER NOT NULL,
    lease_until DOUBLE PRECISION,
    progress DOUBLE PRECISION NOT NULL,
    duration DOUBLE PRECISION,
    charged_s DOUBLE PRECISION NOT NULL,
    error_code TEXT,
    error_message TEXT,
    UNIQUE (caller, idempotency_key)
)
"""
PARTS = """
CREATE TABLE job_audio (
    job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    part INTEGER NOT NULL,
    data BYTEA NOT NULL,
    PRIMARY KEY (job_id, part)
)
"""
RESULTS = """
CREATE TABLE results (
    job_id TEXT PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
    transcript TEXT NOT NULL
)
"""
WEBHOOKS = """
CREATE TABLE webhooks (
    id TEXT PRIMARY KEY,
    job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    url TEXT NOT NULL,
    body TEXT NOT NULL,
    status TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    claims INTEGER NOT NULL,
    created_at DOUBLE PRECISION NOT NULL,
    due_at DOUBLE PRECISION NOT NULL
)
"""
TURNS = "CREATE TABLE turns (caller TEXT PRIMARY KEY, served_at DOUBLE PRECISION NOT NULL)"
USAGE = """
CREATE TABLE usage (
    name TEXT NOT NULL,
    day TEXT NOT NULL,
    seconds DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (name, day)
)
"""
INDEXES = (
    "CREATE INDEX jobs_by_due ON jobs (status, due_at)",
    "CREATE INDEX jobs_by_caller ON jobs (caller, id)",
    "CREATE INDEX webhooks_by_due ON webhooks (status, due_at)",
    "CREATE INDEX webhooks_by_job ON webhooks (job_id, created_at)",
)
# Step n leads from version n to version n + 1.
STEPS: tuple[tuple[str, ...], ...] = ((JOBS, PARTS, RESULTS, WEBHOOKS, TURNS, USAGE, *INDEXES),)


async def migrate(connection: AsyncConnection) -> None:
    """Bring the tables to the newest version; to be called within a writing transaction that
    nobody else has at the same time. Raises `ConfigError` for tables of a newer program."""
    await connection.execute(text("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER)"))
    version = (await connection.execute(text("SELECT version FROM schema_version"))).scalar()
    if version is not None and version > len(STEPS):
        reason = f"it has tables of version {version}, this program knows {len(STEPS)}: upgrade it"
        raise ConfigError("database", [ConfigProblem("jobs.database", None, reason)])
    if version is None:
        await connection.execute(text("INSERT INTO schema_version VALUES (0)"))
    for statement in (line for step in STEPS[version or 0 :] for line in step):
        await connection.execute(text(statement))
    await connection.execute(text("UPDATE schema_version SET version = :v"), {"v": len(STEPS)})
