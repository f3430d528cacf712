"""What requests call to be recorded, and readers to see their own records.

What one process has open of the journal: its mark, its connections, and the threads that work on them.

The recorder: what requests call to leave their record, and what readers ask about it.

Waiting until what was recorded can be read.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from mistral_api.errors import NotFound, Unavailable
from mistral_api.recording.checkpoints import CheckpointThread, Progress
from mistral_api.recording.exchange import Exchange, without_large_attachments
from mistral_api.recording.journal import Journal, prepare
from mistral_api.system.logs import ThrottledWarning
from mistral_api.system.process_lock import ProcessLock


class DeliveryHandle(Protocol):
    """A thread that moves journal rows to PostgreSQL, as far as recording knows it."""

    def hurry(self) -> None:
        """Deliver now: a reader waits for rows that are still in the journal."""

    def close(self, seconds: float) -> None:
        """Deliver what can be delivered in ``seconds``, then end the thread."""


# Starts a delivery of the journal at a path, under the lock of this process. Raises sqlite3.Error.
StartDelivery = Callable[[Path, ProcessLock], DeliveryHandle]


class JournalSession:
    """The journal while this process has it open: its lock, its connections, and the threads that work on them."""

    def __init__(self, folder: Path, start_delivery: StartDelivery) -> None:
        """Open the journal in ``folder`` and begin delivering. Raises OSError or sqlite3.Error."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with ExitStack() as undo:
            self.lock = undo.enter_context(closing(ProcessLock(folder)))
            path = prepare(folder, alone=self.lock.is_alone())
            self.journal = undo.enter_context(closing(Journal(path, self.lock.name)))
            self.delivery = start_delivery(path, self.lock)
            undo.pop_all()  # nothing has failed: all stays open
        self.checkpoints = CheckpointThread(self.journal, path)
        self.checkpoints.start()

    def close(self, seconds: float) -> None:
        """Deliver what can be delivered in so many seconds; the rest stays in the journal."""
        self.checkpoints.close()
        self.delivery.close(seconds)
        self.journal.close()
        self.lock.close()


log = logging.getLogger(__name__)

POLL_SECONDS = 0.01
# A journal that could not be opened or written is tried again no more often than this.
TRY_AGAIN_SECONDS = 1.0
# Exchanges that the disk did not take, kept until it does: this many, the newest.
KEPT_IN_MEMORY = 200
# How long closing may take to deliver what waits.
DRAIN_SECONDS = 5.0


class RecordingFailed(Exception):
    """The journal cannot be written, and RECORDING_REQUIRED says that nothing goes unrecorded."""


@dataclass(frozen=True, slots=True)
class RecordingPolicy:
    """What is recorded: any text at all, attachments of how many bytes; and whether requests depend on it."""

    store_content: bool = True
    attachment_bytes: int = 1 << 20
    required: bool = False


@dataclass(frozen=True, slots=True)
class RecordingState:
    """What waits for PostgreSQL, and what it will never take.

    ``healthy`` is false while the journal itself cannot be written; ``pending`` and ``rejected`` are 0 then
    if it cannot be read either.
    """

    healthy: bool
    pending: int = 0
    oldest_pending_seconds: float | None = None
    rejected: int = 0


