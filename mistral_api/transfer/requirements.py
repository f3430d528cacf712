"""What a database must be like to be the source or the target of a transfer, and what is wrong with it."""

from __future__ import annotations

import secrets

from sqlalchemy import Connection, text

from mistral_api.database.engine import APPLICATION
from mistral_api.database.ownership import find_foreign_table
from mistral_api.database.revisions import all_revisions, newer_schema_sentence, newest_revision, read_revision
from mistral_api.system.command_names import installed_command
from mistral_api.transfer.errors import TransferRefused

OLDEST_POSTGRES = 13

_SERVERS = text(
    "SELECT count(*), coalesce(string_agg(DISTINCT coalesce(host(client_addr), 'this machine'), ', '), '') "
    "FROM pg_stat_activity WHERE datname = current_database() AND application_name = :name AND pid <> pg_backend_pid()"
)


def require_usable(connection: Connection, name: str) -> None:
    """Refuse a database that cannot hold our tables. ``name`` is the setting or option that it comes from.

    Raises TransferRefused.
    """
    version = postgres_version(connection)
    if version < OLDEST_POSTGRES:
        raise TransferRefused(
            f"{name}: this is PostgreSQL {version}, and {OLDEST_POSTGRES} is the oldest that will do."
        )
    encoding = connection.scalar(
        text("SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = current_database()")
    )
    if encoding != "UTF8":
        raise TransferRefused(f"{name}: the database's encoding is {encoding}, and only UTF8 holds every language.")
    foreign = find_foreign_table(connection)
    if foreign is not None:
        raise TransferRefused(
            f"{name}: in this database another program has a table '{foreign}': give another schema, "
            "by DATABASE_SCHEMA or where there is one by the option --schema."
        )
    revision = read_revision(connection)
    if revision is not None and revision not in all_revisions():
        raise TransferRefused(f"{name}: {newer_schema_sentence(connection, revision)}")


def postgres_version(connection: Connection) -> int:
    """Return the major version of the server."""
    return int(connection.exec_driver_sql("SHOW server_version_num").scalar_one()) // 10_000


def require_newest_revision(connection: Connection, name: str) -> None:
    """Refuse a source whose schema is not that of this version. Raises TransferRefused."""
    revision = read_revision(connection)
    if revision is None:
        raise TransferRefused(f"{name}: there is nothing to carry: the database has none of our tables.")
    if revision != newest_revision():
        raise TransferRefused(
            f"{name}: the schema (revision {revision}) is older than this version of the program: "
            f"run '{installed_command('flask db upgrade')}' first."
        )


def require_no_server(connection: Connection, name: str) -> None:
    """Refuse a database that a server is connected to, on whatever machine. Raises TransferRefused.

    PostgreSQL shows the connections of one's own role, and those of others to who may see them.
    """
    count, addresses = connection.execute(_SERVERS, {"name": APPLICATION}).one()
    if count:
        raise TransferRefused(
            f"{name}: Mistral Local API is connected to this database (from {addresses}) and may write: stop it first. "
            "If these are connections that a pooler keeps, add --ignore-connections."
        )


def are_same_database(first: Connection, second: Connection) -> bool:
    """Return whether both are connections to one database and one schema, under whatever names.

    An advisory lock is seen in its own database alone.
    """
    key = secrets.randbits(62)
    first.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
    if second.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": key}):
        return False
    schemas = [connection.scalar(text("SELECT current_schema()")) for connection in (first, second)]
    return bool(schemas[0] == schemas[1])
