"""The writer: the thread that moves rows of the journal to PostgreSQL, each exactly once.

:class:`Writer` reads the oldest finished exchanges from the journal (``recording.backlog``), has
``delivery.batch_inserter`` insert them, and deletes them from the journal after the commit. It tries again for as long
as it takes. Of several processes that share a journal one delivers: the holder of the lock ``writer.lock``. When that
process dies, the system releases the lock and another process takes over. A process that serves requests gives way to
one that does nothing but deliver (``mistral-api deliver``).
"""

from __future__ import annotations

import logging
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from filelock import FileLock
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from mistral_api.database.errors import (
    error_summary,
    error_type,
    is_known_absence,
    is_row_error,
    is_statement_timeout,
    warn_of_absence,
)
from mistral_api.delivery.batch_inserter import BatchInserter
from mistral_api.delivery.conversation_joining import may_continue
from mistral_api.delivery.delivery_counts import DeliveryCounts
from mistral_api.recording.backlog import Backlog, JournalEntry
from mistral_api.recording.deliverer_link import DELIVERER, DelivererLink, DelivererListener
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
# How often a process that does not deliver tries to take over, and one that does looks at the others.
TAKE_OVER_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class DeliveryRole:
    """What a process is to those with which it takes turns to deliver, and what its other threads do meanwhile.

    ``dedicated``: it does nothing else, so that those which serve requests give way to it.
    """

    dedicated: bool = False
    other_work: Callable[[], AbstractContextManager[object]] = nullcontext


@dataclass(frozen=True, slots=True)
class _Turn:
    """What the writer has while its process is the one that delivers."""

    backlog: Backlog
    listener: DelivererListener