class Recorder:
    """Owns the journal and the threads on it from :meth:`start` to :meth:`close`."""

    def __init__(self, folder: Path, policy: RecordingPolicy, start_delivery: StartDelivery) -> None:
        """``folder`` is the journal's; ``start_delivery`` is called each time that the journal is opened."""
        self._folder = folder
        self._policy = policy
        self._start_delivery = start_delivery
        self._lock = threading.Lock()
        self._session: JournalSession | None = None
        self._healthy = True
        self._late: deque[tuple[int | None, Exchange]] = deque(maxlen=KEPT_IN_MEMORY)
        self._try_at = float("-inf")
        self._complain = ThrottledWarning(log)

    def start(self) -> None:
        """Open the journal and begin delivering. A disk that does not take it is tried again later."""
        with self._lock:
            if self._session is not None or time.monotonic() < self._try_at:
                return
            try:
                self._session = JournalSession(self._folder, self._start_delivery)
            except (OSError, sqlite3.Error) as error:
                self._try_at = time.monotonic() + TRY_AGAIN_SECONDS
                self._failed(error)

    def kept(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
        """What is to be recorded of the messages of a request."""
        if not self._policy.store_content:
            return None
        return without_large_attachments(messages, self._policy.attachment_bytes)

    def begin(self, exchange: Exchange, progress: Progress) -> int | None:
        """Journal what a request asks for; answer its position, or None where the disk did not take it.

        ``progress`` is asked for the outcome so far while the exchange is open. Raises RecordingFailed if
        recording is required.
        """
        try:
            session = self._required()
            position = session.journal.begin(exchange)
        except sqlite3.Error as error:
            self._failed(error)
            if self._policy.required:
                raise RecordingFailed("the journal cannot be written") from error
            return None
        self._succeeded(session.journal)
        session.checkpoints.add(position, progress)
        return position

    def end(self, position: int | None, exchange: Exchange) -> None:
        """Journal how an exchange ended. A disk that fails costs the record, never the answer."""
        try:
            session = self._required()
            if position is not None:
                session.checkpoints.discard(position)
            _write(session.journal, position, exchange)
        except sqlite3.Error as error:
            self._late.append((position, exchange))
            self._failed(error)
        else:
            self._succeeded(session.journal)

    def _opened(self) -> JournalSession | None:
        if self._session is None:
            self.start()
        return self._session

    def _required(self) -> JournalSession:
        """Raises sqlite3.OperationalError where the journal cannot be opened."""
        session = self._opened()
        if session is None:
            raise sqlite3.OperationalError("the journal is not open")
        return session

    def _succeeded(self, journal: Journal) -> None:
        """The disk takes writes: write what it did not take before."""
        self._healthy = True
        while self._late:
            try:
                position, exchange = self._late.popleft()
            except IndexError:  # another thread took the last one
                return
            try:
                _write(journal, position, exchange)
            except sqlite3.Error as error:
                self._late.appendleft((position, exchange))
                self._failed(error)
                return

    def _failed(self, error: Exception) -> None:
        self._healthy = False
        self._complain("requests are not being recorded: the journal in %s cannot be written: %s", self._folder, error)

    def wait_for_session(self, owner: str, session_id: str, seconds: float) -> bool:
        """Wait until PostgreSQL has all that was said in a session; False when it takes longer."""
        return self._wait(
            lambda journal: journal.has_session(owner, session_id),
            lambda late: (late.owner, late.session_id) == (owner, session_id),
            seconds,
        )

    def wait_for_all(self, seconds: float) -> bool:
        """Wait until PostgreSQL has everything that has ended by now; False when it takes longer."""
        last: list[int | None] = []

        def waits(journal: Journal) -> bool:
            if not last:
                last.append(journal.last_ended())
            return last[0] is not None and journal.has_up_to(last[0])

        return self._wait(waits, lambda _late: True, seconds)

    def _wait(
        self, in_journal: Callable[[Journal], bool], concerned: Callable[[Exchange], bool], seconds: float
    ) -> bool:
        """Wait until neither the journal has what is asked for, nor any of it has not even got there."""
        deadline = time.monotonic() + seconds
        while any(concerned(exchange) for _, exchange in self._late.copy()) or self._waits(in_journal):
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def _waits(self, in_journal: Callable[[Journal], bool]) -> bool:
        """Whether the journal has what is asked for; whoever asks is in a hurry."""
        session = self._opened()
        if session is None:
            return False
        try:
            waits = in_journal(session.journal)
        except sqlite3.Error as error:
            self._failed(error)
            return True
        if waits:
            session.delivery.hurry()
        return waits

    def state(self) -> RecordingState:
        """How recording goes. A journal that could not be written is tried again."""
        session = self._opened()
        if session is None:
            return RecordingState(healthy=False)
        try:
            if not self._healthy and time.monotonic() >= self._try_at:
                self._try_at = time.monotonic() + TRY_AGAIN_SECONDS
                session.journal.require_writable()
                self._succeeded(session.journal)
            count, oldest = session.journal.pending()
            age = None if oldest is None else max(0.0, time.time() - oldest)
            return RecordingState(self._healthy, count, age, session.journal.rejected())
        except sqlite3.Error as error:
            self._failed(error)
            return RecordingState(healthy=False)

    def close(self, seconds: float = DRAIN_SECONDS) -> None:
        """Deliver what can be delivered in so many seconds; the rest stays in the journal."""
        with self._lock:
            if self._session is not None:
                self._session.close(seconds)
            self._session = None
            # Nothing opens it again.
            self._try_at = float("inf")


def _write(journal: Journal, position: int | None, exchange: Exchange) -> None:
    if position is None:
        journal.add(exchange)
    else:
        journal.end(position, exchange)


T = TypeVar("T")

DEADLINE_SECONDS = 2.0


def require_session_recorded(recorder: Recorder, owner: str, session_id: str) -> None:
    """Wait until all that was said in a session can be read. Raises Unavailable (``recording_delayed``)."""
    if not recorder.wait_for_session(owner, session_id, DEADLINE_SECONDS):
        raise Unavailable(
            "The newest messages of this conversation are recorded but not readable yet.", code="recording_delayed"
        )


def require_all_recorded(recorder: Recorder) -> None:
    """Wait until every exchange that has ended can be read. Raises Unavailable (``recording_delayed``)."""
    if not recorder.wait_for_all(DEADLINE_SECONDS):
        raise Unavailable("The newest records are kept but not readable yet.", code="recording_delayed")


def retry_until_recorded(recorder: Recorder, find: Callable[[], T]) -> T:
    """What ``find`` finds: at once, or when everything that has ended can be read.

    Raises NotFound, and Unavailable (``recording_delayed``).
    """
    try:
        return find()
    except NotFound:
        require_all_recorded(recorder)
        return find()
