"""What the NVIDIA cards of this machine are doing, read without waiting long for their driver.

A broken driver may never answer. So one thread alone calls it, and every caller waits for that thread for a limited
time.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass

from mistral_api.hardware.nvml import RETRY_SECONDS, Card, GpuReading, NvmlSession

log = logging.getLogger(__name__)

# How long a health check waits for the driver.
READ_TIMEOUT_SECONDS = 1.5
# How long a decision that needs the answer waits: opening the driver may take seconds where no other program has it
# open.
DECISION_SECONDS = 10.0
# A driver that has not answered for so long hangs.
DRIVER_HANG_SECONDS = 10.0
# How long closing waits for the thread to release the driver.
CLOSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """The memory of all cards together: all of it, and what can be allocated now."""

    total_bytes: int
    free_bytes: int


class _PendingRead:
    """One reading of all cards, shared by all callers that come while it is made."""

    def __init__(self) -> None:
        self.requested_at = time.monotonic()
        self.done = threading.Event()
        self.cards: list[Card] = []

    def wait(self, seconds: float) -> bool:
        """Wait until so many seconds after it was first requested, and return whether it is done."""
        return self.done.wait(max(0.0, self.requested_at + seconds - time.monotonic()))


class GpuMonitor:
    """Owns the thread that calls the driver, from the first read to :meth:`close`. Thread safe.

    A process may have only one: NVML finds a lost card again when the last user in the process closes it.
    """

    def __init__(self, read_seconds: float = READ_TIMEOUT_SECONDS, retry_seconds: float = RETRY_SECONDS) -> None:
        """``read_seconds``: the longest that a read waits. ``retry_seconds``: how often a missing driver is tried."""
        self._read_seconds = read_seconds
        self._retry_seconds = retry_seconds
        self._lock = threading.Lock()
        self._requests: queue.SimpleQueue[_PendingRead | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._pending: _PendingRead | None = None
        self._hangs = False
        self._closed = False

    def read(self) -> list[GpuReading]:
        """Return a reading of every card. It is empty without cards, and where the driver does not answer now."""
        return [card.reading for card in self.cards()]

    def cards(self) -> list[Card]:
        """Return the cards as :meth:`read` does, with what the readings leave out."""
        with self._lock:
            if self._closed:
                return []
            pending = self._request_read()
        done = pending.wait(self._read_seconds)
        self._log_hang(pending, done=done)
        return pending.cards if done else []

    def close(self) -> None:
        """Release the driver. A thread that hangs in it is left behind, and ends with the process."""
        with self._lock:
            self._closed = True
            thread = self._thread
        self._requests.put(None)
        if thread is not None:
            thread.join(timeout=CLOSE_SECONDS)

    def _request_read(self) -> _PendingRead:
        """Return the read that is pending, or a new one."""
        if self._pending is None or self._pending.done.is_set():
            self._pending = _PendingRead()
            self._requests.put(self._pending)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="gpu-monitor", daemon=True)
            self._thread.start()
        return self._pending

    def _run(self) -> None:
        with closing(NvmlSession(self._retry_seconds)) as session:
            while (pending := self._requests.get()) is not None:
                try:
                    pending.cards = session.cards()
                except Exception:  # bindings and drivers are not ours: one bad answer must not end all others
                    log.exception("the NVIDIA driver's answer cannot be made sense of")
                finally:
                    pending.done.set()

    def _log_hang(self, pending: _PendingRead, *, done: bool) -> None:
        """Log once that the driver hangs, and once that it answers again."""
        hangs = not done and time.monotonic() - pending.requested_at >= DRIVER_HANG_SECONDS
        with self._lock:
            before, self._hangs = self._hangs, hangs or (self._hangs and not done)
            now = self._hangs
        if now and not before:
            log.warning("the NVIDIA driver has not answered for %g s: there are no GPU readings", DRIVER_HANG_SECONDS)
        elif before and not now:
            log.info("the NVIDIA driver answers again")


def total_memory(cards: Iterable[Card]) -> DeviceMemory | None:
    """Return the memory of all cards together, or None where no card reports its memory.

    That is so without cards, and for a card that shares the memory of the machine.
    """
    reported = [
        DeviceMemory(card.reading.memory_total_bytes, card.memory_free_bytes)
        for card in cards
        if card.reading.memory_total_bytes is not None and card.memory_free_bytes is not None
    ]
    if not reported:
        return None
    return DeviceMemory(sum(each.total_bytes for each in reported), sum(each.free_bytes for each in reported))


def read_device_memory() -> DeviceMemory | None:
    """Read the memory of all cards once, and release the driver again.

    Takes at most ``DECISION_SECONDS`` and ``CLOSE_SECONDS`` together.
    """
    with closing(GpuMonitor(read_seconds=DECISION_SECONDS)) as monitor:
        return total_memory(monitor.cards())
