"""The steps down for want of graphics memory, provoked: a context too large, a card that somebody else fills.

With the memory of a large card held but for some gigabytes, the values for small cards can be tried on it too.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.gpu.held_memory import memory_held
from bench.gpu.measurement import Measurement
from bench.gpu.nvidia_smi import read_cards
from bench.programs import BenchmarkError
from bench.running import ROOT, free_port
from mistral_api.control.status import ModelServerStatus, State, read_status
from mistral_api.system.byte_sizes import GIB, MIB

SECTION = "memory"
POLL_SECONDS, STOP_SECONDS = 0.1, 30.0
# A context whose KV cache alone is a tenth larger than the card.
_TOO_LARGE = 1.1
# What the holder of the memory leaves, in GiB, and the values to try there (README.md, for an RTX 3050).
SMALL_CARDS = ((6, "all", "32768"), (6, "20", "32768"), (8, "28", "32768"), (8, "auto", "32768"))


def measure_context_too_large(measurement: Measurement) -> None:
    """Ask for a context larger than the card, and report what it became, and that the next start begins with that."""
    cards = read_cards()
    total = cards[0].total_mib if cards else None
    if total is None:
        raise BenchmarkError("There is no card whose memory is known.")
    context = int(total * MIB * _TOO_LARGE / measurement.shape.kv_bytes_a_token)
    case = f"context of {context:,} tokens"
    with tempfile.TemporaryDirectory(prefix="mistral-api-bench-") as folder:
        settings = {"CONTEXT_SIZE": str(context), "PARALLEL": "1"}
        _report_start(measurement, case, Path(folder), settings)
        _report_start(measurement, f"{case}, the next start", Path(folder), settings)


def measure_small_card(measurement: Measurement, gib: int, layers: str, context: str) -> None:
    """Have another process hold all but so many GiB, and report what becomes of these values there."""
    case = f"{gib} GiB left by another process, GPU_LAYERS={layers}, CONTEXT_SIZE={context}"
    with memory_held(gib * GIB), tempfile.TemporaryDirectory(prefix="mistral-api-bench-") as folder:
        settings = {"GPU_LAYERS": layers, "CONTEXT_SIZE": context, "PARALLEL": "4"}
        _report_start(measurement, case, Path(folder), settings)


def _report_start(measurement: Measurement, case: str, data_dir: Path, settings: dict[str, str]) -> None:
    began = time.monotonic()
    with _supervised(measurement, data_dir, settings) as process:
        status = _wait_ready(process, data_dir, measurement.deadline)
        taken = [card.used_mib for card in read_cards()][:1]
    seconds = time.monotonic() - began
    result = status.memory_step or "as it was asked for"
    used = f", {taken[0]:,.0f} MiB of the card in use" if taken and taken[0] is not None else ""
    starts = f"{status.restarts} restart{'s' * (status.restarts != 1)}"
    measurement.report.add(SECTION, case, f"{result}, after {starts} and {seconds:.0f} s{used}")


@contextlib.contextmanager
def _supervised(
    measurement: Measurement, data_dir: Path, settings: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a supervisor alone until the end of the block; its output goes into the report's folder."""
    given = measurement.settings(DATA_DIR=str(data_dir), MODEL_SERVER_PORT=str(free_port()), **settings)
    with (measurement.report.folder / "supervisor.log").open("ab") as log:
        command = [sys.executable, "-m", "mistral_api.supervisor"]
        process = subprocess.Popen(command, env=os.environ | given, cwd=ROOT, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_ready(process: subprocess.Popen[bytes], data_dir: Path, deadline: float) -> ModelServerStatus:
    """Wait until the model server is ready. Raises BenchmarkError where it gives up, or the time is over."""
    while time.monotonic() < deadline:
        status = read_status(data_dir)
        if status is not None and status.state is State.READY:
            return status
        if process.poll() is not None or (status is not None and status.state is State.FATAL):
            raise BenchmarkError(f"The supervisor gave up: {status.last_error if status else 'no status file'}")
        time.sleep(POLL_SECONDS)
    raise BenchmarkError("The time was over before the model server was ready.")
