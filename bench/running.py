"""Start servers for a benchmark: on free ports, with data that is deleted at the end."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.programs import BenchmarkError
from mistral_api.control.server_key import key_file

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 180.0
POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class RunningStack:
    """A running stack: the addresses of the API and the model server, the serving process, and the data folder."""

    api: tuple[str, int]
    model_server: tuple[str, int]
    process: subprocess.Popen[bytes]
    data_dir: Path

    @property
    def model_server_key(self) -> str:
        """The model server's API key, until it restarts."""
        return key_file(self.data_dir).read_text(encoding="ascii")


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def python_of(root: Path) -> str:
    """Return the Python of a checkout's environment."""
    return sys.executable if root == ROOT else str(root / ".venv" / "bin" / "python")


@dataclass(frozen=True, slots=True)
class ServerCommand:
    """A server that is to be started: its command line, its port on loopback, and its environment.

    ``log``: the file of its output, which is shown where it does not start; None leaves it to this terminal.
    ``ready_path``: what answers 200 when it is ready; None where a connection is enough.
    """

    command: Sequence[str]
    port: int
    environment: Mapping[str, str] | None = None
    log: Path | None = None
    folder: Path = ROOT
    ready_path: str | None = "/health/ready"


@contextlib.contextmanager
def running_stack(**settings: str) -> Iterator[RunningStack]:
    """Run the whole stack on embedded defaults until the end of the block. Raises BenchmarkError."""
    with running_stack_of(ROOT, ("bin/serve",), settings) as running:
        yield running


@contextlib.contextmanager
def running_stack_of(root: Path, program: Sequence[str], settings: Mapping[str, str]) -> Iterator[RunningStack]:
    """Run the stack of a checkout; ``program``: the words after ``python`` that start it. Raises BenchmarkError."""
    api, model_server = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="mistral-api-bench-") as folder:
        Path(folder).chmod(0o755)
        data_dir = Path(folder) / "data"
        environment = os.environ | {
            "API_PORT": str(api),
            "MODEL_SERVER_PORT": str(model_server),
            "DATA_DIR": str(data_dir),
            "LOG_LEVEL": "WARNING",
            **settings,
        }
        server = ServerCommand([python_of(root), *program], api, environment, Path(folder) / "output", root)
        with running_server(server) as process:
            yield RunningStack(("127.0.0.1", api), ("127.0.0.1", model_server), process, data_dir)


@contextlib.contextmanager
def running_module(
    module: Sequence[str], port: int, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``python -m`` with these arguments until the end of the block; yield once the port is ready."""
    with running_server(ServerCommand([sys.executable, "-m", *module], port, environment)) as process:
        yield process


@contextlib.contextmanager
def running_server(server: ServerCommand) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the end of the block; yield once it is ready. Raises BenchmarkError."""
    with contextlib.ExitStack() as closing:
        output = None if server.log is None else closing.enter_context(server.log.open("wb"))
        process = subprocess.Popen(
            server.command, env=server.environment, stdout=output, stderr=output, cwd=server.folder
        )
        closing.callback(_stop, process)
        _wait_until_ready(server, process)
        yield process


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_until_ready(server: ServerCommand, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if server.ready_path is None:
                socket.create_connection(("127.0.0.1", server.port), timeout=5).close()
                return
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{server.ready_path}", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(POLL_SECONDS)
    shown = "" if server.log is None else "\n" + server.log.read_text(encoding="utf-8", errors="replace")[-3000:]
    raise BenchmarkError(f"A server did not become ready: {' '.join(server.command)}{shown}")
