"""Which threads of a process compute: a batch on the CPU is slow, a loop that never ends is a hang."""

from __future__ import annotations

import time

import psutil

# A batch of a long prompt on a CPU takes minutes, in which llama.cpp answers nothing. While its threads are seen to
# compute together, it gets so many times HANG_SECONDS.
COMPUTING_FACTOR = 10.0
# One thread alone (THREADS=1) that computes cannot be told from one that is caught in a loop.
ONE_THREAD_FACTOR = 3.0
# Together, the threads must have had the processor for this part of the time; cores may be shared with others.
LEAST_SHARE = 0.1
# A look that covers more than this says nothing of now.
LONGEST_LOOK_SECONDS = 10.0


class ProcessorTime:
    """Looks at one process; each look covers the time since the one before."""

    def __init__(self, pid: int, threads: int) -> None:
        """``threads``: those that llama.cpp computes with (THREADS)."""
        self._pid = pid
        self._threads = threads
        self._looked_at = float("-inf")
        self._seconds: dict[int, float] = {}

    def hang_seconds_factor(self) -> float:
        """How much longer than HANG_SECONDS a server that shows no progress may take, by what its threads do.

        Sampling, and any loop of its main thread, keeps one busy; a batch on the CPU keeps all of them as busy as
        each other. Before the second look nothing is known, and it has the longest time.
        """
        busy = self._busy_threads()
        if busy is None or busy > 1:
            return COMPUTING_FACTOR
        return ONE_THREAD_FACTOR if busy == 1 and self._threads == 1 else 1.0

    def _busy_threads(self) -> int | None:
        """How many threads have used at least half of what the busiest one has; None where nothing is known."""
        now, seconds = time.monotonic(), self._thread_seconds()
        elapsed = now - self._looked_at
        used = [seconds[thread] - self._seconds[thread] for thread in seconds.keys() & self._seconds.keys()]
        self._looked_at, self._seconds = now, seconds
        if elapsed > LONGEST_LOOK_SECONDS:
            return None
        if sum(used) < LEAST_SHARE * elapsed:
            return 0
        return sum(each >= max(used) / 2 for each in used)

    def _thread_seconds(self) -> dict[int, float]:
        try:
            threads = psutil.Process(self._pid).threads()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return {}
        return {thread.id: thread.user_time + thread.system_time for thread in threads}
