"""The end of a process without taking its memory apart: all that is registered for the end, and the exit code."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.processes import ROOT

PROGRAM = """
from mistral_api.system.process_end import end
import atexit, logging, sys, threading, time

class Buffered(logging.Handler):
    def emit(self, record): self.line = record.getMessage()
    def close(self): print(self.line, "written")

class Left:
    def __del__(self): print("taken apart")

logging.getLogger().addHandler(Buffered())
logging.error("a line")
left = Left()
atexit.register(print, "database stopped")
threading.Thread(target=lambda: (time.sleep(0.05), print("thread ended"))).start()
"""


def run(last_line: str) -> tuple[int, list[str]]:
    """Run the program with this end; return its exit code and what it has printed."""
    command = [sys.executable, "-c", PROGRAM + last_line]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout.splitlines()


@pytest.mark.parametrize("code", [0, 3])
def test_process_ends_in_order_but_for_the_taking_apart(code: int) -> None:
    assert run(f"end({code})") == (code, ["thread ended", "database stopped", "a line written"])


def test_error_that_nobody_catches_ends_the_process_as_ever() -> None:
    code, printed = run("raise ValueError")
    assert code == 1
    assert printed[:3] == ["thread ended", "database stopped", "a line written"]
