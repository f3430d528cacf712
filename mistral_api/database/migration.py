"""Migrating the schema to another revision, by Alembic, in a transaction that the caller has begun."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from mistral_api.database.revisions import MIGRATIONS

# The attribute of Alembic's configuration by which migrations/env.py gets a connection.
CONNECTION = "connection"


def migrate_to(connection: Connection, revision: str) -> None:
    """Bring the schema to a later revision, in the connection's transaction. Raises sqlalchemy.exc.SQLAlchemyError."""
    command.upgrade(_config(connection), revision)


def migrate_down(connection: Connection) -> None:
    """Remove everything that migrations have made, in the connection's transaction."""
    command.downgrade(_config(connection), "base")


def _config(connection: Connection) -> Config:
    config = Config(attributes={CONNECTION: connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config
