"""The project's own Python environment, made on the first run: the commands in ``bin/`` work on a fresh machine.

Standard library only: this runs before anything is installed. ``environment/`` makes ``.venv``, and mends it where a
set-up was interrupted or the folder was moved; while a file in it fits, nothing is done and no network is needed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from environment.errors import SetupError
from environment.paths import PYTHON, ROOT, VENV
from environment.setup import ensure

__all__ = ["PYTHON", "ROOT", "VENV", "ensure_environment", "run_in_environment"]

INTERRUPTED = 130  # as in mistral_api/system/exit_codes.py, which is not there yet


def ensure_environment(*extras: str) -> Path:
    """Make ``.venv`` with the package and these extras; return its Python.

    Exits with 2 where that fails, and with INTERRUPTED after Ctrl-C, both after one sentence.
    """
    try:
        ensure(extras)
    except SetupError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None  # CANNOT_START in mistral_api/system/exit_codes.py, which is not there yet
    except KeyboardInterrupt:
        print("The set-up was interrupted; the next start goes on with it.", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    return PYTHON


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
