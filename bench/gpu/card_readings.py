"""What the card does while a model lies on it: our readings and nvidia-smi's, layers on it, power at rest."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any

from bench.gpu.measurement import Measurement
from bench.gpu.nvidia_smi import CardReading, mean_power, read_cards
from bench.programs import BenchmarkError
from bench.running import RunningStack
from mistral_api.control.status import read_status
from mistral_api.hardware.gpu import DECISION_SECONDS, GpuMonitor
from mistral_api.hardware.nvml import GpuReading
from mistral_api.system.byte_sizes import MIB

OFFLOAD, READINGS, POWER = "where the model lies", "readings", "power at rest"
POWER_SECONDS, SETTLE_SECONDS = 5.0, 8.0
# Lines of llama.cpp's that say where it puts what (mistral_api/supervisor/load_report.py has their sources).
_PLACEMENT_WORDS = ("offloaded", "buffer size", "n_ctx_seq", "n_ctx_slot", "flash_attn")


def report_offload(measurement: Measurement, running: RunningStack) -> None:
    """Report what /health and the status file say of the layers, and llama.cpp's own words beside it."""
    report, status = measurement.report, read_status(running.data_dir)
    if status is None:
        raise BenchmarkError("There is no status file.")
    health = _health(running)
    report.add(OFFLOAD, "layers on the card, by /health", _words(health["model_server"].get("gpu_layers")))
    for name in ("layers", "device", "context_size", "request_context_size", "unified_cache"):
        report.add(OFFLOAD, f"{name}, by /health", _words(health["model_server"].get(name)))
    for share in (health["model_server"].get("memory") or {}).get("devices", ()):
        report.add(OFFLOAD, f"memory on {share['name']}, by /health", share["bytes"] / MIB, "MiB")
    for each in health["attention"]:
        report.add(OFFLOAD, f"attention, {each['code']}", each["message"])
    report.add(OFFLOAD, "step down for want of memory", status.memory_step or "none")
    lines = Path(status.log_path).read_text(encoding="utf-8", errors="replace").splitlines()
    said = [line for line in lines if any(word in line for word in _PLACEMENT_WORDS)]
    (report.folder / "placement.log").write_text("\n".join(said) + "\n", encoding="utf-8")
    offloaded = [line.partition("offloaded ")[2] for line in said if "offloaded " in line]
    report.add(OFFLOAD, "layers, by llama.cpp", offloaded[-1] if offloaded else "not said")


def compare_readings(measurement: Measurement, running: RunningStack) -> None:
    """Report each figure of our own readings, of /health, and of nvidia-smi."""
    with closing(GpuMonitor(read_seconds=DECISION_SECONDS)) as monitor:
        monitor.read()  # opens the driver
        ours, theirs, shown = monitor.read(), read_cards(), _health(running)["gpu"]
    if len(ours) != len(theirs):
        raise BenchmarkError(f"We see {len(ours)} cards, and nvidia-smi {len(theirs)}.")
    measurement.report.add(READINGS, "cards in /health", str(len(shown)))
    for mine, other in zip(ours, theirs, strict=True):
        for name, (one, two) in _pairs(mine, other).items():
            measurement.report.add(READINGS, f"{other.name}: {name}", f"{one} (ours), {two} (nvidia-smi)")


def _pairs(mine: GpuReading, other: CardReading) -> dict[str, tuple[object, object]]:
    """Return each figure of a card as we read it and as nvidia-smi says it, in its units."""
    total, used = mine.memory_total_bytes, mine.memory_used_bytes
    return {
        "name": (mine.name, other.name),
        "memory, MiB": (None if total is None else round(total / MIB), other.total_mib),
        "memory used, MiB": (None if used is None else round(used / MIB), other.used_mib),
        "temperature, °C": (mine.temperature_celsius, other.celsius),
        "power, W": (mine.power_watts, other.watts),
        "utilisation, %": (mine.utilization_percent, other.percent),
    }


def report_power(measurement: Measurement, when: str) -> None:
    """Report the card's mean power while nothing is asked of it, and how busy it says it is."""
    time.sleep(min(SETTLE_SECONDS, max(0.0, measurement.seconds_left - POWER_SECONDS)))
    watts, cards = mean_power(POWER_SECONDS), read_cards()
    if watts is None:
        raise BenchmarkError("The card does not say what power it draws.")
    measurement.report.add(POWER, when, watts, "W")
    measurement.report.add(POWER, f"{when}: utilisation", cards[0].percent or 0.0, "%")


def _health(running: RunningStack) -> dict[str, Any]:
    """Return the body of /health, whatever its status."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{running.api[1]}/health", timeout=30) as response:
            body: dict[str, Any] = json.load(response)
    except urllib.error.HTTPError as error:
        body = json.load(error)
    return body


def _words(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
