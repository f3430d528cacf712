"""The thread that looks after the embedded PostgreSQL: it starts it again when it was killed, or has crashed.

Each server process on a DATA_DIR has one. The lock of the cluster has them take turns: one of them starts it, and the
others find it running.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NotRequired, TypedDict

import psutil

from mistral_api.errors import StartError
from mistral_api.system.backoff import Backoff
from mistral_api.system.processes import ProcessIdentity, is_alive

log = logging.getLogger(__name__)

CHECK_SECONDS = 0.25
MAX_RESTARTS = 10
# A start, with the recovery after a crash, takes a minute at most; one that is under way is waited for.
CLOSE_SECONDS = 75.0


class EmbeddedHealth(TypedDict):
    """The object ``embedded_postgres`` of ``/health``: how the embedded PostgreSQL is looked after.

    ``last_error`` says why it does not run, and is null while it does; it is not for strangers.
    """

    state: Literal["running", "restarting", "given_up"]
    restarts: int
    last_error: NotRequired[str | None]


class PostgresWatcher:
    """Owns the thread ``postgres-watcher`` from :meth:`start` to :meth:`close`."""

    def __init__(
        self,
        find: Callable[[], ProcessIdentity | None],
        restart: Callable[[], None],
        log_folder: Path,
        backoff: Backoff | None = None,
    ) -> None:
        """``find`` returns the postmaster that runs, and is asked several times a second; ``restart`` starts one, or
        raises StartError; ``log_folder`` is named where PostgreSQL is given up."""
        self._find, self._restart, self._log_folder = find, restart, log_folder
        self._backoff = backoff or Backoff(MAX_RESTARTS)
        self._current: ProcessIdentity | None = None
        self._started_at = time.monotonic()
        self._health: EmbeddedHealth = {"state": "running", "restarts": 0, "last_error": None}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="postgres-watcher", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._current = self._find()
        self._thread.start()

    def close(self) -> None:
        """End the thread. A start that is under way is waited for."""
        self._stop.set()
        self._thread.join(timeout=CLOSE_SECONDS)

    def health(self) -> EmbeddedHealth:
        """Return how it is now."""
        return self._health

    def _run(self) -> None:
        while not self._stop.wait(CHECK_SECONDS):
            if self._current is not None and is_alive(self._current):
                continue
            former, self._current = self._current, self._find_quietly()
            if self._current is None:
                self._start_again("it ended" if former is None else f"its process {former.pid} ended")

    def _find_quietly(self) -> ProcessIdentity | None:
        """Return the postmaster; None where the system does not say, for then the start will tell."""
        try:
            return self._find()
        except (OSError, psutil.Error) as error:
            log.debug("nobody says whether PostgreSQL runs", exc_info=error)
            return None

    def _start_again(self, problem: str) -> None:
        """Start it again, once it is time, and again where that fails, until it runs or the thread is to end."""
        ended_at = time.monotonic()
        healthy_seconds = ended_at - self._started_at
        while not self._stop.wait(self._next_delay(problem, healthy_seconds)):
            try:
                self._restart()
            except StartError as error:
                problem, healthy_seconds = str(error).rstrip("."), 0.0
                continue
            except Exception as error:  # whatever it is (no memory, no room): the next try may do
                log.debug("the embedded PostgreSQL cannot be started", exc_info=error)
                problem, healthy_seconds = f"{type(error).__name__}: {error}", 0.0
                continue
            self._current, self._started_at = self._find_quietly(), time.monotonic()
            self._health = {"state": "running", "restarts": self._health["restarts"] + 1, "last_error": None}
            log.warning("the embedded PostgreSQL runs again, %.1f s after its end", self._started_at - ended_at)
            return

    def _next_delay(self, problem: str, healthy_seconds: float) -> float:
        """Return the seconds until the next try, and say so."""
        restarts, delay = self._health["restarts"], self._backoff.next_delay(healthy_seconds)
        if delay is not None:
            self._health = {"state": "restarting", "restarts": restarts, "last_error": problem}
            log.warning("the embedded PostgreSQL does not run: %s; it is started again in %.1f s", problem, delay)
            return delay
        delay = self._backoff.next_slow_delay()
        self._health = {"state": "given_up", "restarts": restarts, "last_error": problem}
        log.error(
            "the embedded PostgreSQL is given up for %.0f minutes: %s; records wait in the journal; its log is in '%s'",
            delay / 60, problem, self._log_folder,
        )  # fmt: skip
        return delay
