"""The recorder: requests leave their record with it; readers see what is pending, and changes wait until nothing is.

A record goes to the journal on the local disk at once, and from there to PostgreSQL: by a thread that
``StartDelivery`` starts, or by another process (``deliverer_link``). A disk that does not take a record never costs an
answer, unless RECORDING_REQUIRED says that nothing may go unrecorded: the newest ``MAX_UNWRITTEN`` finished exchanges
wait in memory until the disk takes writes.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mistral_api.errors import Unavailable
from mistral_api.event_loop import waiting
from mistral_api.payload_types.chat import ChatMessage
from mistral_api.recording.asked_models import AskedModels
from mistral_api.recording.begun_sessions import BegunSessions
from mistral_api.recording.checkpoints import CheckpointThread, Progress
from mistral_api.recording.deliverer_link import DELIVERER
from mistral_api.recording.exchange import Exchange, without_large_attachments
from mistral_api.recording.journal import Journal, prepare_journal
from mistral_api.recording.newest_exchanges import newest_exchanges
from mistral_api.recording.other_processes import SIBLING, OtherProcesses
from mistral_api.recording.pending import PendingExchanges
from mistral_api.recording.stored_object import object_key, object_key_of
from mistral_api.system.logs import ThrottledWarning
from mistral_api.system.process_lock import ProcessLock

log = logging.getLogger(__name__)

POLL_SECONDS = 0.01
# The least time between two attempts to open or write a journal that failed.
RETRY_SECONDS = 1.0
# Finished exchanges that the disk did not take: the newest of them wait in memory.
MAX_UNWRITTEN = 200
# How long closing may take to deliver what waits.
DRAIN_SECONDS = 5.0
# How long a change waits until what it changes has been delivered: to a slow PostgreSQL, and to one that is away.
CHANGE_TIMEOUT_SECONDS, AWAY_TIMEOUT_SECONDS = 15.0, 2.0


class RecordingFailed(Exception):
    """The journal cannot be written, and RECORDING_REQUIRED says that nothing goes unrecorded."""


@dataclass(frozen=True, slots=True)
class RecordingPolicy:
    """What is recorded: any text at all, attachments up to which size; and whether a request depends on its record.

    ``keeps_unstored``: the conversation is also kept where a request says ``store: false``. ``synced``: what is
    recorded is on the disk before the request goes on (JOURNAL_SYNC).
    """

    store_content: bool = True
    max_attachment_bytes: int = 1 << 20
    required: bool = False
    keeps_unstored: bool = False
    synced: bool = False


@dataclass(frozen=True, slots=True)
class RecordingState:
    """How many exchanges wait for PostgreSQL, and how many of them it will never take.

    ``healthy`` is false while the journal cannot be written. ``pending`` and ``rejected`` are 0 if it cannot be read
    either.
    """

    healthy: bool
    pending: int = 0
    oldest_pending_seconds: float | None = None
    rejected: int = 0


class Recorder:
    """Owns the journal and the threads on it from :meth:`start` to :meth:`close`. Safe to use from many threads."""

    def __init__(self, folder: Path, policy: RecordingPolicy, start_delivery: StartDelivery, role: str = "") -> None:
        """``folder`` is the journal's; ``start_delivery`` is called each time that the journal is opened; ``role``: of
        this process, in its lock."""
        self._folder, self._role = folder, role
        self._policy = policy
        self._start_delivery = start_delivery
        self._lock = threading.Lock()
        self._session: JournalSession | None = None
        self._healthy = True
        self._unwritten: deque[tuple[int | None, Exchange]] = deque(maxlen=MAX_UNWRITTEN)
        self._begun_sessions = BegunSessions(self._processes_changed, self._has_other_processes)
        # Held by the thread that writes them after all. Nobody waits for it.
        self._rewriting = threading.Lock()
        self.pending = PendingExchanges(lambda: [exchange for _, exchange in self._unwritten.copy()])
        self._retry_at = float("-inf")
        # Whether strangers serve requests too: other processes than those that share our memory.
        self.other_processes = OtherProcesses(self._sees_other_processes)
        self._warn = ThrottledWarning(log)
        # The names of models in requests that were refused.
        self.asked_models = AskedModels()
        # Called with each exchange when it ends, before its client sees the end.
        self.on_end: Callable[[Exchange], None] = lambda _exchange: None

    def start(self) -> None:
        """Open the journal and start delivery. If the disk does not take it, a later call tries again."""
        with self._lock:
            if self._session is not None or time.monotonic() < self._retry_at:
                return
            try:
                self._session = self._new_session()
            except (OSError, sqlite3.Error) as error:
                self._retry_at = time.monotonic() + RETRY_SECONDS
                self._note_failure(error)

    def _new_session(self) -> JournalSession:
        """Open the journal, for readers too. Raises OSError or sqlite3.Error."""
        session = JournalSession(self._folder, self._start_delivery, synced=self._policy.synced, role=self._role)
        try:
            self.pending.open(session.path)
        except sqlite3.Error:
            session.close(0)
            raise
        return session

    def _sees_other_processes(self) -> bool:
        session = self._session
        return session is None or session.lock.sees_others(without_roles=(DELIVERER, SIBLING))

    def _processes_changed(self) -> int | None:
        """Return what is another number whenever an API process has come or gone, None where nobody can tell."""
        session = self._session
        return None if session is None else session.lock.changed_at()

    def _has_other_processes(self) -> bool:
        """Return whether there may be other API processes now."""
        session = self._session
        return session is None or session.lock.may_see_others(without_role=DELIVERER)

    def recordable_messages(self, messages: Sequence[ChatMessage], *, store: bool = True) -> list[ChatMessage] | None:
        """Return the messages as they may be recorded, or None where no text may be. ``store``: the client's word."""
        if not self._policy.store_content or not (store or self._policy.keeps_unstored):
            return None
        return without_large_attachments(messages, self._policy.max_attachment_bytes)

    def begin(self, exchange: Exchange, progress: Progress) -> int | None:
        """Journal the opening of an exchange. Return its position, or None where the disk did not take it.

        ``progress`` returns the outcome so far; a thread calls it while the exchange is open. Raises RecordingFailed
        if recording is required.
        """
        self._begun_sessions.begin(exchange)
        try:
            session = self._require_session()
            position = session.journal.begin(exchange)
        except sqlite3.Error as error:
            self._note_failure(error)
            if self._policy.required:
                self._begun_sessions.drop(exchange)
                raise RecordingFailed("the journal cannot be written") from error
            return None
        self._note_success(session.journal)
        session.checkpoints.add(position, progress)
        return position

    def end(self, position: int | None, exchange: Exchange) -> None:
        """Journal the outcome of an exchange. A disk that fails costs the record, never the answer.

        ``position`` is what :meth:`begin` returned.
        """
        self._begun_sessions.end(exchange)
        try:
            session = self._require_session()
            if position is not None:
                session.checkpoints.discard(position)
            _write(session.journal, position, exchange)
        except sqlite3.Error as error:
            self._unwritten.append((position, exchange))
            self._note_failure(error)
        else:
            self._note_success(session.journal)
        try:
            self.on_end(exchange)
        except Exception:
            log.exception("an exchange is recorded, and its conversation may not be recognised")

    def newest_exchanges(self) -> Iterator[Exchange]:
        """Yield the newest exchanges in the journal, of all processes, oldest first. Raises sqlite3.Error, OSError."""
        session = self._require_session()
        return newest_exchanges(session.journal.path, session.lock.has_ended)

    def _open_session(self) -> JournalSession | None:
        """Return the open journal, opened now if need be; None where it cannot be opened."""
        if self._session is None:
            waiting.aside(self.start)
        return self._session

    def _require_session(self) -> JournalSession:
        """Return the open journal. Raises sqlite3.OperationalError where it cannot be opened."""
        session = self._open_session()
        if session is None:
            raise sqlite3.OperationalError("the journal is not open")
        return session

    def _note_success(self, journal: Journal) -> None:
        """The disk takes writes: write the exchanges that it did not take before."""
        self._healthy = True
        if self._unwritten and self._rewriting.acquire(blocking=False):
            try:
                self._write_unwritten(journal)
            finally:
                self._rewriting.release()

    def _write_unwritten(self, journal: Journal) -> None:
        """Write what waits in memory, oldest first. A reader finds each in the journal before it leaves the memory."""
        while self._unwritten:
            entry = self._unwritten[0]
            try:
                _write(journal, *entry)
            except sqlite3.Error as error:
                self._note_failure(error)
                return
            # A newer one may have pushed it out meanwhile.
            with contextlib.suppress(ValueError):
                self._unwritten.remove(entry)

    def _note_failure(self, error: Exception) -> None:
        self._healthy = False
        self._warn("requests are not being recorded: the journal in %s cannot be written: %s", self._folder, error)

    def require_delivered(self, owner: str, session_id: str) -> None:
        """Wait until PostgreSQL has every finished exchange of a session, which is to be changed there.

        Raises Unavailable (``database_unavailable``) where PostgreSQL is away, or takes too long.
        """
        self._require_delivered(
            lambda journal: journal.has_pending_session(owner, session_id),
            lambda exchange: (exchange.owner, exchange.session_id) == (owner, session_id),
        )

    def require_object_delivered(self, kind: str, owner: str, object_id: str) -> None:
        """Wait until PostgreSQL has an owner's stored object, which is to be changed there. Raises Unavailable."""
        key = object_key(kind, owner, object_id)
        self._require_delivered(
            lambda journal: journal.has_pending_object(key), lambda exchange: object_key_of(exchange) == key
        )

    def require_all_delivered(self) -> None:
        """Wait until PostgreSQL has every exchange that has ended by now. Raises Unavailable."""
        last: list[float | None] = []

        def has_pending(journal: Journal) -> bool:
            if not last:
                last.append(journal.last_ending())
            return last[0] is not None and journal.has_pending_up_to(last[0])

        self._require_delivered(has_pending, lambda _exchange: True)

    def _require_delivered(self, has_pending: Callable[[Journal], bool], is_wanted: Callable[[Exchange], bool]) -> None:
        """Wait until neither the journal nor the memory holds any of the wanted exchanges."""
        began = time.monotonic()
        while self._has_unwritten(is_wanted) or self._has_pending(has_pending):
            patience = AWAY_TIMEOUT_SECONDS if self._delivery_fails() else CHANGE_TIMEOUT_SECONDS
            if time.monotonic() >= began + patience:
                raise Unavailable(
                    "What is to be changed is recorded, and has not reached the database yet.",
                    code="database_unavailable",
                )
            time.sleep(POLL_SECONDS)

    def _delivery_fails(self) -> bool:
        """Return whether PostgreSQL did not answer the last attempt."""
        session = self._session
        return session is not None and session.delivery.is_failing()

    def _has_unwritten(self, is_wanted: Callable[[Exchange], bool]) -> bool:
        return any(is_wanted(exchange) for _, exchange in self._unwritten.copy())

    def _has_pending(self, has_pending: Callable[[Journal], bool]) -> bool:
        """Return whether the journal holds any of the wanted exchanges. If so, they are delivered without delay."""
        session = self._open_session()
        if session is None:
            return False
        try:
            pending = has_pending(session.journal)
        except sqlite3.Error as error:
            self._note_failure(error)
            return True
        if pending:
            session.delivery.deliver_now()
        return pending

    def state(self) -> RecordingState:
        """Return how recording goes. Try again to write a journal that could not be written."""
        session = self._open_session()
        if session is None:
            return RecordingState(healthy=False)
        try:
            if not self._healthy and time.monotonic() >= self._retry_at:
                self._retry_at = time.monotonic() + RETRY_SECONDS
                session.journal.require_writable()
                self._note_success(session.journal)
            count, oldest = session.journal.pending()
            age = None if oldest is None else max(0.0, time.time() - oldest)
            return RecordingState(self._healthy, count, age, session.journal.rejected())
        except sqlite3.Error as error:
            self._note_failure(error)
            return RecordingState(healthy=False)

    def close(self, seconds: float = DRAIN_SECONDS) -> None:
        """Deliver what can be delivered in ``seconds``, and close the journal; the rest stays in it."""
        with self._lock:
            if self._session is not None:
                self._session.close(seconds)
                self.pending.close()
            self._session = None
            # Nothing opens it again.
            self._retry_at = float("inf")


