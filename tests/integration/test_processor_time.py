"""A batch that all threads compute is told from a loop that keeps one of them busy."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from mistral_api.supervisor.processor_time import ProcessorTime
from tests.running import wait_for

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


@pytest.mark.parametrize("process", [2], indirect=True)
def test_threads_that_compute_together_are_a_batch_until_they_are_stopped(process: subprocess.Popen[bytes]) -> None:
    processor = ProcessorTime(process.pid, threads=2)
    assert processor.computing() is None
    wait_for(processor.computing, "two threads that compute")
    process.send_signal(signal.SIGSTOP)
    wait_for(lambda: processor.computing() is False, "nothing that computes")


@pytest.mark.parametrize("process", [1], indirect=True)
def test_one_busy_thread_is_a_batch_only_where_there_is_but_one(process: subprocess.Popen[bytes]) -> None:
    one, several = ProcessorTime(process.pid, threads=1), ProcessorTime(process.pid, threads=8)
    assert several.computing() is None
    wait_for(one.computing, "a thread that computes")
    assert several.computing() is False


def test_a_process_that_has_gone_computes_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait(timeout=20)
    processor = ProcessorTime(process.pid, threads=2)
    assert processor.computing() is None
    assert processor.computing() is False
