"""The thread that keeps the ring of keys as the database has them, and the mirror as the ring.

It listens for the notification of a change (LISTEN, PostgreSQL's documentation), and asks every two seconds besides: a
pooler between us and PostgreSQL may swallow notifications. So a revoked key is refused in every API process within
five seconds. When keys were used last is noted in the database once a minute.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import threading
import time
from datetime import UTC, datetime
from uuid import UUID

from psycopg2.errorcodes import UNDEFINED_TABLE
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, ProgrammingError, SQLAlchemyError
from sqlalchemy.orm import Session

from mistral_api.api_keys.key_mirror import KeyMirror
from mistral_api.api_keys.key_store import CHANNEL, list_keys, records_of
from mistral_api.database.deadlines import answer_within
from mistral_api.database.errors import error_summary, sqlstate, warn_of_absence
from mistral_api.database.tables.base import rows_as_json
from mistral_api.security.api_key import KeyRecord
from mistral_api.security.key_ring import KeyRing
from mistral_api.system.logs import ThrottledWarning

log = logging.getLogger(__name__)

POLL_SECONDS = 2.0
USES_SECONDS = 60.0
# A database that does not answer in this time counts as away.
ANSWER_SECONDS = 4.0
# How long the first request waits for the keys, without a mirror, and with one that can do for now.
LOAD_SECONDS, LOAD_SECONDS_WITH_MIRROR = 8.0, 1.0
CLOSE_SECONDS = 3.0

# The sum grows with every change, in whatever order changes are committed.
_STATE = text("SELECT count(*), coalesce(sum(revision), 0) FROM api_keys")
_NOTE_USES = text(
    "UPDATE api_keys AS k SET last_used_at = u.at "
    "FROM json_to_recordset(CAST(:rows AS json)) AS u(id uuid, at timestamptz) "
    "WHERE k.id = u.id AND (k.last_used_at IS NULL OR k.last_used_at < u.at)"
)


class KeyWatcher:
    """Owns its thread and the one connection of ``engine`` from :meth:`start` to :meth:`close`."""

    def __init__(self, ring: KeyRing, engine: Engine, mirror: KeyMirror, poll_seconds: float = POLL_SECONDS) -> None:
        """``engine`` is for this watcher alone."""
        self._ring = ring
        self._engine = engine
        self._mirror = mirror
        self._poll_seconds = poll_seconds
        self._warn, self._warn_of_mirror = ThrottledWarning(log), ThrottledWarning(log)
        # What was last read, as _STATE tells it.
        self._state: tuple[int, int] | None = None
        self._records: list[KeyRecord] = []
        self._uses: dict[UUID, float] = {}
        self._uses_at = time.monotonic()
        self._stop = threading.Event()
        self._wake_up: _WakeUp | None = None
        self._has_mirror = False
        # How often a read was asked for, and up to which of these requests the last one has answered.
        self._turns = threading.Condition()
        self._requested, self._answered = 0, -1
        self._thread = threading.Thread(target=self._run, name="key-watcher", daemon=True)

    def start(self) -> None:
        """Give the ring what the mirror says, and start to watch the database."""
        mirrored = self._mirror.read()
        self._mirror.begin()
        if mirrored is not None:
            self._has_mirror = True
            self._ring.replace(mirrored, complete=False)
        self._wake_up = _WakeUp()
        self._thread.start()

    def wait_until_loaded(self) -> None:
        """Wait for the first answer of the database, for a bounded time; not for long where the mirror can do."""
        self._wait_for_answer(0, LOAD_SECONDS_WITH_MIRROR if self._has_mirror else LOAD_SECONDS)

    def refresh(self) -> None:
        """Have the ring as the database is now: whoever has just changed a key sees the change in this process."""
        with self._turns:
            self._requested += 1
            wanted = self._requested
        if self._wake_up is not None:
            self._wake_up.send()
        self._wait_for_answer(wanted, self._poll_seconds + ANSWER_SECONDS)

    def load(self) -> bool:
        """Read the keys now, of a database that has just come. Return whether the ring has them."""
        self.refresh()
        return self._ring.complete

    def _wait_for_answer(self, wanted: int, seconds: float) -> None:
        with self._turns:
            self._turns.wait_for(lambda: self._answered >= wanted or not self._thread.is_alive(), seconds)

    def close(self) -> None:
        """Note the last uses if that is soon done, and end the thread and its connection."""
        self._stop.set()
        if self._wake_up is not None:
            self._wake_up.send()
            self._thread.join(timeout=CLOSE_SECONDS)
            if not self._thread.is_alive():
                self._wake_up.close()
        self._engine.dispose()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with answer_within(ANSWER_SECONDS), self._engine.connect() as connection:
                    self._watch(connection.execution_options(isolation_level="AUTOCOMMIT"))
            except SQLAlchemyError as error:
                self._ring.mark_incomplete()
                warn_of_absence(self._warn, "API keys are not watched, the database is away", error)
                self._answer(self._requested)
                if not self._stop.is_set():
                    self._wait(None)

    def _watch(self, connection: Connection) -> None:
        """Read the keys again and again, until it is time to stop. Raises sqlalchemy.exc.SQLAlchemyError."""
        self._listen(connection)
        while True:
            requested = self._requested
            self._read(connection)
            self._answer(requested)
            if self._stop.is_set() or time.monotonic() - self._uses_at >= USES_SECONDS:
                self._note_uses(connection)
            if self._stop.is_set():
                return
            self._wait(connection)

    def _listen(self, connection: Connection) -> None:
        try:
            connection.exec_driver_sql(f"LISTEN {CHANNEL}")
        except DBAPIError as error:
            if error.connection_invalidated:
                raise
            log.info("changes of API keys are found by asking alone: %s", error_summary(error))

    def _read(self, connection: Connection) -> None:
        """Give the ring and the mirror the keys, where they have changed."""
        try:
            count, revisions = connection.execute(_STATE).one()
        except ProgrammingError as error:
            if sqlstate(error) != UNDEFINED_TABLE:
                raise
            self._note_missing_table()
            return
        state = (int(count), int(revisions))
        if state != self._state or not self._ring.complete:
            # Rows that are newer than the state are read again at the next look.
            self._records = records_of(list_keys(Session(connection)))
            self._ring.replace(self._records, complete=True)
            self._state = state
        self._write_mirror()

    def _note_missing_table(self) -> None:
        """Note that the database has no table of keys yet, and so no key, unless there were some a moment ago.

        A table that is away while a backup is restored, or for good, opens the door to nobody.
        """
        self._state = None
        if self._has_mirror or self._records:
            self._ring.mark_incomplete()
        else:
            self._ring.replace([], complete=True)

    def _write_mirror(self) -> None:
        try:
            self._mirror.write(self._records)
        except OSError as error:
            self._warn_of_mirror("the mirror of the API keys cannot be written: %s", error)

    def _note_uses(self, connection: Connection) -> None:
        """Store when each key was used last."""
        self._uses_at = time.monotonic()
        self._uses |= self._ring.take_uses()
        if self._uses:
            rows = [{"id": key_id, "at": datetime.fromtimestamp(at, UTC)} for key_id, at in self._uses.items()]
            connection.execute(_NOTE_USES, {"rows": rows_as_json(rows)})
            self._uses = {}

    def _answer(self, requested: int) -> None:
        """Tell whoever waits that what was asked for until then is done, as far as it can be."""
        with self._turns:
            self._answered = max(self._answered, requested)
            self._turns.notify_all()

    def _wait(self, connection: Connection | None) -> None:
        """Wait for a notification, for :meth:`refresh` or :meth:`close`, at most until it is time to ask again."""
        assert self._wake_up is not None  # noqa: S101 - made before the thread is started
        self._wake_up.wait(self._poll_seconds, None if connection is None else connection.connection.fileno())


class _WakeUp:
    """What ends a wait of the thread: a pair of sockets, since the wait is for a connection as well."""

    def __init__(self) -> None:
        self._receiver, self._sender = socket.socketpair()
        self._receiver.setblocking(False)
        self._sender.setblocking(False)

    def send(self) -> None:
        """End the wait, or the next one."""
        with contextlib.suppress(OSError):  # closed, or so full that the thread will wake anyway
            self._sender.send(b"\0")

    def wait(self, seconds: float, descriptor: int | None) -> None:
        """Wait for :meth:`send`, or until something can be read from a descriptor."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._receiver, selectors.EVENT_READ)
            if descriptor is not None:
                selector.register(descriptor, selectors.EVENT_READ)
            selector.select(timeout=seconds)
        with contextlib.suppress(BlockingIOError):
            while self._receiver.recv(4096):
                pass

    def close(self) -> None:
        """Close both sockets."""
        self._receiver.close()
        self._sender.close()
