"""``python -m tests.support.gpu_reader PATIENCE RETRY_SECONDS``: for each line that it reads, a line of JSON.

``read`` answers the readings and the seconds they took, ``memory`` what a decision would be based on, ``log``
all that was logged so far. A driver hangs after two PATIENCE. At the end of its input it closes what it has
open, and says how long that took.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
import time
from typing import Any

from mistral_api.hardware import gpu
from mistral_api.hardware.gpu import GpuMonitor, total_memory


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname} {record.getMessage()}")


def _answer(command: str, monitor: GpuMonitor, said: _Lines) -> Any:
    if command == "log":
        return said.lines
    if command == "memory":
        memory = total_memory(monitor.cards())
        return memory and dataclasses.asdict(memory)
    began = time.monotonic()
    readings = [dataclasses.asdict(reading) for reading in monitor.read()]
    return {"readings": readings, "seconds": time.monotonic() - began}


def _main() -> None:
    said = _Lines()
    logging.basicConfig(level=logging.DEBUG, handlers=[said])
    patience = float(sys.argv[1])
    gpu.HANG_SECONDS = 2 * patience
    monitor = GpuMonitor(patience, retry_seconds=float(sys.argv[2]))
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_answer(line.strip(), monitor, said)) + "\n")
        sys.stdout.flush()
    began = time.monotonic()
    monitor.close()
    sys.stdout.write(json.dumps({"closed_after": time.monotonic() - began}) + "\n")


if __name__ == "__main__":
    _main()
