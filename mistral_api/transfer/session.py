"""A transaction of a transfer: without a deadline, and ended cleanly when its connection has died."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from sqlalchemy import Connection, Engine

from mistral_api.transfer.catalogue import run_together

# Hosted databases have bounds of their own, which would end a long COPY or the wait of the other side's transaction.
_WITHOUT_BOUNDS = (
    "SET LOCAL statement_timeout = 0",
    "SET LOCAL idle_in_transaction_session_timeout = 0",
    "SET LOCAL client_encoding = 'UTF8'",
)


@contextlib.contextmanager
def transfer_transaction(engine: Engine) -> Iterator[Connection]:
    """Give a connection in a transaction that is committed after the block.

    An exception closes the connection, which rolls back: a connection that is dead, or that COPY has left half-way,
    takes no ROLLBACK, and the error of that would hide the one that counts.
    """
    with engine.connect() as connection, connection.begin():
        run_together(connection, _WITHOUT_BOUNDS)
        try:
            yield connection
        except BaseException:
            connection.invalidate()
            raise
