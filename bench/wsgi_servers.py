"""Other web servers that run the same application, ``wsgi:app``, with ``mistral-api deliver`` beside them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench.programs import BenchmarkError
from bench.running import ROOT, ServerCommand, free_port, running_server

GUNICORN, GRANIAN = "gunicorn", "granian"
WORKERS = {GUNICORN: 1, GRANIAN: 1, f"{GUNICORN} 2": 2, f"{GRANIAN} 2": 2}
STOP_SECONDS = 30.0


def command_of(name: str, port: int, workers: int) -> list[str]:
    """Return the command line of a server, as docs/operation.md has it. Raises BenchmarkError where it is not there."""
    server = name.split(maxsplit=1)[0]
    program = Path(sys.executable).parent / server
    if not program.exists():
        raise BenchmarkError(f"{server} is not installed: {sys.executable} -m pip install '.[fast]'")
    if server == GUNICORN:
        options = ["--config", "deploy/gunicorn.conf.py", "--bind", f"127.0.0.1:{port}"]
    else:
        options = ["--interface", "wsgi", "--port", str(port), "--blocking-threads", "64"]
    return [str(program), *options, "--workers", str(workers), "wsgi:app"]


@contextlib.contextmanager
def running_wsgi_server(name: str, given: Mapping[str, str]) -> Iterator[tuple[int, int]]:
    """Run a server until the end of the block; yield its port and its process. Raises BenchmarkError."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="mistral-api-bench-") as folder:
        Path(folder).chmod(0o755)
        environment = os.environ | {"DATA_DIR": f"{folder}/data", "LOG_LEVEL": "INFO", **given}
        command = command_of(name, port, WORKERS[name])
        with (
            running_server(ServerCommand(command, port, environment, Path(folder) / "output")) as process,
            _delivering(environment),
        ):
            yield port, process.pid


@contextlib.contextmanager
def _delivering(environment: Mapping[str, str]) -> Iterator[None]:
    command = [str(Path(sys.executable).parent / "mistral-api"), "deliver"]
    deliverer = subprocess.Popen(
        command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    )
    try:
        yield
    finally:
        deliverer.terminate()
        deliverer.wait(timeout=STOP_SECONDS)
