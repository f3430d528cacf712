"""A batch that all threads compute is told from a loop that keeps one of them busy."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator

import pytest

from mistral_api.hardware.processor_time import COMPUTING_FACTOR, ONE_THREAD_FACTOR, ProcessorTime
from tests.support.processes import wait_for

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
# Python's threads take turns: each of them has the processor for its part of the time.
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
    """A process with so many busy threads and an idle one."""
    with subprocess.Popen([sys.executable, "-c", BUSY, str(request.param)]) as busy:
        yield busy
        busy.kill()


@pytest.mark.parametrize("process", [2, 16], indirect=True)
def test_threads_that_compute_together_get_long_until_they_are_stopped(process: subprocess.Popen[bytes]) -> None:
    processor = ProcessorTime(process.pid, threads=2)
    assert processor.hang_seconds_factor() == COMPUTING_FACTOR  # nothing is known yet
    _settled(processor, COMPUTING_FACTOR)
    process.send_signal(signal.SIGSTOP)
    _settled(processor, 1.0)


@pytest.mark.parametrize("process", [1], indirect=True)
def test_one_busy_thread_gets_longer_only_where_there_is_but_one(process: subprocess.Popen[bytes]) -> None:
    _settled(ProcessorTime(process.pid, threads=8), 1.0)
    _settled(ProcessorTime(process.pid, threads=1), ONE_THREAD_FACTOR)


def test_a_process_that_has_gone_gets_no_longer() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait(timeout=20)
    processor = ProcessorTime(process.pid, threads=2)
    assert processor.hang_seconds_factor() == COMPUTING_FACTOR
    assert processor.hang_seconds_factor() == 1.0


def _settled(processor: ProcessorTime, factor: float) -> None:
    """Until four looks in a row say the same: a look covers little time here, and threads take turns."""
    looks: deque[float] = deque(maxlen=4)

    def same() -> bool:
        # As long a look as the system's own count of processor time needs to move.
        threading.Event().wait(0.15)
        looks.append(processor.hang_seconds_factor())
        return list(looks) == [factor] * 4

    wait_for(same, f"a factor of {factor}")
