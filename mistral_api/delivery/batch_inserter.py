"""A batch of exchanges becomes PostgreSQL rows, in one transaction, each exactly once.

One exchange becomes, in this order:

- a row of ``api_usage`` (:func:`_insert_usage`); one that is there already, since the acknowledgement of a commit was
  lost, ends here;
- rows of ``conversations`` and ``messages`` (``conversations.message_tree``), in the conversation that it continues
  (``delivery.conversation_joining``);
- a row of ``stored_completions`` or ``responses`` where it is stored as such (``delivery.stored_objects``);
- additions to the sums in ``usage_rollups``, ``usage_series`` and ``usage_sessions`` (``analytics.rollups``).

Every statement takes all rows of the batch as one JSON array, so a batch costs the same few round trips whatever its
size.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from mistral_api.analytics.periods import start_of
from mistral_api.analytics.rollups import Rollups
from mistral_api.analytics.sessions import record_session_use
from mistral_api.conversations.message_tree_store import append_exchanges
from mistral_api.database.tables.base import column_names, recordset, rows_as_json
from mistral_api.database.tables.usage import ApiUsage
from mistral_api.delivery.conversation_joining import join_conversations, write_aliases
from mistral_api.delivery.partitions import create_partitions
from mistral_api.delivery.stored_objects import store_objects
from mistral_api.recording.exchange import Exchange, belongs_to_conversation

# Writers on different machines take turns on one database: they add to the same rows of sums.
_ADVISORY_LOCK = 9002
_USAGE_COLUMNS = column_names(ApiUsage)
# The field of an exchange that each column comes from.
_USAGE_FIELDS = tuple((name, "id" if name == "request_id" else name) for name in _USAGE_COLUMNS)
_INSERT_USAGE = text(
    f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK}); "
    f"INSERT INTO api_usage ({', '.join(_USAGE_COLUMNS)}) SELECT {', '.join(_USAGE_COLUMNS)} "
    f"FROM {recordset(ApiUsage, _USAGE_COLUMNS)} ON CONFLICT DO NOTHING RETURNING request_id"
)


class BatchInserter:
    """Inserts batches of exchanges. It remembers for which months it has created the partitions."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._months: set[datetime] = set()

    def insert(self, exchanges: Sequence[Exchange]) -> None:
        """Insert all exchanges of a batch, or none. Raises sqlalchemy.exc.SQLAlchemyError.

        An exchange that is there already is left alone.
        """
        months = {start_of("month", exchange.created_at) for exchange in exchanges} - self._months
        with self._engine.begin() as connection:
            if months:
                create_partitions(connection, sorted(months))
            inserted = _insert_usage(connection, exchanges)
            new = [exchange for exchange in exchanges if exchange.id in inserted]
            conversing = [exchange for exchange in new if belongs_to_conversation(exchange)]
            joined = join_conversations(connection, conversing)
            append_exchanges(connection, conversing)
            write_aliases(connection, joined)
            store_objects(connection, [exchange for exchange in new if exchange.storing])
            _add_to_sums(connection, new)
        self._months |= months

    def disconnect(self) -> None:
        """Close the connection: after a failover the next one leads to another server."""
        self._engine.dispose()


def _insert_usage(connection: Connection, exchanges: Sequence[Exchange]) -> set[UUID]:
    """Insert a row of ``api_usage`` for each exchange. Return the ids that were not there before."""
    rows = [{column: getattr(exchange, field) for column, field in _USAGE_FIELDS} for exchange in exchanges]
    return set(connection.scalars(_INSERT_USAGE, {"rows": rows_as_json(rows)}))


def _add_to_sums(connection: Connection, exchanges: Sequence[Exchange]) -> None:
    rollups = Rollups()
    for exchange in exchanges:
        rollups.add(exchange)
    rollups.add_sessions(record_session_use(connection, exchanges))
    rollups.write(connection)
