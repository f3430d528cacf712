"""Where the programs of other makers are kept that the tests of clients run: one folder for each program and version.

The folder lies outside of the repository, in the user's cache (XDG Base Directory Specification). A program is
installed once, whoever asks first; processes take turns. What cannot be installed in time skips the tests that need
it: a machine without a network, or a registry that is slow.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

# All installations of one process of tests together take so long at most, so that a slow registry delays no run.
INSTALL_SECONDS = 150.0
# Versions that no test has asked for in so long are deleted.
UNUSED_SECONDS = 7 * 86400.0

_failures: dict[str, str] = {}


class _Budget:
    """The time that installations have left."""

    def __init__(self) -> None:
        self.left = INSTALL_SECONDS

    def spend(self, begun: float) -> None:
        self.left -= time.monotonic() - begun


_budget = _Budget()


def cache_folder() -> Path:
    """Return the folder that has a folder for each program."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mistral-api-test-clients"


def cached_program(name: str, version: str, install: Callable[[Path], None]) -> Path:
    """Return the folder of a program, which ``install`` fills where there is none. Skips the test where it fails.

    ``install`` runs its commands by :func:`run_installer`.
    """
    folder = cache_folder()
    path = folder / f"{name.strip('@').replace('/', '+')}@{version}"
    if path.name in _failures:
        pytest.skip(_failures[path.name])
    begun = time.monotonic()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{path.name}.lock", timeout=max(0.0, _budget.left)):
            if not path.exists():
                _install(path, install)
            os.utime(path)
        _delete_unused(folder)
    except (OSError, subprocess.SubprocessError, Timeout) as error:
        _failures[path.name] = f"{name} {version} cannot be installed here: {_reason(error)}"
        pytest.skip(_failures[path.name])
    finally:
        _budget.spend(begun)
    return path


def run_installer(command: list[str], **variables: str) -> None:
    """Run a command of an installation within the time that is left, with these variables besides the environment's."""
    if _budget.left <= 0:
        raise TimeoutError(f"all installations together took {INSTALL_SECONDS:.0f} s")
    environment = os.environ | variables
    subprocess.run(command, env=environment, timeout=_budget.left, check=True, capture_output=True, text=True)


def _install(path: Path, install: Callable[[Path], None]) -> None:
    """Fill a new folder beside the final one, and move it there when it is complete."""
    new = Path(tempfile.mkdtemp(prefix="installing-", dir=path.parent))
    try:
        install(new)
        new.rename(path)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _delete_unused(folder: Path) -> None:
    """Delete versions that nobody uses any more, and what killed installations have left."""
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # deleted by another process
            if path.is_dir() and time.time() - path.stat().st_mtime > UNUSED_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.TimeoutExpired | Timeout):
        return f"the time for installations, {INSTALL_SECONDS:.0f} s, is over"
    output = error.stderr if isinstance(error, subprocess.CalledProcessError) else None
    lines = [line for line in str(output or error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
