"""A deadline for every wait for PostgreSQL, also for a server that has stopped answering without hanging up.

libpq waits for an answer for ever. psycopg2 hands the waiting to a function of ours (its documentation,
"Support for coroutine libraries"), which gives up in time; the connection is of no more use then.
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

# A statement that takes longer than this is given up by the server (milliseconds), and by us a little later.
STATEMENT_TIMEOUT_MS = 30_000
ANSWER_SECONDS = STATEMENT_TIMEOUT_MS / 1000 + 5
CONNECT_SECONDS = 5

_CONNECTED = 0  # CONNECTION_OK of libpq
_EVENTS = {POLL_READ: selectors.EVENT_READ, POLL_WRITE: selectors.EVENT_WRITE}

# Not select(), which knows no descriptor above 1023 on POSIX; Windows has nothing else, and no such bound.
_Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)

_answer_seconds: ContextVar[float] = ContextVar("answer_seconds", default=ANSWER_SECONDS)


def install_deadlines(connect_seconds: float = CONNECT_SECONDS) -> None:
    """Bound every wait of psycopg2 in this process, and connecting by so many seconds."""

    def wait(connection: psycopg2.extensions.connection) -> None:
        connected = connection.info.status == _CONNECTED
        _wait(connection, _answer_seconds.get() if connected else connect_seconds)

    psycopg2.extensions.set_wait_callback(wait)


@contextlib.contextmanager
def without_deadline(connection: Connection | Session) -> Iterator[None]:
    """Within a transaction, statements take as long as they take: for what an operator has asked for, and can end."""
    token = _answer_seconds.set(float("inf"))
    try:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        yield
    finally:
        _answer_seconds.reset(token)


def _wait(connection: psycopg2.extensions.connection, seconds: float) -> None:
    """Raises psycopg2.OperationalError when the time is up."""
    deadline = time.monotonic() + seconds
    while (state := connection.poll()) != POLL_OK:
        left = deadline - time.monotonic()
        if left <= 0 or not _ready(connection.fileno(), _EVENTS[state], left):
            raise OperationalError(f"PostgreSQL did not answer within {seconds:g} s")


def _ready(descriptor: int, events: int, seconds: float) -> bool:
    with _Selector() as selector:
        selector.register(descriptor, events)
        return bool(selector.select(timeout=None if seconds == float("inf") else seconds))
