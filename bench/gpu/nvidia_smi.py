"""What ``nvidia-smi`` says of the cards, which our own readings are compared with."""

from __future__ import annotations

import csv
import shutil
import statistics
import subprocess
import time
from dataclasses import dataclass

_QUERY = "index,name,driver_version,compute_cap,memory.total,memory.used,temperature.gpu,power.draw,utilization.gpu"
_SECONDS = 60


@dataclass(frozen=True, slots=True)
class CardReading:
    """One card. Memory in MiB, temperature in degrees Celsius, power in watts; None: the card does not say."""

    index: str
    name: str
    driver: str
    compute_capability: str
    total_mib: float | None
    used_mib: float | None
    celsius: float | None
    watts: float | None
    percent: float | None


def read_cards() -> list[CardReading]:
    """Return a reading of each card; none without a driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode != 0:
        return []
    rows = csv.reader(done.stdout.splitlines(), skipinitialspace=True)
    return [_reading(row) for row in rows if row]


def _reading(row: list[str]) -> CardReading:
    index, name, driver, capability, *figures = row
    return CardReading(index, name, driver, capability, *map(_number, figures))


def _number(text: str) -> float | None:
    """Read a figure; a missing one is ``[N/A]`` or ``[Not Supported]``."""
    try:
        return float(text)
    except ValueError:
        return None


def mean_power(seconds: float, interval: float = 0.5) -> float | None:
    """Return the mean power of the first card over so many seconds, in watts; None where it does not say."""
    until, values = time.monotonic() + seconds, []
    while time.monotonic() < until:
        cards = read_cards()
        if cards and cards[0].watts is not None:
            values.append(cards[0].watts)
        time.sleep(interval)
    return statistics.mean(values) if values else None
