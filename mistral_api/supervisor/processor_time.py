"""Whether a model server without progress computes: all its threads in a slow batch, or one in an endless loop."""

from __future__ import annotations

import time

import psutil

# A batch of a long prompt takes minutes on a CPU, and llama.cpp answers nothing meanwhile. While its threads compute
# together, it may take so many times HANG_SECONDS.
COMPUTING_FACTOR = 10.0
# One thread that computes alone because THREADS=1 looks the same as one in an endless loop.
ONE_THREAD_FACTOR = 3.0
# The threads compute if together they had the processor for this share of the time: other programs use the cores too.
MIN_BUSY_SHARE = 0.1
# A measurement over a longer time says nothing about now.
MAX_INTERVAL_SECONDS = 10.0


class ProcessorTime:
    """Measures the threads of one process. Each measurement covers the time since the one before."""

    def __init__(self, pid: int, threads: int) -> None:
        """``threads``: how many threads llama.cpp computes with (THREADS)."""
        self._pid = pid
        self._threads = threads
        self._measured_at = float("-inf")
        self._seconds: dict[int, float] = {}
        self._busy: int | None = None

    @property
    def is_idle(self) -> bool:
        """Whether no thread computed when it was measured last."""
        return self._busy == 0

    def hang_seconds_factor(self) -> float:
        """Measure, and return how many times HANG_SECONDS a server without progress may take.

        Sampling, and any loop of the main thread, keeps one thread busy. A batch on the CPU keeps all threads equally
        busy. The first measurement has nothing to compare with, so it returns the largest factor.
        """
        busy = self._busy = self._count_busy_threads()
        if busy is None or busy > 1:
            return COMPUTING_FACTOR
        return ONE_THREAD_FACTOR if busy == 1 and self._threads == 1 else 1.0

    def _count_busy_threads(self) -> int | None:
        """Count the threads that have used at least half of what the busiest one has; None where nothing is known."""
        now, seconds = time.monotonic(), self._thread_seconds()
        elapsed = now - self._measured_at
        used = [seconds[thread] - self._seconds[thread] for thread in seconds.keys() & self._seconds.keys()]
        self._measured_at, self._seconds = now, seconds
        if elapsed > MAX_INTERVAL_SECONDS:
            return None
        if sum(used) < MIN_BUSY_SHARE * elapsed:
            return 0
        return sum(each >= max(used) / 2 for each in used)

    def _thread_seconds(self) -> dict[int, float]:
        """Return the processor time of each thread; none where the process has ended."""
        try:
            threads = psutil.Process(self._pid).threads()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return {}
        return {thread.id: thread.user_time + thread.system_time for thread in threads}
