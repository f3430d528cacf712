"""Query, empty and create databases."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extensions
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url

from mistral_api.embedded.postgres import start_embedded_postgres
from mistral_api.embedded.postgres.cluster import SUPERUSER
from tests.support.processes import ROOT, SCHEMA, Server, clean_environment, libpq_url

_TABLES = "api_usage, conversations, usage_rollups, usage_series, usage_sessions, usage_pruned, gpu_series, api_keys"
_MIGRATED = "tests_migrated"


def rows_of(engine: Engine, query: str, **parameters: Any) -> list[tuple[Any, ...]]:
    """Return the rows of a query."""
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query), parameters)]


def count_rows(engine: Engine, table: str) -> int:
    """Return the number of rows of a table."""
    return int(rows_of(engine, f"SELECT count(*) FROM {table}")[0][0])


def empty_tables(engine: Engine) -> None:
    """Delete all rows of the tables that recording fills."""
    with engine.begin() as connection:
        connection.execute(text(f"TRUNCATE {_TABLES} CASCADE"))


@contextlib.contextmanager
def open_cursor(
    url: str, rows: type[psycopg2.extensions.cursor] = psycopg2.extensions.cursor
) -> Iterator[psycopg2.extensions.cursor]:
    """Yield an autocommit cursor without an engine; ``rows``: its class, which decides what a row is."""
    with contextlib.closing(psycopg2.connect(libpq_url(url))) as connection:
        connection.autocommit = True
        with connection.cursor(cursor_factory=rows) as cursor:
            if SCHEMA is not None:
                cursor.execute(f"SET search_path TO {SCHEMA}")
            yield cursor


def superuser_url(url: str) -> str:
    """Return the URL of a database of an embedded PostgreSQL for its superuser, whom the application does not use."""
    socket_folder = Path(str(make_url(url).query["host"]))
    home = next(folder for folder in socket_folder.parents if folder.name == "postgres")
    superuser = make_url(url).set(username=SUPERUSER, password=(home / "password").read_text().strip())
    return superuser.render_as_string(hide_password=False)


def create_database(url: str, name: str) -> None:
    """Make a database in the PostgreSQL of another one, owned by the role of that URL."""
    with open_cursor(superuser_url(url)) as cursor:
        cursor.execute(f"CREATE DATABASE {name} OWNER {make_url(url).username}")


def create_migrated_database(url: str, name: str) -> str:
    """Make one with our tables, of which PostgreSQL keeps one to copy; return its URL."""
    with open_cursor(superuser_url(url)) as cursor:
        cursor.execute("SELECT FROM pg_database WHERE datname = %s", [_MIGRATED])
        if cursor.fetchone() is None:
            create_database(url, _MIGRATED)
            migrate_database(_url_of(url, _MIGRATED))
        cursor.execute(f"CREATE DATABASE {name} TEMPLATE {_MIGRATED} OWNER {make_url(url).username}")
    return _url_of(url, name)


def _url_of(url: str, name: str) -> str:
    return make_url(url).set(database=name).render_as_string(hide_password=False)


def drop_database(url: str, name: str) -> None:
    """Drop a database in the PostgreSQL of another one, whoever uses it."""
    with open_cursor(superuser_url(url)) as cursor:
        cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


def migrate_database(url: str) -> None:
    """Create the schema, as an operator does."""
    command = [sys.executable, "-m", "flask", "db", "upgrade"]
    subprocess.run(command, env=clean_environment(DATABASE_URL=url), cwd=ROOT, check=True, timeout=60)


@contextlib.contextmanager
def temporary_database(server: Server, name: str) -> Iterator[str]:
    """Yield the DATABASE_URL of a new, migrated database in the PostgreSQL of a running server."""
    url = start_embedded_postgres(server.data_dir).url
    own = create_migrated_database(url, name)
    try:
        yield own
    finally:
        drop_database(url, name)
