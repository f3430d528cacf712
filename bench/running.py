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

from mistral_api.control.server_key import key_file

START_SECONDS = 180.0


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


@contextlib.contextmanager
def running_stack(**settings: str) -> Iterator[RunningStack]:
    """Run the whole stack on embedded defaults until the end of the block."""
    api, model_server = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="mistral-api-bench-") as folder:
        Path(folder).chmod(0o755)
        environment = os.environ | {
            "API_PORT": str(api),
            "MODEL_SERVER_PORT": str(model_server),
            "DATA_DIR": folder,
            "LOG_LEVEL": "WARNING",
            **settings,
        }
        with running_module(["mistral_api.serving"], api, environment) as process:
            yield RunningStack(("127.0.0.1", api), ("127.0.0.1", model_server), process, Path(folder))


@contextlib.contextmanager
def running_module(
    module: Sequence[str], port: int, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``python -m`` with these arguments until the end of the block; yield once the port is ready."""
    process = subprocess.Popen([sys.executable, "-m", *module], env=environment)
    try:
        _wait_until_ready(port, process)
        yield process
    finally:
        process.terminate()
        process.wait(timeout=60)


def _wait_until_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait for ``/health/ready``. Exits the benchmark where it never becomes ready."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise SystemExit("the server did not become ready; its output is above")
