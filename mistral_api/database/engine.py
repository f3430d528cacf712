"""The connections to PostgreSQL: to which database, how many, and how they behave."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Container, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import orjson
import psycopg2.extensions
from sqlalchemy import URL, Engine, NullPool, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry

from mistral_api.database.address import name_address_in_errors
from mistral_api.database.deadlines import CONNECT_TIMEOUT_SECONDS, STATEMENT_TIMEOUT_MS, install_deadlines
from mistral_api.database.query_times import WatchedPool
from mistral_api.database.search_path import use_schema
from mistral_api.embedded.postgres import (
    EmbeddedPostgres,
    embedded_postgres_url,
    has_embedded_postgres,
    start_embedded_postgres,
)
from mistral_api.errors import StartError
from mistral_api.settings import Settings
from mistral_api.system.command_names import project_command

# By these names PostgreSQL knows connections: of servers and most commands, and of a transfer.
APPLICATION = "mistral-api"
TRANSFER_APPLICATION = "mistral-api transfer"

# Of an API process beside its pool: that of the API keys, and one that prepares the database.
THREAD_CONNECTIONS = 2
# Of the process that delivers, and of commands that run beside the server.
OTHER_CONNECTIONS = 15

# After these times libpq gives a dead peer up: a hosted database may vanish without closing its connections.
_LIBPQ_DEADLINES: dict[str, int | str] = {
    "connect_timeout": CONNECT_TIMEOUT_SECONDS,
    "keepalives_idle": 30,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
    "application_name": APPLICATION,
}


class ReadableConnection(psycopg2.extensions.connection):
    """A connection whose failure to connect is one of the database, whatever the encoding of its message.

    psycopg2 takes every message for UTF-8; one in the encoding of its system, as on a German Windows, would be a
    UnicodeDecodeError (psycopg2, issue 1634).
    """

    def __init__(self, dsn: str, *arguments: Any, **options: Any) -> None:
        """Connect. Raises psycopg2.OperationalError."""
        try:
            super().__init__(dsn, *arguments, **options)
        except UnicodeDecodeError as error:
            raise psycopg2.OperationalError(error.object.decode("utf-8", "replace")) from error


@dataclass(frozen=True, slots=True)
class Database:
    """A PostgreSQL to connect to.

    ``release`` is called last; it stops an embedded one that this process started. ``embedded``: the embedded one.
    """

    url: str
    release: Callable[[], None]
    embedded: EmbeddedPostgres | None = None


def open_database(settings: Settings, *, create: bool = True) -> Database:
    """Return the database of DATABASE_URL, or start the embedded one where none is set.

    Raises StartError where the embedded one cannot be started, and where it is not there yet unless it may ``create``
    one.
    """
    if settings.database_url is not None:
        return Database(settings.database_url, lambda: None)
    if not create:
        require_database_data(settings)
    embedded = start_embedded_postgres(settings.data_dir, connections=_connections(settings))
    atexit.register(embedded.stop)
    return Database(embedded.url, embedded.stop, embedded)


def _connections(settings: Settings) -> int:
    """Return how many connections all processes of these settings may have at once, commands among them."""
    return settings.api_processes * (settings.database_pool_size + THREAD_CONNECTIONS) + OTHER_CONNECTIONS


def join_database(settings: Settings) -> Database:
    """Return the database of a process that another one has started, which looks after an embedded PostgreSQL.

    Raises StartError where there is none, or it belongs to another account.
    """
    url = settings.database_url or embedded_postgres_url(settings.data_dir)
    return Database(url, lambda: None)


def require_database_data(settings: Settings) -> None:
    """Refuse settings whose database is an embedded PostgreSQL that no start has made yet. Raises StartError."""
    if settings.database_url is None and not has_embedded_postgres(settings.data_dir):
        raise StartError(
            f"There is no data in '{settings.data_dir}' yet; start the server once: {project_command('serve')}"
        )


def engine_options(settings: Settings, url: str) -> dict[str, Any]:
    """Return options for ``create_engine``: a bounded pool that gives out the connection that was used last.

    Nothing that the URL says (``sslmode``, ``connect_timeout`` …) is overridden.
    """
    in_url = make_url(url).query
    install_deadlines(_connect_seconds(in_url.get("connect_timeout")))
    return {
        # Parameters hold what users wrote. An error must not carry them into a log.
        "hide_parameters": True,
        # As in requests, numbers beyond 64 bits become floats, so that what is read can be written as JSON again.
        "json_deserializer": orjson.loads,
        "poolclass": WatchedPool,
        "pool_use_lifo": True,
        "pool_recycle": 300,
        "pool_size": settings.database_pool_size,
        "max_overflow": 0,
        "pool_timeout": 5,
        "connect_args": _connect_arguments(_LIBPQ_DEADLINES, in_url),
    }


def _connect_arguments(arguments: Mapping[str, Any], in_url: Container[str]) -> dict[str, Any]:
    """Return the arguments of a connection that its URL does not say itself, and how its failures can be read."""
    wanted = {name: value for name, value in arguments.items() if name not in in_url}
    return wanted | {"connection_factory": ReadableConnection}


def _connect_seconds(in_url: object) -> float:
    """Return the ``connect_timeout`` of a URL, where 0 means no limit as it does to libpq; without one, our own."""
    return float(in_url) or float("inf") if isinstance(in_url, str) and in_url.isdigit() else CONNECT_TIMEOUT_SECONDS


def create_thread_engine(engine: Engine, settings: Settings) -> Engine:
    """Return another engine to the same database, with one connection for one thread: the writer, the key watcher.

    So readers that wait for the writer cannot take its connection. It is not checked before use: what fails is
    done again, and one round trip fewer counts where the database is far away.
    """
    return create_unchecked_engine(engine.url.render_as_string(hide_password=False), settings)


def create_unchecked_engine(url: str, settings: Settings, connections: int = 1) -> Engine:
    """Return an engine with so many connections for threads that do again what fails."""
    created = create_engine(url, **engine_options(settings, url) | {"pool_size": connections})
    prepare_connections(created, settings)
    return created


def create_transfer_engine(url: str, schema: str | None) -> Engine:
    """Return an engine for a transfer. Each connection is made anew and may wait for an answer for any time.

    Use it within ``blocking_waits``: COPY needs connections without our own deadline.
    """
    in_url = make_url(url).query
    arguments = _LIBPQ_DEADLINES | {"application_name": TRANSFER_APPLICATION}
    created = create_engine(
        url,
        poolclass=NullPool,
        hide_parameters=True,
        connect_args=_connect_arguments(arguments, in_url),
    )
    use_schema(created, schema)
    name_address_in_errors(created)
    return created


def prepare_connections(engine: Engine, settings: Settings) -> None:
    """Give every new connection of the engine a statement timeout, and every statement the schema of the settings.

    A statement sets the timeout: connection poolers refuse start-up options.
    """
    use_schema(engine, settings.database_schema)
    name_address_in_errors(engine)

    @event.listens_for(engine, "connect")
    def _limit(connection: psycopg2.extensions.connection, _record: object) -> None:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"SET statement_timeout = {STATEMENT_TIMEOUT_MS}")
        connection.autocommit = False


# A connection that was used within so many seconds is given out without a check.
_unchecked_seconds: ContextVar[float] = ContextVar("unchecked_seconds", default=0.0)


@contextlib.contextmanager
def unchecked_connections(seconds: float) -> Iterator[None]:
    """Let the block take connections that were used within ``seconds`` without a check: it can be run again."""
    token = _unchecked_seconds.set(seconds)
    try:
        yield
    finally:
        _unchecked_seconds.reset(token)


def check_connections(engine: Engine) -> None:
    """Have every connection of the engine checked before use, by one round trip, save in ``unchecked_connections``.

    After a failover all connections of the pool are dead; the first one that is found dead closes them all.
    """

    @event.listens_for(engine, "checkin")
    def _note(_connection: object, record: ConnectionPoolEntry) -> None:
        record.info["used_at"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def _check(connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: object) -> None:
        used_at = record.info.get("used_at")
        if used_at is None or time.monotonic() - used_at <= _unchecked_seconds.get():
            return
        try:
            engine.dialect.do_ping(connection)
        except psycopg2.Error as error:
            raise InvalidatePoolError from error


def database_fingerprint(url: URL | None, schema: str | None) -> str:
    """Return what tells databases apart in the mirror of the API keys, without any secret.

    ``url`` None is the embedded PostgreSQL.
    """
    where = ["embedded"] if url is None else [url.host, url.port, url.database]
    query = {} if url is None else url.query
    place = [*where, query.get("host"), query.get("port"), schema]
    return hashlib.sha256(json.dumps(place, default=list).encode()).hexdigest()[:16]
