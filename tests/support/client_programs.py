"""Running a client's command line program as its user does, with a home of its own and nothing that leads outside."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.npm_packages import node_folder, path_with_node

# Whatever reaches for the network without being told to ends here: nobody listens on this port.
NOWHERE = "http://127.0.0.1:9"
# Switches that several programs know for telemetry, updates and colours.
_QUIET = {"DO_NOT_TRACK": "1", "NO_COLOR": "1", "TERM": "dumb", "CI": "1", "NO_UPDATE_NOTIFIER": "1"}


@dataclass(frozen=True)
class Ended:
    """What a program that ended by itself has said."""

    code: int
    output: str
    errors: str


def client_environment(home: Path, **variables: str) -> dict[str, str]:
    """Return the environment of a program whose home is this folder. Only loopback is reached without a proxy."""
    proxies = {"HTTPS_PROXY": NOWHERE, "HTTP_PROXY": NOWHERE, "NO_PROXY": "127.0.0.1,localhost"}
    folders = {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "XDG_DATA_HOME": str(home / ".local/share"),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "XDG_STATE_HOME": str(home / ".local/state"),
        "TMPDIR": str(home),
    }
    return {"PATH": path_with_node(node_folder()), "LANG": "C.UTF-8"} | _QUIET | proxies | folders | variables


def run_client(
    command: list[str], folder: Path, environment: dict[str, str], *, seconds: float, words: str = ""
) -> Ended:
    """Run a program in a folder until it ends, with ``words`` as its input. After ``seconds`` all of it is killed.

    Raises AssertionError with what it said where it did not end by itself.
    """
    with subprocess.Popen(
        command, cwd=folder, env=environment, start_new_session=True, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            output, errors = process.communicate(words, timeout=seconds)
        except subprocess.TimeoutExpired:
            _kill(process)
            output, errors = process.communicate()
            raise AssertionError(f"{command[0]}: not within {seconds:.0f} s\n{output}\n{errors}") from None
        finally:
            _kill(process)
    return Ended(process.returncode, output, errors)


def _kill(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
