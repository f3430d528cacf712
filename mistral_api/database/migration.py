"""Migrating the schema to another revision, by Alembic, in a transaction that the caller has begun.

A server loads this module only when there is something to migrate: Alembic takes 9 MB.
"""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import Connection

from mistral_api.database.errors import MigrationFailed
from mistral_api.database.revisions import MIGRATIONS

# The attribute of Alembic's configuration by which migrations/env.py gets a connection.
CONNECTION = "connection"


def migrate_to(connection: Connection, revision: str) -> None:
    """Bring the schema to a later revision, in the connection's transaction.

    Raises MigrationFailed, sqlalchemy.exc.SQLAlchemyError.
    """
    try:
        command.upgrade(_config(connection), revision)
    except CommandError as error:
        raise MigrationFailed(str(error)) from error


def migrate_down(connection: Connection) -> None:
    """Remove everything that migrations have made, in the connection's transaction."""
    command.downgrade(_config(connection), "base")


def _config(connection: Connection) -> Config:
    config = Config(attributes={CONNECTION: connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config
