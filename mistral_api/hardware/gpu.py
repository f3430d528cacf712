"""What the NVIDIA cards of this machine are doing, without ever waiting long for their driver.

A driver that has come to grief may never answer. So one thread alone asks it, and whoever wants to know
waits for that thread for a moment at most.
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

# How long a health check waits for the driver, and whoever decides something by what it says: opening it may
# take seconds where no other program has it open.
PATIENCE_SECONDS, DECISION_SECONDS = 1.5, 10.0
# A driver that has not answered for so long hangs.
HANG_SECONDS = 10.0
# How long closing waits for a thread that is to let go of the driver.
CLOSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """The memory of all cards together: in all, and what can be allocated now."""

    total_bytes: int
    free_bytes: int


class _Question:
    """One look at all cards, which everybody who asks meanwhile shares."""

    def __init__(self) -> None:
        self.asked_at = time.monotonic()
        self.answered = threading.Event()
        self.cards: list[Card] = []

    def wait(self, patience: float) -> bool:
        """Wait for the answer, so many seconds from when it was first asked for."""
        return self.answered.wait(max(0.0, self.asked_at + patience - time.monotonic()))


class GpuMonitor:
    """Owns the thread that asks the driver, from the first question to :meth:`close`. Thread safe.

    Only one in a process: NVML finds a lost card again when the last one who has it open closes it.
    """

    def __init__(self, read_seconds: float = PATIENCE_SECONDS, retry_seconds: float = RETRY_SECONDS) -> None:
        """Nobody waits longer than ``patience`` seconds; a driver that is missing is looked for every so many."""
        self._patience = read_seconds
        self._retry_seconds = retry_seconds
        self._lock = threading.Lock()
        self._questions: queue.SimpleQueue[_Question | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._question: _Question | None = None
        self._hangs = False
        self._closed = False

    def read(self) -> list[GpuReading]:
        """A reading of every card; none where there are none, or where the driver does not answer now."""
        return [card.reading for card in self.cards()]

    def cards(self) -> list[Card]:
        """As :meth:`read`, with what the readings leave out."""
        with self._lock:
            if self._closed:
                return []
            question = self._ask()
        answered = question.wait(self._patience)
        self._notice(question, answered=answered)
        return question.cards if answered else []

    def close(self) -> None:
        """Let go of the driver. A thread that hangs in it is left behind: it ends with the process."""
        with self._lock:
            self._closed = True
            thread = self._thread
        self._questions.put(None)
        if thread is not None:
            thread.join(timeout=CLOSE_SECONDS)

    def _ask(self) -> _Question:
        """The question that is open, or a new one."""
        if self._question is None or self._question.answered.is_set():
            self._question = _Question()
            self._questions.put(self._question)
        if self._thread is None:
            self._thread = threading.Thread(target=self._answer, name="gpu-monitor", daemon=True)
            self._thread.start()
        return self._question

    def _answer(self) -> None:
        with closing(NvmlSession(self._retry_seconds)) as session:
            while (question := self._questions.get()) is not None:
                try:
                    question.cards = session.cards()
                except Exception:  # bindings and drivers are not ours: one bad answer must not end all others
                    log.exception("the NVIDIA driver's answer cannot be made sense of")
                finally:
                    question.answered.set()

    def _notice(self, question: _Question, *, answered: bool) -> None:
        """Say once that the driver hangs, and that it answers again."""
        hangs = not answered and time.monotonic() - question.asked_at >= HANG_SECONDS
        with self._lock:
            before, self._hangs = self._hangs, hangs or (self._hangs and not answered)
            now = self._hangs
        if now and not before:
            log.warning("the NVIDIA driver has not answered for %g s: there are no GPU readings", HANG_SECONDS)
        elif before and not now:
            log.info("the NVIDIA driver answers again")


def total_memory(cards: Iterable[Card]) -> DeviceMemory | None:
    """The memory of cards together; None where none tells (there is none, or it shares that of the machine)."""
    told = [
        DeviceMemory(card.reading.memory_total_bytes, card.memory_free_bytes)
        for card in cards
        if card.reading.memory_total_bytes is not None and card.memory_free_bytes is not None
    ]
    if not told:
        return None
    return DeviceMemory(sum(each.total_bytes for each in told), sum(each.free_bytes for each in told))


def read_device_memory() -> DeviceMemory | None:
    """Look at the memory of all cards once, and let go of the driver again.

    Takes at most ``DECISION_SECONDS`` and ``CLOSE_SECONDS``.
    """
    with closing(GpuMonitor(read_seconds=DECISION_SECONDS)) as monitor:
        return total_memory(monitor.cards())
