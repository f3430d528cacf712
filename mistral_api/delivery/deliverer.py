"""What one process does for all that share a DATA_DIR: delivery, and besides housekeeping and samples of the cards."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from sqlalchemy import Engine

from mistral_api.control.saved_caches import delete_unused
from mistral_api.conversations.deletion_notices import DeletionNotices
from mistral_api.delivery.delivery_counts import DeliveryCounts
from mistral_api.delivery.gpu_sampler import GpuSampler
from mistral_api.delivery.housekeeping import Housekeeping
from mistral_api.delivery.writer import DeliveryRole, Writer
from mistral_api.hardware.nvml import Card
from mistral_api.settings import Settings
from mistral_api.system.process_lock import ProcessLock

log = logging.getLogger(__name__)

SECONDS_A_DAY = 86_400


class Deliverer:
    """Makes the writer of a journal, and what works beside it for as long as its process is the one that delivers."""

    def __init__(
        self,
        settings: Settings,
        writer_engine: Engine,
        engine: Engine,
        read_cards: Callable[[], list[Card]],
        *,
        dedicated: bool = False,
    ) -> None:
        """``writer_engine`` is the writer's alone; ``read_cards`` returns the graphics cards as they are now.

        ``dedicated``: this process does nothing else, so that those which serve requests give way to it.
        """
        self._settings = settings
        self.writer_engine = writer_engine
        self._engine = engine
        self._read_cards = read_cards
        self._dedicated = dedicated
        self._notices = DeletionNotices(settings.data_dir / "run")
        self.counts = DeliveryCounts()

    def start(self, path: Path, lock: ProcessLock) -> Writer:
        """Start delivery of the journal at ``path``, under the lock of this process (``StartDelivery``)."""
        role = DeliveryRole(dedicated=self._dedicated, other_work=self._other_work)
        writer = Writer(path, self.writer_engine, lock, self.counts, role)
        writer.start()
        return writer

    @contextlib.contextmanager
    def _other_work(self) -> Iterator[None]:
        housekeeping = Housekeeping(self._engine, self._settings.retention_days, self._delete_elsewhere)
        sampler = GpuSampler(self._engine, self._read_cards, self._settings.data_dir / "run")
        with closing(sampler), closing(housekeeping):
            housekeeping.start()
            sampler.start()
            yield

    def _delete_elsewhere(self, days: int) -> None:
        """Delete old saved caches, and have the processes that serve requests forget what was deleted."""
        try:
            delete_unused(self._settings.data_dir, days)
        except OSError as error:
            log.warning("saved caches that are too old cannot be deleted now: %s", error)
        try:
            self._notices.add_retention(time.time() - days * SECONDS_A_DAY)
        except OSError as error:
            log.warning("what the retention has deleted may still be recognised: %s", error)
