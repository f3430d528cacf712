"""The way to PostgreSQL: which database, and how its connections behave."""

from __future__ import annotations

import atexit
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import psycopg2.extensions
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import make_url

from mistral_api.database.deadlines import CONNECT_SECONDS, STATEMENT_TIMEOUT_MS, install_deadlines
from mistral_api.embedded.postgres import start_embedded_postgres
from mistral_api.settings import Settings

# The migrations lie beside the package, in the project's root.
MIGRATIONS = Path(__file__).parent.parent.parent / "migrations"

# How libpq gives up on a dead peer: a hosted database may vanish without a word.
_LIBPQ_DEADLINES: dict[str, Any] = {
    "connect_timeout": CONNECT_SECONDS,
    "keepalives_idle": 30,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
    "application_name": "mistral-api",
}


@dataclass(frozen=True, slots=True)
class Database:
    """A PostgreSQL to connect to. ``release`` gives it up: an embedded one that is ours is stopped."""

    url: str
    release: Callable[[], None]


def database_of(settings: Settings) -> Database:
    """The database of DATABASE_URL, else the embedded one, started if need be.

    Raises StartError when the embedded one cannot be started.
    """
    if settings.database_url is not None:
        return Database(settings.database_url, lambda: None)
    embedded = start_embedded_postgres(settings.data_dir)
    atexit.register(embedded.stop)
    return Database(embedded.url, embedded.stop)


def engine_options(settings: Settings, url: str) -> dict[str, Any]:
    """Options for ``create_engine``: a bounded pool whose connections are checked before use.

    What the URL itself says (``sslmode``, ``connect_timeout`` …) is never overridden.
    """
    in_url = make_url(url).query
    install_deadlines(_connect_seconds(in_url.get("connect_timeout")))
    return {
        # What users wrote stands in parameters: it must not get into a log with an error.
        "hide_parameters": True,
        # Numbers beyond 64 bits become floats, as in requests: what is read can be written as JSON again.
        "json_deserializer": orjson.loads,
        "pool_pre_ping": True,
        "pool_recycle": 300,
        "pool_size": settings.database_pool_size,
        "max_overflow": 0,
        "pool_timeout": 5,
        "connect_args": {name: value for name, value in _LIBPQ_DEADLINES.items() if name not in in_url},
    }


def _connect_seconds(given: object) -> float:
    """What the URL says, where 0 is no limit to libpq, else ours."""
    return float(given) or float("inf") if isinstance(given, str) and given.isdigit() else CONNECT_SECONDS


def writer_engine(engine: Engine, settings: Settings) -> Engine:
    """A second way to the same database, with the one connection that the writer needs.

    Readers who wait for what it writes cannot take it away. It is not checked before use: a batch that
    fails is delivered again, and one round trip fewer counts where the database is far away.
    """
    options = engine_options(settings, engine.url.render_as_string(hide_password=False))
    made = create_engine(engine.url, **options | {"pool_size": 1, "pool_pre_ping": False})
    bound_statements(made)
    return made


def bound_statements(engine: Engine) -> None:
    """Give every new connection of the engine a statement timeout.

    Set by a statement, not by a start-up option: connection poolers refuse start-up options.
    """

    @event.listens_for(engine, "connect")
    def _limit(connection: psycopg2.extensions.connection, _record: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET statement_timeout = {STATEMENT_TIMEOUT_MS}")
        connection.commit()
