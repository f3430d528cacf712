"""``python -m bench.gpu.measuring``: every section of the measurement, the most telling first.

``measure`` of ``bench.gpu`` starts it with the packages that it needs, and ends it where it does not end by itself.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

from bench.gpu.card_readings import OFFLOAD, POWER, READINGS, compare_readings, report_offload, report_power
from bench.gpu.measurement import Measurement
from bench.gpu.memory_steps import SECTION as MEMORY
from bench.gpu.memory_steps import SMALL_CARDS, measure_context_too_large, measure_small_card
from bench.gpu.model_file import write_model
from bench.gpu.model_shape import SHAPES, ModelShape
from bench.gpu.nvidia_smi import read_cards
from bench.gpu.report import Report
from bench.gpu.speed import SECTION as SPEED
from bench.gpu.speed import STREAMS, measure_speed
from bench.gpu.warm_restart import SECTION as WARM
from bench.gpu.warm_restart import measure_warm_restart
from mistral_api.system.exit_signals import exit_at_stop_signals
from mistral_api.version import VERSION

# Sections of the memory and of the restart need at least so many seconds.
RESTART_SECONDS, MEMORY_SECONDS = 30.0, 25.0
# Room for all streams at once, whether the slots share one cache or not.
_TOKENS_A_STREAM = 2048


def main() -> int:
    """Measure, and return 0, or 1 where a section is missing."""
    options = _parse_options()
    with exit_at_stop_signals():
        pass
    report = Report(options.out)
    shape = SHAPES[options.shape]
    report.machine = describe_machine(options.llama_server, shape)
    report.save()
    began = time.monotonic()
    model = write_model(options.model, shape)
    print(f"model: {model.stat().st_size / 2**30:.2f} GiB in {time.monotonic() - began:.0f} s", flush=True)
    measure(Measurement(report, shape, model, options.llama_server, options.deadline))
    return 1 if report.missing else 0


def measure(measurement: Measurement) -> None:
    """Measure all sections."""
    if measurement.has_card:
        with measurement.section(POWER):
            report_power(measurement, "without a model")
    _measure_served(measurement)
    if measurement.has_time_for(WARM, RESTART_SECONDS):
        with measurement.section(WARM):
            measure_warm_restart(measurement, saved=True)
            if measurement.has_time_for(WARM, RESTART_SECONDS):
                measure_warm_restart(measurement, saved=False)
    if not measurement.has_card:
        measurement.report.leave_out(MEMORY, "there is no card")
        return
    for gib, layers, context in SMALL_CARDS:
        if measurement.has_time_for(MEMORY, MEMORY_SECONDS):
            with measurement.section(MEMORY):
                measure_small_card(measurement, gib, layers, context)
    if measurement.has_time_for(MEMORY, MEMORY_SECONDS):
        with measurement.section(MEMORY):
            measure_context_too_large(measurement)


def _measure_served(measurement: Measurement) -> None:
    """Measure what needs one running server with a slot for each stream."""
    slots = max(STREAMS)
    settings = {"PARALLEL": str(slots), "CONTEXT_SIZE": str(slots * _TOKENS_A_STREAM)}
    with measurement.section("server"), measurement.stack(**settings) as running:
        with measurement.section(OFFLOAD):
            report_offload(measurement, running)
        with measurement.section(SPEED):
            measure_speed(measurement, running)
        if not measurement.has_card:
            return
        with measurement.section(READINGS):
            compare_readings(measurement, running)
        with measurement.section(POWER):
            report_power(measurement, "with the model on the card, idle")


def describe_machine(llama_server: Path, shape: ModelShape) -> dict[str, str]:
    """Return what is measured on, and with what, by its name for people."""
    cards = read_cards()
    card = cards[0] if cards else None
    described = {
        "card": f"{card.name}, {card.total_mib or 0:,.0f} MiB" if card else "no card",
        "driver": card.driver if card else "none",
        "compute capability": card.compute_capability if card else "none",
        "CUDA compiler": _last_line("nvcc", "--version"),
        "llama-server": _version(llama_server),
        "model": f"{shape.name}: {shape.blocks} blocks, {shape.bytes / 2**30:.2f} GiB in Q4_K_M, random weights",
        "this server": VERSION,
        "processor": f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}",
        "Python": platform.python_version(),
    }
    return described | {"measured at": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())}


def _version(llama_server: Path) -> str:
    done = subprocess.run([str(llama_server), "--version"], capture_output=True, text=True, check=False, timeout=60)
    lines = [line for line in (done.stderr + done.stdout).splitlines() if line.startswith("version")]
    return lines[0] if lines else "unknown"


def _last_line(name: str, *words: str) -> str:
    program = shutil.which(name)
    if program is None:
        return "not on PATH"
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False, timeout=60)
    return done.stdout.strip().rpartition("\n")[2] or "unknown"


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--llama-server", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    options.deadline = time.monotonic() + options.seconds
    return options


if __name__ == "__main__":
    sys.exit(main())
