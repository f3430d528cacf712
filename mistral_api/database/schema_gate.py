"""The gate of a process that uses the schema of this version and never migrates: it is open while the schema is there.

Somebody else, an API process, migrates, and one of a newer version may do so later. Else connections are refused at
once, with the reason (``DatabaseNotPrepared``), as ``database.preparation`` does it there; the API says in the log what
is the matter.
"""

from __future__ import annotations

import logging
import threading

from sqlalchemy import Engine, event
from sqlalchemy.exc import SQLAlchemyError

from mistral_api.database.address import shown_address
from mistral_api.database.deadlines import answer_within
from mistral_api.database.errors import DatabaseNotPrepared, error_message, is_final
from mistral_api.database.revisions import newest_revision, read_revision

log = logging.getLogger(__name__)

# How often the database is looked at, and one that only its operator can mend.
RETRY_SECONDS, REFUSED_RETRY_SECONDS = 1.0, 15.0
# How often it is looked at while the gate is open.
LOOK_AGAIN_SECONDS = 15.0
LOOK_SECONDS, FIRST_LOOK_SECONDS, CLOSE_SECONDS = 5.0, 2.0, 1.0


class SchemaGate:
    """Owns the thread ``schema-gate`` from :meth:`start` to :meth:`close`."""

    def __init__(self, engine: Engine) -> None:
        """``engine`` is for the gate alone."""
        self._engine = engine
        self._address = shown_address(engine.url)
        self._reason = f"{self._address}: it has not answered yet"
        self._guarded: list[Engine] = []
        self._looked, self._open, self._closing = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="schema-gate", daemon=True)

    def guard(self, engine: Engine) -> Engine:
        """Return an engine that makes no connections while the gate is not open."""
        self._guarded.append(engine)

        @event.listens_for(engine, "do_connect")
        def _refuse(*_arguments: object) -> None:
            if not self._open.is_set():
                raise DatabaseNotPrepared(self._reason)

        return engine

    def start(self) -> None:
        """Begin to look, and wait for FIRST_LOOK_SECONDS at most until that was done once.

        So that what needs no waiting does not begin with a failure.
        """
        self._thread.start()
        self._looked.wait(FIRST_LOOK_SECONDS)

    def close(self) -> None:
        """End the thread. A look that still runs is left to its own deadline."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(timeout=CLOSE_SECONDS)

    def _run(self) -> None:
        told = False
        while not self._closing.is_set():
            seconds = self._look()
            self._looked.set()
            if not self._open.is_set() and not told:
                log.info("nothing is delivered, and all of it waits in the journal: %s", self._reason)
            told = not self._open.is_set()
            self._closing.wait(seconds)

    def _look(self) -> float:
        """Look at the database, and open or shut the gate. Return after how many seconds to look again."""
        newest = newest_revision()
        try:
            with self._engine.connect() as connection, answer_within(LOOK_SECONDS):
                revision = read_revision(connection)
        except SQLAlchemyError as error:
            self._reason = error_message(error)
            return REFUSED_RETRY_SECONDS if is_final(error) else RETRY_SECONDS
        finally:
            self._engine.dispose()
        if revision == newest:
            self._open.set()
            return LOOK_AGAIN_SECONDS
        self._reason = f"{self._address}: its schema is not of this version (revision {revision}, and not {newest})"
        self._shut()
        return RETRY_SECONDS

    def _shut(self) -> None:
        """Have no connection used any more, once what they are at is done."""
        if self._open.is_set():
            self._open.clear()
            for engine in self._guarded:
                engine.dispose()
