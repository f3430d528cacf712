"""The engine's program and its command line.

The program that serves the model: the one that was named, the one on PATH, or the bundled engine.

The command line of the model server: every flag out of the settings.

The flags are llama-server's (llama.cpp, tools/server/README.md); the bundled engine takes the same.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mistral_api.control.server_spec import ServerSpec
from mistral_api.errors import StartError
from mistral_api.model_files.served_model import served_model_names
from mistral_api.settings import Settings
from mistral_api.supervisor.backoff import StopRequested
from mistral_api.supervisor.memory_ladder import MemoryStep
from mistral_api.system.processes import kill_group

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
    """LLAMA_SERVER_BIN, else llama-server on PATH, else the bundled engine. Raises StartError, StopAsked."""
    if settings.llama_server_bin is not None:
        return _checked(settings.llama_server_bin, f"LLAMA_SERVER_BIN: '{settings.llama_server_bin}'", stopping)
    found = shutil.which(LLAMA_SERVER)
    if found is not None:
        return _checked(Path(found), f"The llama-server on PATH ('{found}')", stopping)
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415

    try:
        installed = version("xllamacpp")
    except PackageNotFoundError as error:
        raise StartError(
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
        raise StartError(f"{name} does not run: {error.strerror}; give the path of a llama-server.") from error
    lines = said.strip().splitlines()
    if process.returncode != 0:
        last = lines[-1].strip() if lines else f"exit code {process.returncode}"
        raise StartError(f"{name} does not run: {last.rstrip('.')}.")
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
                raise StartError(
                    f"{name} does not answer --version; give the path of a working llama-server."
                ) from error


# llama.cpp's own default for what it computes at once (-ub).
CPU_BATCH = 512


def server_command(served: ServerSpec, engine: Engine, model: Path, fit: MemoryStep) -> list[str]:
    """The whole command line; the port is always named, since an environment variable may name another."""
    settings = served.settings
    # Without a card a larger batch is no faster, and llama.cpp answers nothing and notices nobody's leaving in it.
    small = not fit.uses_device and not served.whole_input_batches
    options = {
        "-m": str(model),
        "--host": settings.model_server_host,
        "--port": str(settings.model_server_port),
        "-ngl": fit.gpu_layers,
        "-c": str(fit.context_size),
        "-b": str(min(settings.batch_size, CPU_BATCH) if small else settings.batch_size),
        "-t": str(settings.threads),
        "-np": str(settings.parallel),
        "--alias": ",".join(served_model_names(settings)),
        # One thread a connection: as many as the API may open, and some for probes.
        "--threads-http": str(settings.api_threads + 8),
    }
    if fit.cache_type is not None:
        # llama.cpp quantises the cache of values only with flash attention.
        options |= {"-ctk": fit.cache_type, "-ctv": fit.cache_type, "-fa": "on"}
    words = [word for option in options.items() for word in option]
    return [*engine.command, *words, *served.flags, "--metrics", "--slots"]
