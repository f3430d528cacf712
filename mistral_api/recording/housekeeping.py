"""The thread that keeps the database in order: partitions made ahead, what is old forgotten, sums made once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from mistral_api.analytics.rebuild import rebuild_if_never_built
from mistral_api.recording.complaints import ThrottledWarning
from mistral_api.recording.failures import first_line
from mistral_api.recording.partitions import coming_months, create_partitions
from mistral_api.recording.retention import prune_older_than

log = logging.getLogger(__name__)

EVERY_SECONDS, TRY_AGAIN_SECONDS = 3600.0, 30.0


class Housekeeping:
    """Owns the thread from :meth:`start` to :meth:`close`."""

    def __init__(self, engine: Engine, retention_days: int, forget: Callable[[int], None]) -> None:
        """0 days keep everything; ``forget`` removes what is kept elsewhere of conversations older than so many."""
        self._forget = forget
        self._engine = engine
        self._retention_days = retention_days
        self._complain = ThrottledWarning(log)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)

    def start(self) -> None:
        """Begin; the first round is made at once."""
        self._thread.start()

    def close(self) -> None:
        """End the thread; what it is at stops after its current step."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(timeout=1)

    def _run(self) -> None:
        wait = 0.0
        while not self._closing.wait(wait):
            try:
                self._tidy()
                wait = EVERY_SECONDS
            except SQLAlchemyError as error:
                self._complain("housekeeping waits for the database: %s", first_line(error))
                wait = TRY_AGAIN_SECONDS

    def _tidy(self) -> None:
        with self._engine.begin() as connection:
            create_partitions(connection, coming_months(datetime.now(UTC)))
        rebuild_if_never_built(self._engine)
        if self._retention_days:
            pruned = prune_older_than(self._engine, self._retention_days, stop=self._closing.is_set)
            self._forget(self._retention_days)
            log.info("retention of %d days: %s", self._retention_days, pruned)
