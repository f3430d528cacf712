"""The parts of the process that delivers: the journal, its connections to PostgreSQL, what it counts."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import ExitStack, closing

import psutil
from prometheus_client.core import Metric

from mistral_api.database.engine import Database, create_unchecked_engine
from mistral_api.database.query_times import SlowQueryLog, watch_queries
from mistral_api.database.schema_gate import SchemaGate
from mistral_api.delivery.deliverer import Deliverer
from mistral_api.delivery.writer import Writer
from mistral_api.hardware.gpu import GpuMonitor
from mistral_api.metrics.delivery_state import delivery_families, pool_families, process_families
from mistral_api.metrics.instruments import Instruments
from mistral_api.metrics.process_counts import ProcessCounts
from mistral_api.recording.deliverer_link import DELIVERER
from mistral_api.recording.journal import prepare_journal
from mistral_api.recording.recorder import DRAIN_SECONDS
from mistral_api.settings import Settings
from mistral_api.system.logs import ThrottledWarning
from mistral_api.system.process_lock import ProcessLock

log = logging.getLogger(__name__)

# Housekeeping and the samples of the cards have one each.
HOUSEKEEPING_CONNECTIONS = 2


class DeliveryParts:
    """Everything that delivers, from :meth:`start` to :meth:`close`."""

    def __init__(self, settings: Settings, database: Database) -> None:
        """``database`` is released last."""
        self._settings = settings
        self._database = database
        self._gate = SchemaGate(create_unchecked_engine(database.url, settings))
        self._engines = {
            "writer": self._gate.guard(create_unchecked_engine(database.url, settings)),
            "housekeeping": self._gate.guard(create_unchecked_engine(database.url, settings, HOUSEKEEPING_CONNECTIONS)),
        }
        self._gpu_monitor = GpuMonitor()
        self._deliverer = Deliverer(
            settings, self._engines["writer"], self._engines["housekeeping"], self._gpu_monitor.cards, dedicated=True
        )
        self._instruments = Instruments(lambda: ())
        slow = SlowQueryLog(settings.slow_query_ms)
        for name, engine in self._engines.items():
            watch_queries(engine, name, self._instruments, slow)
        self._counts = ProcessCounts(settings.data_dir / "run" / "metrics", self._collect, role=DELIVERER)
        self._lock: ProcessLock | None = None
        self._writer: Writer | None = None
        self._warn = ThrottledWarning(log)

    def _collect(self) -> list[Metric]:
        return [
            *self._instruments.collect(),
            *pool_families(self._engines),
            *delivery_families(self._deliverer.counts),
            *process_families(psutil.Process()),
        ]

    def start(self) -> None:
        """Begin to deliver, as soon as the journal can be opened and the database has the schema of this version."""
        self._gate.start()
        self._counts.start()
        self.open_journal()

    def open_journal(self) -> None:
        """Open the journal, unless it is open. Where the disk does not let us, a later call tries again."""
        if self._writer is not None:
            return
        folder = self._settings.data_dir / "journal"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with ExitStack() as undo:
                lock = undo.enter_context(closing(ProcessLock(folder, DELIVERER)))
                path = prepare_journal(folder, alone=lock.is_alone())
                writer = self._deliverer.start(path, lock)
                undo.pop_all()  # nothing has failed: it stays open
        except (OSError, sqlite3.Error) as error:
            self._warn("nothing is delivered: the journal in %s cannot be opened: %s", folder, error)
            return
        self._lock, self._writer = lock, writer

    def has_ended(self) -> bool:
        """Whether nothing is delivered any more, and nothing here will mend that."""
        return self._writer is not None and not self._writer.is_alive()

    def close(self, seconds: float = DRAIN_SECONDS) -> None:
        """Deliver what can be delivered in ``seconds``, and end everything; the rest stays in the journal."""
        if self._writer is not None:
            self._writer.close(seconds)
        if self._lock is not None:
            self._lock.close()
        self._gate.close()
        self._counts.close()
        self._gpu_monitor.close()
        for engine in self._engines.values():
            engine.dispose()
        self._database.release()
