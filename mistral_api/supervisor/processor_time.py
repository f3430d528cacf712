"""Which threads of a process compute: a batch on the CPU is slow, a loop that never ends is a hang."""

from __future__ import annotations

import time

import psutil

# The least part of the time that a thread must have had the processor to count: cores may be shared with others.
LEAST_SHARE = 0.1
# A look that covers more than this says nothing of now.
LONGEST_LOOK_SECONDS = 10.0


class ProcessorTime:
    """Looks at one process; each look covers the time since the one before."""

    def __init__(self, pid: int, threads: int) -> None:
        """``threads``: those that llama.cpp computes with (THREADS)."""
        self._pid = pid
        self._needed = min(2, threads)
        self._looked_at = float("-inf")
        self._seconds: dict[int, float] = {}

    def computing(self) -> bool | None:
        """Whether llama.cpp's threads compute together; None where the look before is too long ago to say.

        Sampling, and any loop of its main thread, keeps one busy; a batch on the CPU all of them. With THREADS=1 the
        two cannot be told apart, and one busy thread counts as computing.
        """
        now, seconds = time.monotonic(), self._thread_seconds()
        elapsed = now - self._looked_at
        busy = [
            thread
            for thread, used in seconds.items()
            if thread in self._seconds and used - self._seconds[thread] >= LEAST_SHARE * elapsed
        ]
        self._looked_at, self._seconds = now, seconds
        return len(busy) >= self._needed if elapsed < LONGEST_LOOK_SECONDS else None

    def _thread_seconds(self) -> dict[int, float]:
        try:
            threads = psutil.Process(self._pid).threads()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return {}
        return {thread.id: thread.user_time + thread.system_time for thread in threads}
