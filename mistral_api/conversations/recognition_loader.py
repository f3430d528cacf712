"""The thread that fills the recognition index when a process starts: from the journal, then from PostgreSQL.

Requests are served meanwhile. What is not known yet is a new conversation to them, which the writer joins to the one
that it continues (``delivery.conversation_joining``). Afterwards the thread has memory forget what other processes
delete (``deletions``). Requests that use what is in memory look before: a second later would be too late.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from uuid import UUID

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from mistral_api.conversations.recognition import MAX_MESSAGES, RecognitionIndex, StoredDigest
from mistral_api.conversations.stored_digests import ConversationKey, newest_conversations, read_stored_digests
from mistral_api.database.errors import warn_of_absence
from mistral_api.recording.exchange import Exchange
from mistral_api.system.logs import ThrottledWarning

log = logging.getLogger(__name__)

# PostgreSQL is read in so many queries at most, and asked again after a while if it is away.
MAX_QUERIES, RETRY_SECONDS = 10, 5.0
# How often it is looked what other processes have deleted.
NOTICES_SECONDS = 1.0
CLOSE_SECONDS = 2.0


class RecognitionLoader:
    """Owns the thread from :meth:`start` to :meth:`close`."""

    def __init__(
        self,
        index: RecognitionIndex,
        journaled: Callable[[], Iterable[Exchange]],
        engine: Engine,
        forget_deleted: Callable[[], None],
    ) -> None:
        """``journaled`` returns the journal's newest exchanges, oldest first, or raises sqlite3.Error or OSError.

        ``forget_deleted`` is called once a second.
        """
        self._index = index
        self._journaled = journaled
        self._engine = engine
        self.forget_deleted = forget_deleted
        self._warn = ThrottledWarning(log)
        self._loaded: set[UUID] = set()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recognition-loader", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """End the thread after its current query, which has a deadline of its own."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(timeout=CLOSE_SECONDS)

    def _run(self) -> None:
        with self._index.restoring():
            # The journal comes first: what the writer delivers meanwhile is then found in PostgreSQL.
            self._load_journal()
            while not self._closing.is_set() and not self._load_database():
                self._closing.wait(RETRY_SECONDS)
            self.forget_deleted()
        while not self._closing.wait(NOTICES_SECONDS):
            self.forget_deleted()

    def _load_journal(self) -> None:
        try:
            for exchange in self._journaled():
                if self._closing.is_set():
                    return
                self._index.note(exchange)
        except (sqlite3.Error, OSError) as error:
            log.warning("conversations in the journal are not recognised until they are delivered: %s", error)

    def _load_database(self) -> bool:
        """Load the newest stored conversations. Return False where PostgreSQL is away."""
        try:
            with self._engine.connect() as connection:
                for conversations in _portions(newest_conversations(connection, MAX_MESSAGES)):
                    if self._closing.is_set():
                        break
                    nodes = read_stored_digests(connection, [each.id for each in conversations])
                    self._restore(conversations, nodes)
        except SQLAlchemyError as error:
            warn_of_absence(self._warn, "stored conversations are not recognised yet", error)
            return False
        log.info("%d messages are recognised if they are sent again", self._index.size)
        return True

    def _restore(self, conversations: Sequence[ConversationKey], nodes: dict[UUID, list[StoredDigest]]) -> None:
        # After a failure everything is read once more.
        for each in conversations:
            if each.id not in self._loaded:
                self._loaded.add(each.id)
                self._index.restore(each.owner, each.session_id, each.updated_at.timestamp(), nodes.get(each.id, []))


def _portions(conversations: Sequence[ConversationKey]) -> Iterator[list[ConversationKey]]:
    """Yield the conversations in portions of about the same number of messages, one for each query."""
    portion: list[ConversationKey] = []
    messages = 0
    for each in conversations:
        portion.append(each)
        messages += each.message_count
        if messages >= MAX_MESSAGES // MAX_QUERIES:
            yield portion
            portion, messages = [], 0
    if portion:
        yield portion
