"""The devices that an engine computes on, as it says itself: ``--list-devices`` of llama-server and of ours.

Its lines are those of llama.cpp (common/arg.cpp): ``  CUDA0: NVIDIA GeForce RTX 3050 (8191 MiB, 7123 MiB free)``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mistral_api.system.byte_sizes import MIB
from mistral_api.system.processes import run_command
from mistral_api.system.python_command import without_launcher

# A build for cards loads hundreds of megabytes, from a disk that may be slow.
LIST_SECONDS = 120.0
# Characters of what a broken engine has said: it goes into one line.
LONGEST_REASON = 300
_LINE = re.compile(
    r"^ +(?P<id>[\w.:\[\]]+): (?P<name>.*) \((?P<total>\d+) MiB, (?P<free>\d+) MiB free\)$", re.MULTILINE
)
BUNDLED_COMMAND = (sys.executable, "-m", "mistral_api.embedded.engine")


@dataclass(frozen=True, slots=True)
class Device:
    """A device beside the processor. ``id`` is llama.cpp's, such as ``CUDA0``."""

    id: str
    name: str
    total_bytes: int
    free_bytes: int


class EngineBroken(Exception):
    """An engine does not start; the message says why, beginning with a small letter and without a full stop."""


def build_environment(folder: Path | None, environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which Python imports the engine from a folder first; None changes nothing."""
    if folder is None:
        return dict(environment)
    paths = [str(folder), *filter(None, [environment.get("PYTHONPATH")])]
    return {**environment, "PYTHONPATH": os.pathsep.join(paths)}


def list_devices(folder: Path | None) -> list[Device]:
    """Return the devices of a build of the bundled engine. Raises EngineBroken where it does not start."""
    return list_devices_of(BUNDLED_COMMAND, build_environment(folder, os.environ))


def list_devices_of(program: Sequence[str], environment: Mapping[str, str]) -> list[Device]:
    """Return the devices of any engine by its command. Raises EngineBroken where it does not start, or list them."""
    command, variables = without_launcher([*program, "--list-devices"], environment)
    return read_devices(_output(command, variables or {}))


def read_devices(output: str) -> list[Device]:
    """Return the devices that an engine has listed."""
    return [
        Device(found["id"], found["name"], int(found["total"]) * MIB, int(found["free"]) * MIB)
        for found in _LINE.finditer(output)
    ]


def _output(command: Sequence[str], environment: Mapping[str, str]) -> str:
    try:
        done = run_command(command, LIST_SECONDS, env=environment)
    except subprocess.TimeoutExpired as error:
        raise EngineBroken(f"it does not answer within {LIST_SECONDS:.0f} s") from error
    if done.returncode != 0:
        raise EngineBroken(_why_ended(done.returncode, done.stderr))
    return done.stdout


def _why_ended(code: int, errors: str) -> str:
    """Return the last line of what an engine has said, shortened, in plain characters, and how it ended."""
    end = f"exit code {code}" if code > 0 else f"signal {-code}"
    lines = errors.strip().splitlines()
    if not lines:
        return f"it ended without a word ({end})"
    said = "".join(character for character in lines[-1][-LONGEST_REASON:] if character.isprintable())
    return f"{said.strip().rstrip('.')} ({end})"
