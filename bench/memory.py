"""Resident memory of every process of a running server."""

from __future__ import annotations

import psutil

from bench.running import RunningStack


def print_memory(running: RunningStack) -> None:
    """Print one line for each process: its resident set and its command line."""
    serving = psutil.Process(running.process.pid)
    for process in [serving, *serving.children(recursive=True)]:
        words = [word for word in process.cmdline() if not word.startswith("/")]
        resident = process.memory_info().rss / 2**20
        print(f"memory: {resident:7.1f} MB  {' '.join(words)[:90]}")
