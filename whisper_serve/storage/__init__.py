"""What has to outlive a process: one database, an SQLite file or a PostgreSQL server."""
