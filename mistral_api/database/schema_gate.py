"""The gate of a process that uses the schema of this version and never migrates: it opens once the schema is there.

Somebody else, an API process, migrates. Until then connections are refused at once, with the reason
(``DatabaseNotPrepared``), as ``database.preparation`` does it there; the API says in the log what is the matter.
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
LOOK_SECONDS, FIRST_LOOK_SECONDS, CLOSE_SECONDS = 5.0, 2.0, 1.0


class SchemaGate:
    """Owns the thread ``schema-gate`` from :meth:`start` to :meth:`close`; it ends by itself when the gate opens."""

    def __init__(self, engine: Engine) -> None:
        """``engine`` is for the gate alone."""
        self._engine = engine
        self._address = shown_address(engine.url)
        self._reason = f"{self._address}: it has not answered yet"
        self._looked, self._open, self._closing = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="schema-gate", daemon=True)

    def guard(self, engine: Engine) -> Engine:
        """Return an engine that makes no connections until the gate is open."""

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
            if seconds is None:
                self._open.set()
            self._looked.set()
            if seconds is None:
                return
            if not told:
                told = True
                log.info("nothing is delivered yet, and all of it waits in the journal: %s", self._reason)
            self._closing.wait(seconds)

    def _look(self) -> float | None:
        """Look at the database. Return None where it may be used, or after how many seconds to look again."""
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
            return None
        self._reason = f"{self._address}: its schema is not of this version (revision {revision}, and not {newest})"
        return RETRY_SECONDS
