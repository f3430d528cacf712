"""Thread that moves journal rows to PostgreSQL, a batch a transaction, exactly once.

Putting exchanges into PostgreSQL: a batch in one transaction, each exchange exactly once.

A batch costs the same few round trips whatever its size: every statement takes all its rows as one
JSON array.

The thread that moves the journal to PostgreSQL, and tries again for as long as it takes.

Of several processes that share a journal one delivers: whichever holds the lock. When it dies, the
system releases the lock and another takes over.
"""

from __future__ import annotations

import logging
import random
import sqlite3
import threading
import time
from collections.abc import Sequence
from contextlib import closing
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
from mistral_api.conversations.message_tree import append_exchanges
from mistral_api.database.errors import error_summary, error_type, is_row_error, is_statement_timeout
from mistral_api.database.tables.base import column_names, recordset, rows_as_json
from mistral_api.database.tables.usage import ApiUsage
from mistral_api.delivery.partitions import create_partitions
from mistral_api.delivery.stored_objects import store_objects
from mistral_api.recording.backlog import Backlog, JournalEntry
from mistral_api.recording.exchange import Exchange, belongs_to_conversation
from mistral_api.recording.recorder import StartDelivery
from mistral_api.system.logs import ThrottledWarning
from mistral_api.system.process_lock import ProcessLock

# Writers on different machines take turns on one database: the sums they add to are the same rows.
_LOCK = 9002
_COLUMNS = column_names(ApiUsage)
_FIELDS = tuple((name, "id" if name == "request_id" else name) for name in _COLUMNS)
_INSERT = text(
    f"SELECT pg_advisory_xact_lock({_LOCK}); "
    f"INSERT INTO api_usage ({', '.join(_COLUMNS)}) SELECT {', '.join(_COLUMNS)} "
    f"FROM {recordset(ApiUsage, _COLUMNS)} ON CONFLICT DO NOTHING RETURNING request_id"
)


class BatchInserter:
    """Delivers batches; remembers which partitions it has already seen to."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._months: set[datetime] = set()

    def insert(self, exchanges: Sequence[Exchange]) -> None:
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
    rollups.add_sessions(record_session_use(connection, exchanges))
    rollups.write(connection)


def _insert_usage(connection: Connection, exchanges: Sequence[Exchange]) -> set[UUID]:
    """One statement for the whole batch; answers the ids that were not there before."""
    rows = [{column: getattr(exchange, name) for column, name in _FIELDS} for exchange in exchanges]
    return set(connection.scalars(_INSERT, {"rows": rows_as_json(rows)}))


log = logging.getLogger(__name__)

# A batch is bounded by what a statement may take and by what memory it takes here.
LARGEST_BATCH, MOST_BYTES = 1000, 8 << 20
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.2, 15.0
# A batch is gathered for so long before it is delivered, so that delivering does not compete with the
# requests that fill it; a reader who waits for it ends the gathering.
GATHER_SECONDS = 0.25
# How often a process that does not deliver asks whether it should, and one that does looks for dead ones.
TAKE_OVER_SECONDS = 1.0


class Writer:
    """Owns the delivery thread from :meth:`start` to :meth:`close`."""

    def __init__(self, path: Path, engine: Engine, lock: ProcessLock) -> None:
        """Open the journal at ``path`` for delivering. Raises sqlite3.Error."""
        self._backlog = Backlog(path)
        self._delivery = BatchInserter(engine)
        self._lock = lock
        self._turn = FileLock(path.with_name("writer.lock"), mode=0o600)
        self._batch = LARGEST_BATCH
        self._retry = FIRST_RETRY_SECONDS
        self._look_at = float("-inf")
        self._complain = ThrottledWarning(log)
        self._hurry = threading.Event()
        self._closing = threading.Event()
        self._drain_until = float("inf")
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    def start(self) -> None:
        """Begin delivering, what an earlier life left in the journal first."""
        self._thread.start()

    def deliver_now(self) -> None:
        """Say that somebody waits for what is in the journal."""
        self._hurry.set()

    def close(self, seconds: float) -> None:
        """Deliver what can be delivered in so many seconds, then end the thread."""
        self._drain_until = time.monotonic() + seconds
        self._closing.set()
        self._hurry.set()
        self._thread.join(timeout=seconds + 1)

    def _run(self) -> None:
        with closing(self._backlog):
            while not self._take_turn():
                if self._closing.wait(TAKE_OVER_SECONDS):
                    return
            try:
                while self._deliver_for_a_while():
                    pass
            finally:
                self._delivery.disconnect()
                self._turn.release()

    def _take_turn(self) -> bool:
        try:
            self._turn.acquire(timeout=0)
        except OSError:  # another process holds it (filelock's Timeout), or the disk fails
            return False
        return True

    def _deliver_for_a_while(self) -> bool:
        """Deliver what there is and wait for more; False at the end."""
        last = self._closing.is_set()
        self._hurry.clear()
        try:
            self._end_interrupted()
            self._drain()
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            return self._wait_for_the_database(error)
        if self._retry != FIRST_RETRY_SECONDS:
            log.info("what had to wait is recorded")
        self._retry = FIRST_RETRY_SECONDS
        if not last:
            self._hurry.wait(timeout=GATHER_SECONDS)
        return not last

    def _wait_for_the_database(self, error: Exception) -> bool:
        """Wait, each time longer, with jitter: many writers must not come back together."""
        self._complain("what is to be recorded waits in the journal: %s", error_summary(error))
        self._delivery.disconnect()
        if is_statement_timeout(error):
            self._batch = max(1, self._batch // 2)
        ended = self._closing.wait(timeout=self._retry * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
        self._retry = min(self._retry * 2, LAST_RETRY_SECONDS)
        return not ended

    def _end_interrupted(self) -> None:
        """End what dead processes have left open, our own former lives among them."""
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + TAKE_OVER_SECONDS
        count = self._backlog.end_interrupted(self._lock.has_ended)
        if count:
            log.warning("%d requests were interrupted by the end of their process", count)

    def _drain(self) -> None:
        delivered = 0
        while time.monotonic() < self._drain_until:
            entries = self._backlog.oldest_entries(self._batch, MOST_BYTES)
            if not entries:
                break
            self._deliver(entries)
            self._batch = min(LARGEST_BATCH, self._batch * 2)
            delivered += len(entries)
        if delivered > LARGEST_BATCH:
            self._backlog.shrink()

    def _deliver(self, entries: Sequence[JournalEntry]) -> None:
        """Deliver entries; those that PostgreSQL refuses are found by halves and do not block the others."""
        try:
            self._delivery.insert([entry.exchange() for entry in entries])
        except Exception as error:
            if not is_row_error(error):
                raise
            if len(entries) == 1:
                self._set_aside(entries[0], error)
            else:
                middle = len(entries) // 2
                self._deliver(entries[:middle])
                self._deliver(entries[middle:])
        else:
            self._backlog.remove(entries)

    def _set_aside(self, entry: JournalEntry, error: Exception) -> None:
        """Keep the entry with the reason. The log gets no more than its kind: the reason may quote a user."""
        self._backlog.reject(entry, error_summary(error))
        log.error("an exchange was set aside in the journal's table 'rejected': %s", error_type(error))


def writer_starter(engine: Engine) -> StartDelivery:
    """Return what the recorder calls to have its journal delivered through ``engine``, one connection at a time."""
    return partial(_start_writer, engine)


def _start_writer(engine: Engine, path: Path, lock: ProcessLock) -> Writer:
    writer = Writer(path, engine, lock)
    writer.start()
    return writer
