"""The program that serves the model: the one that was named, the one on PATH, or the bundled engine."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from mistral_api.settings import Settings
from mistral_api.supervisor.errors import CannotStart

VERSION_SECONDS = 30.0
BUNDLED = "bundled"
LLAMA_SERVER = "llama-server"


@dataclass(frozen=True, slots=True)
class Engine:
    """The program that serves the model: how it is called, and how it calls itself."""

    name: str
    command: tuple[str, ...]
    version: str | None = None


def choose_engine(settings: Settings) -> Engine:
    """LLAMA_SERVER_BIN, else llama-server on PATH, else the bundled engine. Raises CannotStart."""
    if settings.llama_server_bin is not None:
        return _checked(settings.llama_server_bin, f"LLAMA_SERVER_BIN: '{settings.llama_server_bin}'")
    found = shutil.which(LLAMA_SERVER)
    if found is not None:
        return _checked(Path(found), f"The llama-server on PATH ('{found}')")
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415

    try:
        installed = version("xllamacpp")
    except PackageNotFoundError as error:
        raise CannotStart(
            "The bundled engine is not installed: run `python bin/serve`, or set LLAMA_SERVER_BIN."
        ) from error
    return Engine(BUNDLED, (sys.executable, "-m", "mistral_api.embedded.engine"), f"xllamacpp {installed}")


def _checked(program: Path, name: str) -> Engine:
    """The program, once it has shown that it runs at all."""
    try:
        done = subprocess.run(
            [str(program), "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=VERSION_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CannotStart(f"{name} does not answer --version; give the path of a working llama-server.") from error
    except OSError as error:
        raise CannotStart(f"{name} does not run: {error.strerror}; give the path of a llama-server.") from error
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0:
        said = lines[-1].strip() if lines else f"exit code {done.returncode}"
        raise CannotStart(f"{name} does not run: {said.rstrip('.')}.")
    versions = [line.removeprefix("version:").strip() for line in lines if line.startswith("version:")]
    return Engine(LLAMA_SERVER, (str(program),), versions[0] if versions else None)
