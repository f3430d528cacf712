"""The program that serves the model: the one that was named, the one on PATH, or the bundled engine."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mistral_api.settings import Settings
from mistral_api.supervisor.errors import CannotStart, StopRequested
from mistral_api.supervisor.groups import kill_group

VERSION_SECONDS = 30.0
BUNDLED = "bundled"
LLAMA_SERVER = "llama-server"


@dataclass(frozen=True, slots=True)
class Engine:
    """The program that serves the model: how it is called, and how it calls itself."""

    name: str
    command: tuple[str, ...]
    version: str | None = None


def choose_engine(settings: Settings, stopping: Callable[[], bool]) -> Engine:
    """LLAMA_SERVER_BIN, else llama-server on PATH, else the bundled engine. Raises CannotStart, StopAsked."""
    if settings.llama_server_bin is not None:
        return _checked(settings.llama_server_bin, f"LLAMA_SERVER_BIN: '{settings.llama_server_bin}'", stopping)
    found = shutil.which(LLAMA_SERVER)
    if found is not None:
        return _checked(Path(found), f"The llama-server on PATH ('{found}')", stopping)
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415

    try:
        installed = version("xllamacpp")
    except PackageNotFoundError as error:
        raise CannotStart(
            "The bundled engine is not installed: run `python bin/serve`, or set LLAMA_SERVER_BIN."
        ) from error
    return Engine(BUNDLED, (sys.executable, "-m", "mistral_api.embedded.engine"), f"xllamacpp {installed}")


def _checked(program: Path, name: str, stopping: Callable[[], bool]) -> Engine:
    """The program, once it has shown that it runs at all."""
    try:
        with subprocess.Popen(
            [str(program), "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process:
            said = _said(process, name, stopping)
    except OSError as error:
        raise CannotStart(f"{name} does not run: {error.strerror}; give the path of a llama-server.") from error
    lines = said.strip().splitlines()
    if process.returncode != 0:
        last = lines[-1].strip() if lines else f"exit code {process.returncode}"
        raise CannotStart(f"{name} does not run: {last.rstrip('.')}.")
    versions = [line.removeprefix("version:").strip() for line in lines if line.startswith("version:")]
    return Engine(LLAMA_SERVER, (str(program),), versions[0] if versions else None)


def _said(process: subprocess.Popen[str], name: str, stopping: Callable[[], bool]) -> str:
    """All that it prints; it is ended, with what it has started, when it takes too long or we are to stop."""
    deadline = time.monotonic() + VERSION_SECONDS
    while True:
        try:
            return process.communicate(timeout=0.1)[0]
        except subprocess.TimeoutExpired as error:
            if stopping():
                kill_group(process)
                raise StopRequested from error
            if time.monotonic() > deadline:
                kill_group(process)
                raise CannotStart(
                    f"{name} does not answer --version; give the path of a working llama-server."
                ) from error
