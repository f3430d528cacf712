"""Revisions of the schema: which there are, which one a database has, and migrating to another in a transaction."""

from __future__ import annotations

import functools
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from mistral_api.database.address import shown_address
from mistral_api.errors import StartError
from mistral_api.version import VERSION

# The migrations stand in the project's root, beside the package.
MIGRATIONS = Path(__file__).parent.parent.parent / "migrations"
VERSION_TABLE = "alembic_version"
# The attribute of Alembic's configuration by which migrations/env.py gets a connection.
CONNECTION = "connection"


@functools.cache
def all_revisions() -> tuple[str, ...]:
    """Return every revision that this version of the program knows, the newest first. Their files are read once."""
    return tuple(script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions())


def newest_revision() -> str:
    """Return the revision that this version of the program works with."""
    return all_revisions()[0]


def read_revision(connection: Connection) -> str | None:
    """Return the revision of a database, None where it was never migrated or was migrated down to nothing.

    The database must have no tables of another program (``database.ownership``).
    """
    if connection.scalar(text(f"SELECT to_regclass('{VERSION_TABLE}')")) is None:
        return None
    revision: str | None = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))
    return revision


def refuse_newer(connection: Connection) -> str | None:
    """Refuse a schema of a newer version of this program, and return its revision. Raises StartError."""
    revision = read_revision(connection)
    if revision is not None and revision not in all_revisions():
        raise StartError(f"DATABASE_URL: {newer_schema_sentence(connection, revision)}")
    return revision


def newer_schema_sentence(connection: Connection, revision: str) -> str:
    """Return a sentence that names both versions: of a database's schema, and of this program."""
    return (
        f"the schema of {shown_address(connection.engine.url)} (revision {revision}) is of a newer version of this "
        f"program, and this one, {VERSION}, knows revisions up to {newest_revision()}: install the newer version."
    )


def migrate_to(connection: Connection, revision: str) -> None:
    """Bring the schema to a later revision, in the connection's transaction. Raises sqlalchemy.exc.SQLAlchemyError."""
    command.upgrade(_config(connection), revision)


def migrate_down(connection: Connection) -> None:
    """Remove everything that migrations have made, in the connection's transaction."""
    command.downgrade(_config(connection), "base")


def _config(connection: Connection | None = None) -> Config:
    config = Config(attributes={CONNECTION: connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config