class Writer:
    """Owns the delivery thread from :meth:`start` to :meth:`close`."""

    def __init__(
        self,
        path: Path,
        engine: Engine,
        lock: ProcessLock,
        counts: DeliveryCounts | None = None,
        role: DeliveryRole | None = None,
    ) -> None:
        """``path`` is the journal's, ``lock`` this process's there."""
        self._path = path
        self._counts = counts or DeliveryCounts()
        self._inserter = BatchInserter(engine)
        self._process_lock = lock
        self._role = role or DeliveryRole()
        # The process that delivers, where that is another one.
        self._link = DelivererLink(path.parent)
        self._turn: _Turn | None = None
        self._writer_lock = FileLock(path.with_name(WRITER_LOCK_FILE), mode=0o600)
        self._batch_size = MAX_BATCH
        self._delivered_since_shrink = 0
        self._retry_seconds = FIRST_RETRY_SECONDS
        self._failing = False
        self._next_look = float("-inf")
        self._warn = ThrottledWarning(log)
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._drain_deadline = float("inf")
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    def start(self) -> None:
        """Start delivery, first of what earlier processes left in the journal."""
        self._thread.start()

    def deliver_now(self) -> None:
        """End the gathering of a batch, here or in the process that delivers: somebody waits for what is in the
        journal."""
        self._wake.set()
        if self._turn is None:
            self._link.deliver_now()

    def is_alive(self) -> bool:
        """Return whether the thread runs."""
        return self._thread.is_alive()

    def is_failing(self) -> bool:
        """Return whether the last attempt to deliver failed."""
        return self._link.is_failing() if self._turn is None else self._failing

    def close(self, seconds: float) -> None:
        """Deliver what can be delivered in ``seconds``, then end the thread."""
        self._drain_deadline = time.monotonic() + seconds
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout=seconds + 1)
        self._link.close()

    def _run(self) -> None:
        """Deliver whenever it is this process's turn, until it is closed, whatever fails meanwhile."""
        ended = False
        while not ended:
            try:
                self._deliver_in_turn()
            except sqlite3.Error as error:
                self._warn("what is to be recorded waits in the journal, which cannot be read: %s", error)
                self._pause()
            except Exception:
                log.exception("unforeseen failure of the writer, which tries again")
                self._pause()
            ended = self._closing.is_set()

    def _pause(self) -> None:
        """Wait, each time longer until a delivery succeeds, or until it is closed."""
        self._closing.wait(self._retry_seconds)
        self._retry_seconds = min(self._retry_seconds * 2, LAST_RETRY_SECONDS)

    def _deliver_in_turn(self) -> None:
        """Wait until this process is the one that delivers, and deliver as long as it is."""
        if not self._wait_for_turn():
            return
        with ExitStack() as stack:
            stack.callback(self._writer_lock.release)
            stack.callback(self._inserter.disconnect)
            try:
                self._take_turn()
            finally:
                self._turn = None

    def _wait_for_turn(self) -> bool:
        """Wait until this process is the one that delivers. Return False where it is closed before."""
        while self._shall_give_way() or not acquire_if_free(self._writer_lock):
            if self._closing.wait(TAKE_OVER_SECONDS):
                return False
        return True

    def _shall_give_way(self) -> bool:
        """Whether there is a process that does nothing but deliver, and this one is none."""
        try:
            return not self._role.dedicated and self._process_lock.sees_role(DELIVERER)
        except OSError:
            return False

    def _take_turn(self) -> None:
        """Deliver until this process ends, or gives way. Raises sqlite3.Error where the journal cannot be opened."""
        with (
            closing(Backlog(self._path)) as backlog,
            closing(DelivererListener(self._path.parent, self._wake.set)) as listener,
            self._role.other_work(),
        ):
            self._turn = turn = _Turn(backlog, listener)
            while self._run_once(turn):
                pass

    def _run_once(self, turn: _Turn) -> bool:
        """Deliver the backlog, and wait for more. Return False after the last time."""
        last = self._closing.is_set()
        self._wake.clear()
        try:
            given_way = self._look_at_others(turn)
            self._deliver_backlog(turn.backlog, float("inf") if last else TAKE_OVER_SECONDS)
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            return self._wait_for_retry(error, turn)
        if self._failing:
            log.info("what had to wait is recorded")
        self._failing, self._retry_seconds = False, FIRST_RETRY_SECONDS
        turn.listener.note_attempt(failing=False)
        if last or given_way:
            return False
        self._wake.wait(timeout=GATHER_SECONDS)
        return True

    def _wait_for_retry(self, error: Exception, turn: _Turn) -> bool:
        """Wait, each time longer, with jitter so that many writers do not come back together.

        Return False if the writer is closed meanwhile, or gives way.
        """
        warn_of_absence(self._warn, "what is to be recorded waits in the journal", error)
        self._failing = True
        turn.listener.note_attempt(failing=True)
        self._counts.failures += 1
        self._inserter.disconnect()
        if is_statement_timeout(error):
            self._batch_size = max(1, self._batch_size // 2)
        closing = self._closing.wait(timeout=self._retry_seconds * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
        last = KNOWN_ABSENCE_RETRY_SECONDS if is_known_absence(error) else LAST_RETRY_SECONDS
        self._retry_seconds = min(self._retry_seconds * 2, last)
        return not closing and not self._shall_give_way()

    def _look_at_others(self, turn: _Turn) -> bool:
        """Once a second, end the exchanges that dead processes have left open. Return whether to give way."""
        if time.monotonic() < self._next_look:
            return False
        self._next_look = time.monotonic() + TAKE_OVER_SECONDS
        self._end_interrupted(turn.backlog)
        return self._shall_give_way()

    def _end_interrupted(self, backlog: Backlog) -> bool:
        """End the exchanges that dead processes have left open. Return whether there were any."""
        count = backlog.end_interrupted(self._process_lock.has_ended)
        if count:
            log.warning("%d requests were interrupted by the end of their process", count)
        return count > 0

    def _deliver_backlog(self, backlog: Backlog, seconds: float) -> None:
        """Deliver what waits, for some seconds at most: where more always comes, others are looked at in between."""
        until = min(self._drain_deadline, time.monotonic() + seconds)
        while time.monotonic() < until:
            entries = backlog.oldest_entries(self._batch_size, MAX_BATCH_BYTES)
            if not entries:
                self._shrink_after_many(backlog)
                return
            self._deliver(backlog, entries)
            self._batch_size = min(MAX_BATCH, self._batch_size * 2)
            self._delivered_since_shrink += len(entries)
        self._wake.set()  # go on without gathering

    def _shrink_after_many(self, backlog: Backlog) -> None:
        if self._delivered_since_shrink > MAX_BATCH:
            backlog.shrink()
        self._delivered_since_shrink = 0

    def _deliver(self, backlog: Backlog, entries: Sequence[JournalEntry], *, halved: bool = False) -> None:
        """Insert entries, then remove them from the journal.

        Where one may continue what a process that died meanwhile has left open, that is ended first, and nothing is
        done with the entries: it stands before them now.

        A batch with an entry that PostgreSQL refuses is halved until that entry is alone, so that it does not block
        the others.
        """
        try:
            exchanges = [entry.exchange() for entry in entries]
            if not halved and any(map(may_continue, exchanges)) and self._end_interrupted(backlog):
                return
            self._inserter.insert(exchanges)
        except Exception as error:
            if not is_row_error(error):
                raise
            if len(entries) == 1:
                self._reject(backlog, entries[0], error)
            else:
                middle = len(entries) // 2
                self._deliver(backlog, entries[:middle], halved=True)
                self._deliver(backlog, entries[middle:], halved=True)
        else:
            backlog.remove(entries)
            self._counts.batches += 1
            self._counts.delivered += len(entries)

    def _reject(self, backlog: Backlog, entry: JournalEntry, error: Exception) -> None:
        """Set an entry aside in the journal, with the reason. The log gets its type only: it may quote a user."""
        backlog.reject(entry, error_summary(error))
        self._counts.rejected += 1
        log.error("an exchange was set aside in the journal's table 'rejected': %s", error_type(error))


def writer_starter(engine: Engine, counts: DeliveryCounts | None = None) -> StartDelivery:
    """Return the function with which the recorder starts a writer. The writer uses ``engine``, one connection of it.

    ``counts`` is told what it does.
    """
    return partial(_start_writer, engine, counts)


def _start_writer(engine: Engine, counts: DeliveryCounts | None, path: Path, lock: ProcessLock) -> Writer:
    writer = Writer(path, engine, lock, counts)
    writer.start()
    return writer
