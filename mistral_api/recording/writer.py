"""The thread that moves the journal to PostgreSQL, and tries again for as long as it takes."""

from __future__ import annotations

import logging
import random
import sqlite3
import threading
import time

from sqlalchemy import Engine
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError, StatementError

from mistral_api.exchange import Exchange
from mistral_api.recording.delivery import Delivery
from mistral_api.recording.journal import Entry, Journal
from mistral_api.recording.retention import prune

log = logging.getLogger(__name__)

BATCH = 200
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.2, 15.0
PRUNE_SECONDS = 3600.0
# A batch is gathered for so long before it is delivered, so that delivering does not compete with the
# requests that fill it; a reader who waits for it ends the gathering.
GATHER_SECONDS = 0.25


class Writer:
    """Owns the delivery thread from :meth:`start` to :meth:`close`."""

    def __init__(self, journal: Journal, engine: Engine, retention_days: int) -> None:
        self._journal = journal
        self._engine = engine
        self._delivery = Delivery(engine)
        self._retention_days = retention_days
        self._prune_at = time.monotonic()
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    def start(self) -> None:
        """Begin delivering, what an earlier life left in the journal first."""
        self._thread.start()

    def notify(self) -> None:
        """Say that the journal has something new."""
        self._wake.set()

    def hurry(self) -> None:
        """Say that somebody waits for what is in the journal."""
        self._hurry.set()

    def close(self, seconds: float) -> None:
        """Deliver what can be delivered in so many seconds, then end the thread."""
        self._closing.set()
        self._hurry.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=seconds)

    def _run(self) -> None:
        retry = FIRST_RETRY_SECONDS
        while True:
            self._wake.clear()
            self._hurry.clear()
            try:
                self._drain()
                self._prune_if_due()
                retry = FIRST_RETRY_SECONDS
                if self._closing.is_set():
                    return
                self._wake.wait(timeout=PRUNE_SECONDS)
                self._hurry.wait(timeout=GATHER_SECONDS)
            except (SQLAlchemyError, sqlite3.Error) as error:
                log.warning("recording waits for the database: %s", _first_line(error))
                if self._closing.wait(timeout=retry * random.uniform(0.5, 1.0)):  # noqa: S311 - jitter
                    return
                retry = min(retry * 2, LAST_RETRY_SECONDS)

    def _drain(self) -> None:
        while entries := self._journal.oldest(BATCH):
            try:
                self._delivery.deliver([Exchange.from_bytes(entry.payload) for entry in entries])
            except Exception as error:
                if _is_about_the_database(error):
                    raise
                self._deliver_one_by_one(entries)
            else:
                self._journal.remove(entries)

    def _deliver_one_by_one(self, entries: list[Entry]) -> None:
        """Find the entries that PostgreSQL refuses, so that they do not block those behind them."""
        for entry in entries:
            try:
                self._delivery.deliver([Exchange.from_bytes(entry.payload)])
            except Exception as error:
                if _is_about_the_database(error):
                    raise
                log.error("an exchange was set aside in the journal: %s", _first_line(error))
                self._journal.reject(entry, _first_line(error))
            else:
                self._journal.remove([entry])

    def _prune_if_due(self) -> None:
        if self._retention_days and time.monotonic() >= self._prune_at:
            deleted = prune(self._engine, self._retention_days)
            log.info("retention: %d rows older than %d days deleted", deleted, self._retention_days)
            self._prune_at = time.monotonic() + PRUNE_SECONDS


def _is_about_the_database(error: Exception) -> bool:
    """Whether an error speaks of the database's state rather than of the rows (SQLAlchemy's
    OperationalError, InterfaceError and ProgrammingError are StatementErrors too)."""
    return isinstance(error, SQLAlchemyError) and not (
        isinstance(error, DataError | IntegrityError) or type(error) is StatementError
    )


def _first_line(error: Exception) -> str:
    """One line, without the statement's parameters: those are what users wrote."""
    cause = getattr(error, "orig", None) or error
    return f"{type(cause).__name__}: {cause}".splitlines()[0][:300]
