"""The threads that sample the graphics cards for the statistics: one reads the cards, one adds the sums in PostgreSQL.

A database that is away or slow delays no sample; the samples are added when it is back. A process that is killed loses
up to a minute of samples.
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
from mistral_api.database.errors import warn_of_absence
from mistral_api.hardware.nvml import Card
from mistral_api.system.logs import ThrottledWarning
from mistral_api.system.process_lock import acquire_if_free

log = logging.getLogger(__name__)

SAMPLE_SECONDS, DELIVER_SECONDS = 10.0, 60.0
# While the database is away, the newest hours are held, counted for each card: six weeks of one card.
MAX_WAITING_HOURS = 1000
CLOSE_SECONDS = 2.0


class GpuSampler:
    """Owns the threads from :meth:`start` to :meth:`close`.

    Of several processes on one ``folder`` one samples: the holder of a lock, which the system releases when that
    process dies. A machine without cards gets neither a lock nor a row.
    """

    def __init__(
        self,
        engine: Engine,
        read_cards: Callable[[], list[Card]],
        folder: Path,
        sample_seconds: float = SAMPLE_SECONDS,
        deliver_seconds: float = DELIVER_SECONDS,
    ) -> None:
        """``read_cards`` returns the cards as they are now, without waiting for long."""
        self._engine = engine
        self._read_cards = read_cards
        self._sample_seconds = sample_seconds
        self._deliver_seconds = deliver_seconds
        self._sampler_lock = FileLock(folder / "gpu-sampler.lock", mode=0o600)
        self._lock = threading.Lock()
        self._sums = GpuSums()
        self._warn = ThrottledWarning(log)
        self._has_samples = threading.Event()
        self._stop_sampling, self._stop_delivery = threading.Event(), threading.Event()
        self._sampler = threading.Thread(target=self._sample, name="gpu-sampler", daemon=True)
        self._delivery = threading.Thread(target=self._deliver, name="gpu-delivery", daemon=True)

    def start(self) -> None:
        """Start the threads. The first sample is taken at once, and delivered at once."""
        self._sampler.start()
        self._delivery.start()

    def close(self) -> None:
        """Deliver the last samples if that is soon done, and end the threads."""
        for thread, stop in ((self._sampler, self._stop_sampling), (self._delivery, self._stop_delivery)):
            stop.set()
            self._has_samples.set()
            if thread.is_alive():
                thread.join(timeout=CLOSE_SECONDS)

    def _sample(self) -> None:
        wait = 0.0
        while not self._stop_sampling.wait(wait):
            wait = self._sample_seconds
            cards = self._read_cards()
            if cards and self._acquire_sampler_lock():
                with self._lock:
                    self._sums.add(datetime.now(UTC), cards)
                self._has_samples.set()
        if self._sampler_lock.is_locked:
            self._sampler_lock.release()

    def _acquire_sampler_lock(self) -> bool:
        """Return whether this process is the one that samples."""
        return self._sampler_lock.is_locked or acquire_if_free(self._sampler_lock)

    def _deliver(self) -> None:
        while not self._stop_delivery.is_set():
            self._has_samples.wait()
            self._deliver_sums()
            self._stop_delivery.wait(self._deliver_seconds)
        self._deliver_sums()

    def _deliver_sums(self) -> None:
        """Add the sums to those in the database, or hold them until the next time."""
        with self._lock:
            sums, self._sums = self._sums, GpuSums()
            self._has_samples.clear()
        try:
            if sums:
                with self._engine.begin() as connection:
                    sums.write(connection)
        except SQLAlchemyError as error:
            self._put_back(sums)
            warn_of_absence(self._warn, "GPU samples wait for the database", error)

    def _put_back(self, sums: GpuSums) -> None:
        with self._lock:
            sums.add_sums(self._sums)
            dropped = sums.drop_oldest(MAX_WAITING_HOURS)
            self._sums = sums
        if dropped:
            log.warning("GPU samples of %d hours are lost: the database has been away for too long", dropped)
        self._has_samples.set()
