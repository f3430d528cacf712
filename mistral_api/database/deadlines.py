"""A deadline for every wait for PostgreSQL, also for a server that has stopped answering without hanging up.

libpq waits for an answer for ever. psycopg2 lets a function of ours do the waiting (its documentation, "Support for
coroutine libraries"). That function gives up in time; the connection cannot be used afterwards.
"""

from __future__ import annotations

import contextlib
import selectors
import time
from collections.abc import Iterator
from contextvars import ContextVar

import psycopg2.extensions
from psycopg2 import OperationalError
from psycopg2.extensions import POLL_OK, POLL_READ, POLL_WRITE
from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

from mistral_api.event_loop.blocking import blocking

# The server cancels a statement that takes longer than this (milliseconds); we give up a little later.
STATEMENT_TIMEOUT_MS = 30_000
ANSWER_TIMEOUT_SECONDS = STATEMENT_TIMEOUT_MS / 1000 + 5
CONNECT_TIMEOUT_SECONDS = 5

_CONNECTED = 0  # CONNECTION_OK of libpq
_EVENTS = {POLL_READ: selectors.EVENT_READ, POLL_WRITE: selectors.EVENT_WRITE}

# poll() on POSIX, where select() knows no descriptor above 1023. Windows has select() alone, and no such bound.
_Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)

_answer_seconds: ContextVar[float] = ContextVar("answer_seconds", default=ANSWER_TIMEOUT_SECONDS)


def install_deadlines(connect_seconds: float = CONNECT_TIMEOUT_SECONDS) -> None:
    """Bound every wait of psycopg2 in this process. ``connect_seconds`` is the bound for connecting."""

    def wait(connection: psycopg2.extensions.connection) -> None:
        connected = connection.info.status == _CONNECTED
        _wait(connection, _answer_seconds.get() if connected else connect_seconds)

    psycopg2.extensions.set_wait_callback(wait)


@contextlib.contextmanager
def answer_within(seconds: float) -> Iterator[None]:
    """Give PostgreSQL this long to answer each statement of the block; the connection is lost where it does not."""
    token = _answer_seconds.set(seconds)
    try:
        yield
    finally:
        _answer_seconds.reset(token)


@contextlib.contextmanager
def blocking_waits() -> Iterator[None]:
    """Let libpq itself wait in this process, for connections that are made in the block: COPY works in no other way.

    psycopg2 puts a connection that it makes with a wait callback into libpq's non-blocking mode for good. A dead peer
    is still found out by the deadlines of TCP in the connection's parameters.
    """
    callback = psycopg2.extensions.get_wait_callback()
    psycopg2.extensions.set_wait_callback(None)
    try:
        yield
    finally:
        psycopg2.extensions.set_wait_callback(callback)


@contextlib.contextmanager
def without_deadline(connection: Connection | Session) -> Iterator[None]:
    """Let the statements of the block, within a transaction, take any time.

    It is meant for work that an operator has asked for and can end.
    """
    token = _answer_seconds.set(float("inf"))
    try:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        yield
    finally:
        _answer_seconds.reset(token)


@contextlib.contextmanager
def without_session_deadline(connection: Connection) -> Iterator[None]:
    """Let the statements of the block, each of its own (AUTOCOMMIT), take any time.

    It is meant for indexes that are built beside all other work.
    """
    token = _answer_seconds.set(float("inf"))
    connection.execute(text("SET statement_timeout = 0"))
    try:
        yield
    finally:
        _answer_seconds.reset(token)
        connection.execute(text(f"SET statement_timeout = {STATEMENT_TIMEOUT_MS}"))


def _wait(connection: psycopg2.extensions.connection, seconds: float) -> None:
    """Wait until psycopg2 has its answer. Raises psycopg2.OperationalError after ``seconds``."""
    deadline = time.monotonic() + seconds
    while (state := connection.poll()) != POLL_OK:
        left = deadline - time.monotonic()
        if left <= 0 or not _is_ready(connection.fileno(), _EVENTS[state], left):
            raise OperationalError(f"PostgreSQL did not answer within {seconds:g} s")


def _is_ready(descriptor: int, events: int, seconds: float) -> bool:
    """Wait until a descriptor can be read or written; return False after ``seconds``."""
    with _Selector() as selector:
        selector.register(descriptor, events)
        with blocking():
            return bool(selector.select(timeout=None if seconds == float("inf") else seconds))