def _write(journal: Journal, position: int | None, exchange: Exchange) -> None:
    if position is None:
        journal.add(exchange)
    else:
        journal.end(position, exchange)


class DeliveryHandle(Protocol):
    """What moves journal rows to PostgreSQL, a thread or another process, as far as recording knows it."""

    def deliver_now(self) -> None:
        """Deliver without delay: somebody waits for rows that are still in the journal."""

    def is_failing(self) -> bool:
        """Return whether the last attempt to deliver failed."""

    def close(self, seconds: float) -> None:
        """Where it is a thread: deliver what can be delivered in ``seconds``, then end it."""


# Starts delivery of the journal at a path, under the lock of this process. Raises sqlite3.Error.
StartDelivery = Callable[[Path, ProcessLock], DeliveryHandle]


class JournalSession:
    """The journal while this process has it open: its lock, its connections, and the threads that work on them."""

    def __init__(self, folder: Path, start_delivery: StartDelivery, *, synced: bool, role: str = "") -> None:
        """Open the journal in ``folder`` and start delivery. ``synced``: each write waits for the disk. ``role``: of
        this process, in its lock.

        Raises OSError or sqlite3.Error.
        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with ExitStack() as undo:
            self.lock = undo.enter_context(closing(ProcessLock(folder, role)))
            self.path = prepare_journal(folder, alone=self.lock.is_alone())
            self.journal = undo.enter_context(closing(Journal(self.path, self.lock.name, synced=synced)))
            self.delivery = start_delivery(self.path, self.lock)
            undo.pop_all()  # nothing has failed: all stays open
        self.checkpoints = CheckpointThread(self.journal)
        self.checkpoints.start()

    def close(self, seconds: float) -> None:
        """Deliver what can be delivered in ``seconds``, and close the journal; the rest stays in it."""
        self.checkpoints.close()
        self.delivery.close(seconds)
        self.journal.close()
        self.lock.close()
