"""Processor time distinguishes a batch that all threads compute from a loop that keeps one of them busy."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator

import pytest

from mistral_api.supervisor.processor_time import COMPUTING_FACTOR, ONE_THREAD_FACTOR, ProcessorTime
from tests.support.processes import wait_for

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
# Python's threads take turns: each one has the processor for a part of the time.
BUSY = """
import sys, threading
def spin():
    while True:
        pass
for _ in range(int(sys.argv[1])):
    threading.Thread(target=spin, daemon=True).start()
threading.Event().wait()
"""


@pytest.fixture
def process(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    """A process with the given number of busy threads and one idle thread."""
    with subprocess.Popen([sys.executable, "-c", BUSY, str(request.param)]) as busy:
        yield busy
        busy.kill()


@pytest.mark.parametrize("process", [2, 16], indirect=True)
def test_busy_threads_extend_the_hang_timeout_until_they_are_stopped(process: subprocess.Popen[bytes]) -> None:
    processor = ProcessorTime(process.pid, threads=2)
    assert processor.hang_seconds_factor() == COMPUTING_FACTOR  # no sample yet
    _wait_for_factor(processor, COMPUTING_FACTOR)
    process.send_signal(signal.SIGSTOP)
    _wait_for_factor(processor, 1.0)


@pytest.mark.parametrize("process", [1], indirect=True)
def test_one_busy_thread_extends_the_hang_timeout_only_of_a_one_thread_server(process: subprocess.Popen[bytes]) -> None:
    _wait_for_factor(ProcessorTime(process.pid, threads=8), 1.0)
    _wait_for_factor(ProcessorTime(process.pid, threads=1), ONE_THREAD_FACTOR)


def test_ended_process_does_not_extend_the_hang_timeout() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait(timeout=20)
    processor = ProcessorTime(process.pid, threads=2)
    assert processor.hang_seconds_factor() == COMPUTING_FACTOR
    assert processor.hang_seconds_factor() == 1.0


def _wait_for_factor(processor: ProcessorTime, factor: float) -> None:
    """Wait until four samples in a row agree: each one covers little time, and threads take turns."""
    looks: deque[float] = deque(maxlen=4)

    def same() -> bool:
        # Long enough for the system's count of processor time to change.
        threading.Event().wait(0.15)
        looks.append(processor.hang_seconds_factor())
        return list(looks) == [factor] * 4

    wait_for(same, f"a factor of {factor}")
