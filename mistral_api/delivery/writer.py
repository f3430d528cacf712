"""The writer: a journal row becomes PostgreSQL rows here, a batch of them in one transaction, each exactly once.

:class:`Writer` is the thread. It reads the oldest finished exchanges from the journal (``recording.backlog``), has
:class:`BatchInserter` insert them, and deletes them from the journal after the commit. It tries again for as long as
it takes. Of several processes that share a journal one delivers: the holder of the lock ``writer.lock``. When that
process dies, the system releases the lock and another process takes over.

:meth:`BatchInserter.insert` is the transaction. One exchange becomes, in this order:

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

import logging
import random
import sqlite3
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from uuid import UUID

from filelock import FileLock
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from mistral_api.analytics.periods import start_of
from mistral_api.analytics.rollups import Rollups
from mistral_api.analytics.sessions import record_session_use
from mistral_api.conversations.message_tree_store import append_exchanges
from mistral_api.database.errors import (
    error_summary,
    error_type,
    is_known_absence,
    is_row_error,
    is_statement_timeout,
    warn_of_absence,
)
from mistral_api.database.tables.base import column_names, recordset, rows_as_json
from mistral_api.database.tables.usage import ApiUsage
from mistral_api.delivery.conversation_joining import join_conversations, write_aliases
from mistral_api.delivery.partitions import create_partitions
from mistral_api.delivery.stored_objects import store_objects
from mistral_api.recording.backlog import Backlog, JournalEntry
from mistral_api.recording.exchange import Exchange, belongs_to_conversation
from mistral_api.recording.journal import WRITER_LOCK_FILE
from mistral_api.recording.recorder import StartDelivery
from mistral_api.system.logs import ThrottledWarning
from mistral_api.system.process_lock import ProcessLock, acquire_if_free

log = logging.getLogger(__name__)

# The bounds of a batch: what a statement may take, and how much memory it takes here.
MAX_BATCH, MAX_BATCH_BYTES = 1000, 8 << 20
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.2, 15.0
# A database that may not be used yet is asked nothing, so it is looked at often whether it may.
KNOWN_ABSENCE_RETRY_SECONDS = 2.0
# How long a batch is gathered, so that delivery does not compete with the requests that fill it. A change that waits
# for the batch ends the gathering.
GATHER_SECONDS = 0.25
# How often a process that does not deliver tries to take over, and one that does looks for dead processes.
TAKE_OVER_SECONDS = 1.0

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


@dataclass(slots=True)
class DeliveryCounts:
    """What the writers of this process have done since its start. Their thread alone changes it.

    ``batches``: transactions that were committed; ``delivered``: exchanges in them; ``failures``: attempts that failed
    and are repeated; ``rejected``: exchanges that PostgreSQL will never take.
    """

    batches: int = 0
    delivered: int = 0
    failures: int = 0
    rejected: int = 0


class Writer:
    """Owns the delivery thread from :meth:`start` to :meth:`close`."""

    def __init__(self, path: Path, engine: Engine, lock: ProcessLock, counts: DeliveryCounts | None = None) -> None:
        """Open the journal at ``path`` for delivery. Raises sqlite3.Error."""
        self._counts = counts or DeliveryCounts()
        self._backlog = Backlog(path)
        self._inserter = BatchInserter(engine)
        self._process_lock = lock
        self._writer_lock = FileLock(path.with_name(WRITER_LOCK_FILE), mode=0o600)
        self._batch_size = MAX_BATCH
        self._retry_seconds = FIRST_RETRY_SECONDS
        self._failing = False
        self._next_dead_check = float("-inf")
        self._warn = ThrottledWarning(log)
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._drain_deadline = float("inf")
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    def start(self) -> None:
        """Start delivery, first of what earlier processes left in the journal."""
        self._thread.start()

    def deliver_now(self) -> None:
        """End the gathering of a batch: somebody waits for what is in the journal."""
        self._wake.set()

    def is_failing(self) -> bool:
        """Return whether the last attempt to deliver failed."""
        return self._failing

    def close(self, seconds: float) -> None:
        """Deliver what can be delivered in ``seconds``, then end the thread."""
        self._drain_deadline = time.monotonic() + seconds
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout=seconds + 1)

    def _run(self) -> None:
        with closing(self._backlog):
            while not acquire_if_free(self._writer_lock):
                if self._closing.wait(TAKE_OVER_SECONDS):
                    return
            try:
                while self._run_once():
                    pass
            finally:
                self._inserter.disconnect()
                self._writer_lock.release()

    def _run_once(self) -> bool:
        """Deliver the backlog, and wait for more. Return False after the last time."""
        last = self._closing.is_set()
        self._wake.clear()
        try:
            self._end_interrupted()
            self._deliver_backlog()
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            return self._wait_for_retry(error)
        if self._failing:
            log.info("what had to wait is recorded")
        self._failing, self._retry_seconds = False, FIRST_RETRY_SECONDS
        if not last:
            self._wake.wait(timeout=GATHER_SECONDS)
        return not last

    def _wait_for_retry(self, error: Exception) -> bool:
        """Wait, each time longer, with jitter so that many writers do not come back together.

        Return False if the writer is closed meanwhile.
        """
        warn_of_absence(self._warn, "what is to be recorded waits in the journal", error)
        self._failing = True
        self._counts.failures += 1
        self._inserter.disconnect()
        if is_statement_timeout(error):
            self._batch_size = max(1, self._batch_size // 2)
        closing = self._closing.wait(timeout=self._retry_seconds * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
        last = KNOWN_ABSENCE_RETRY_SECONDS if is_known_absence(error) else LAST_RETRY_SECONDS
        self._retry_seconds = min(self._retry_seconds * 2, last)
        return not closing

    def _end_interrupted(self) -> None:
        """End the exchanges that dead processes have left open."""
        if time.monotonic() < self._next_dead_check:
            return
        self._next_dead_check = time.monotonic() + TAKE_OVER_SECONDS
        count = self._backlog.end_interrupted(self._process_lock.has_ended)
        if count:
            log.warning("%d requests were interrupted by the end of their process", count)

    def _deliver_backlog(self) -> None:
        delivered = 0
        while time.monotonic() < self._drain_deadline:
            entries = self._backlog.oldest_entries(self._batch_size, MAX_BATCH_BYTES)
            if not entries:
                break
            self._deliver(entries)
            self._batch_size = min(MAX_BATCH, self._batch_size * 2)
            delivered += len(entries)
        if delivered > MAX_BATCH:
            self._backlog.shrink()

    def _deliver(self, entries: Sequence[JournalEntry]) -> None:
        """Insert entries, then remove them from the journal.

        A batch with an entry that PostgreSQL refuses is halved until that entry is alone, so that it does not block
        the others.
        """
        try:
            self._inserter.insert([entry.exchange() for entry in entries])
        except Exception as error:
            if not is_row_error(error):
                raise
            if len(entries) == 1:
                self._reject(entries[0], error)
            else:
                middle = len(entries) // 2
                self._deliver(entries[:middle])
                self._deliver(entries[middle:])
        else:
            self._backlog.remove(entries)
            self._counts.batches += 1
            self._counts.delivered += len(entries)

    def _reject(self, entry: JournalEntry, error: Exception) -> None:
        """Set an entry aside in the journal, with the reason. The log gets its type only: it may quote a user."""
        self._backlog.reject(entry, error_summary(error))
        self._counts.rejected += 1
        log.error("an exchange was set aside in the journal's table 'rejected': %s", error_type(error))


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


def writer_starter(engine: Engine, counts: DeliveryCounts | None = None) -> StartDelivery:
    """Return the function with which the recorder starts a writer. The writer uses ``engine``, one connection of it.

    ``counts`` is told what it does.
    """
    return partial(_start_writer, engine, counts)


def _start_writer(engine: Engine, counts: DeliveryCounts | None, path: Path, lock: ProcessLock) -> Writer:
    writer = Writer(path, engine, lock, counts)
    writer.start()
    return writer
