"""The threads that sample the graphics cards for the statistics: one looks, the other adds up in PostgreSQL.

A database that is away or slow holds up no sample; what was gathered meanwhile is added when it is back. A
process that is killed takes up to a minute of samples with it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from mistral_api.analytics.gpu_stats import GpuSums
from mistral_api.database.errors import error_summary
from mistral_api.hardware.nvml import Card
from mistral_api.system.logs import ThrottledWarning

log = logging.getLogger(__name__)

SAMPLE_SECONDS, DELIVER_SECONDS = 10.0, 60.0
# Hours of cards that are kept for a database that is away, the newest: of one card those of six weeks.
KEPT_HOURS = 1000
CLOSE_SECONDS = 2.0


class GpuSampler:
    """Owns the threads from :meth:`start` to :meth:`close`.

    Of several processes on one ``folder`` one samples: whichever holds the lock, which the system releases
    when it dies. A machine without cards gets neither a lock nor a row.
    """

    def __init__(
        self,
        engine: Engine,
        look: Callable[[], list[Card]],
        folder: Path,
        sample_seconds: float = SAMPLE_SECONDS,
        deliver_seconds: float = DELIVER_SECONDS,
    ) -> None:
        """``look`` answers the cards as they are now; it must not wait for long."""
        self._engine = engine
        self._look = look
        self._sample_seconds = sample_seconds
        self._deliver_seconds = deliver_seconds
        self._turn = FileLock(folder / "gpu-sampler.lock", mode=0o600)
        self._lock = threading.Lock()
        self._sums = GpuSums()
        self._complain = ThrottledWarning(log)
        self._gathered = threading.Event()
        self._closing, self._ending = threading.Event(), threading.Event()
        self._sampler = threading.Thread(target=self._sample, name="gpu-sampler", daemon=True)
        self._delivery = threading.Thread(target=self._deliver, name="gpu-delivery", daemon=True)

    def start(self) -> None:
        """Begin; the first sample is taken at once, and delivered at once."""
        self._sampler.start()
        self._delivery.start()

    def close(self) -> None:
        """Deliver what is there if that takes no longer than a moment, and end the threads."""
        for thread, end in ((self._sampler, self._closing), (self._delivery, self._ending)):
            end.set()
            self._gathered.set()
            if thread.is_alive():
                thread.join(timeout=CLOSE_SECONDS)

    def _sample(self) -> None:
        wait = 0.0
        while not self._closing.wait(wait):
            wait = self._sample_seconds
            cards = self._look()
            if cards and self._my_turn():
                with self._lock:
                    self._sums.add(datetime.now(UTC), cards)
                self._gathered.set()
        if self._turn.is_locked:
            self._turn.release()

    def _my_turn(self) -> bool:
        if self._turn.is_locked:
            return True
        try:
            Path(self._turn.lock_file).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._turn.acquire(timeout=0)
        except OSError:  # another process holds it (filelock's Timeout), or the disk fails
            return False
        return True

    def _deliver(self) -> None:
        while not self._ending.is_set():
            self._gathered.wait()
            self._deliver_sums()
            self._ending.wait(self._deliver_seconds)
        self._deliver_sums()

    def _deliver_sums(self) -> None:
        """Add what was gathered to the sums in the database, or keep it for the next time."""
        with self._lock:
            taken, self._sums = self._sums, GpuSums()
            self._gathered.clear()
        try:
            if taken:
                with self._engine.begin() as connection:
                    taken.write(connection)
        except SQLAlchemyError as error:
            self._keep(taken)
            self._complain("GPU samples wait for the database: %s", error_summary(error))

    def _keep(self, taken: GpuSums) -> None:
        with self._lock:
            taken.add_sums(self._sums)
            forgotten = taken.drop_oldest(KEPT_HOURS)
            self._sums = taken
        if forgotten:
            log.warning("GPU samples of %d hours are lost: the database has been away for too long", forgotten)
        self._gathered.set()
