"""``python -m tests.support.gpu_reader_process PATIENCE RETRY_SECONDS``: a line of JSON for each command read.

Commands: ``read`` returns the readings and the seconds they took, ``memory`` the total and free memory of all GPUs,
``driver`` what NVIDIA's driver says of itself, ``log`` all lines logged so far. A driver counts as hanging after twice
PATIENCE seconds. At the end of its input the program closes the monitor, for which it waits PATIENCE seconds at most,
and reports the seconds that took.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
import time
from typing import Any

from mistral_api.hardware import gpu
from mistral_api.hardware.drivers import read_nvidia_driver
from mistral_api.hardware.gpu import GpuMonitor, total_memory


class _LogLines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname} {record.getMessage()}")


def _answer(command: str, monitor: GpuMonitor, log_lines: _LogLines) -> Any:
    if command == "log":
        return log_lines.lines
    if command == "memory":
        memory = total_memory(monitor.cards())
        return memory and dataclasses.asdict(memory)
    if command == "driver":
        driver = read_nvidia_driver(float(sys.argv[1]))
        return driver and dataclasses.asdict(driver)
    began = time.monotonic()
    readings = [dataclasses.asdict(reading) for reading in monitor.read()]
    return {"readings": readings, "seconds": time.monotonic() - began}


def _main() -> None:
    log_lines = _LogLines()
    logging.basicConfig(level=logging.DEBUG, handlers=[log_lines])
    patience = float(sys.argv[1])
    gpu.DRIVER_HANG_SECONDS, gpu.CLOSE_SECONDS = 2 * patience, patience
    monitor = GpuMonitor(patience, retry_seconds=float(sys.argv[2]))
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_answer(line.strip(), monitor, log_lines)) + "\n")
        sys.stdout.flush()
    began = time.monotonic()
    monitor.close()
    sys.stdout.write(json.dumps({"closed_after": time.monotonic() - began}) + "\n")


if __name__ == "__main__":
    _main()
