"""Putting exchanges into PostgreSQL: a batch in one transaction, each exchange exactly once.

A batch costs the same few round trips whatever its size: every statement takes all its rows as one
JSON array.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from mistral_api.analytics.periods import start_of
from mistral_api.analytics.rollups import Rollups
from mistral_api.analytics.sessions import move_sessions
from mistral_api.conversations.appending import append_exchanges
from mistral_api.exchange import Exchange
from mistral_api.recording.partitions import create_partitions
from mistral_api.stored.storing import belongs_to_conversation, store_objects
from mistral_api.tables.recordset import column_names, recordset, written
from mistral_api.tables.usage import ApiUsage

# Writers on different machines take turns on one database: the sums they add to are the same rows.
_LOCK = 9002
_COLUMNS = column_names(ApiUsage)
_FIELDS = tuple((name, "id" if name == "request_id" else name) for name in _COLUMNS)
_INSERT = text(
    f"SELECT pg_advisory_xact_lock({_LOCK}); "
    f"INSERT INTO api_usage ({', '.join(_COLUMNS)}) SELECT {', '.join(_COLUMNS)} "
    f"FROM {recordset(ApiUsage, _COLUMNS)} ON CONFLICT DO NOTHING RETURNING request_id"
)


class Delivery:
    """Delivers batches; remembers which partitions it has already seen to."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._months: set[datetime] = set()

    def deliver(self, exchanges: Sequence[Exchange]) -> None:
        """Insert the batch or nothing of it. Raises sqlalchemy.exc.SQLAlchemyError.

        An exchange that is already there (a commit whose acknowledgement was lost) is left alone.
        """
        months = {start_of("month", exchange.created_at) for exchange in exchanges} - self._months
        with self._engine.begin() as connection:
            if months:
                create_partitions(connection, sorted(months))
            delivered = _insert_usage(connection, exchanges)
            new = [exchange for exchange in exchanges if exchange.id in delivered]
            append_exchanges(connection, [exchange for exchange in new if belongs_to_conversation(exchange)])
            store_objects(connection, [exchange for exchange in new if exchange.storing])
            _sum_up(connection, new)
        self._months |= months

    def disconnect(self) -> None:
        """Let go of the connection: after a failover the next one leads elsewhere."""
        self._engine.dispose()


def _sum_up(connection: Connection, exchanges: Sequence[Exchange]) -> None:
    rollups = Rollups()
    for exchange in exchanges:
        rollups.add(exchange)
    rollups.add_sessions(move_sessions(connection, exchanges))
    rollups.write(connection)


def _insert_usage(connection: Connection, exchanges: Sequence[Exchange]) -> set[UUID]:
    """One statement for the whole batch; answers the ids that were not there before."""
    rows = [{column: getattr(exchange, name) for column, name in _FIELDS} for exchange in exchanges]
    return set(connection.scalars(_INSERT, {"rows": written(rows)}))
