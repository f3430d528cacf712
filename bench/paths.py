"""The ways to an engine that are compared: directly, through nginx, a bare relay, this server, and its peers."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench.peers import LITELLM, running_litellm
from bench.programs import BenchmarkError
from bench.running import ROOT, ServerCommand, free_port, running_server, running_stack_of
from bench.wsgi_servers import WORKERS, running_wsgi_server

DIRECT, NGINX, RELAY, OURS = "direct", "nginx", "relay", "ours"
UNRECORDED, OTHER = "unrecorded", "other"
# How long a server may take to deliver what it has recorded, before the next one is measured.
SETTLE_SECONDS = 30.0

# How long further API processes may take to serve.
PROCESSES_SECONDS = 60.0

_NGINX_CONFIGURATION = """
daemon off; worker_processes 1; worker_rlimit_nofile 20000; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 10000; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; client_max_body_size 64m; client_body_buffer_size 1m;
  keepalive_requests 10000000;
  upstream engine {{ server 127.0.0.1:{upstream}; keepalive 128; keepalive_requests 10000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
      proxy_read_timeout 600;
    }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class EnginePath:
    """One way to the engine: its name, its port on loopback, its process (None: the engine's own), and its header."""

    name: str
    port: int
    pid: int | None = None
    header: str | None = None
    records: bool = False

    def processes(self) -> list[psutil.Process]:
        """Return its processes, without those of a PostgreSQL."""
        if self.pid is None:
            return []
        root = psutil.Process(self.pid)
        return [root, *(child for child in root.children(recursive=True) if "postgres" not in child.name())]

    def cpu_seconds(self) -> float:
        """Return the processor time that its processes have used, without PostgreSQL's."""
        seconds = 0.0
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                seconds += times.user + times.system
        return seconds

    def settle(self) -> None:
        """Wait until it has delivered what it has recorded, so that it does not compute while others are measured."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while self.records and time.monotonic() < deadline and self.pending():
            time.sleep(0.1)

    def pending(self) -> int:
        """Return how many exchanges wait in its journal."""
        return int(self._health()["recording"]["pending"] or 0)

    def wait_for_processes(self, count: int) -> None:
        """Wait until so many API processes serve. Raises BenchmarkError."""
        deadline = time.monotonic() + PROCESSES_SECONDS
        while self._health()["processes"]["running"] < count:
            if time.monotonic() >= deadline:
                raise BenchmarkError(f"{self.name}: {count} API processes do not serve in {PROCESSES_SECONDS:.0f} s.")
            time.sleep(0.1)

    def _health(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=30) as response:
            health: dict[str, Any] = json.load(response)
        return health


def path_of_processes(count: int) -> str:
    """Return the name of our own server with so many API processes."""
    return f"{OURS} {count}"


@contextlib.contextmanager
def running_paths(
    names: Sequence[str], engine: int, *, header: str | None = None, other: Path | None = None, **settings: str
) -> Iterator[list[EnginePath]]:
    """Run these ways to the engine on a port of loopback until the end of the block.

    ``header``: what the engine wants; ``other``: another checkout of this project, for the path OTHER; ``settings``:
    further ones of this server. Raises BenchmarkError.
    """
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(_running(name, engine, header, other, settings)) for name in names]


@contextlib.contextmanager
def _running(
    name: str, engine: int, header: str | None, other: Path | None, settings: dict[str, str]
) -> Iterator[EnginePath]:
    if name == DIRECT:
        yield EnginePath(DIRECT, engine, None, header)
    elif name == NGINX:
        with _running_nginx(engine) as (port, pid):
            yield EnginePath(NGINX, port, pid, header)
    elif name == RELAY:
        with _running_relay(engine) as (port, pid):
            yield EnginePath(RELAY, port, pid, header)
    elif name == LITELLM:
        with running_litellm(engine, header) as (port, pid):
            yield EnginePath(LITELLM, port, pid)
    elif name in WORKERS:
        with running_wsgi_server(name, {"MODEL_SERVER_URL": f"http://127.0.0.1:{engine}", **settings}) as (port, pid):
            yield EnginePath(name, port, pid, records=True)
    else:
        with _running_ours(name, engine, header, other, settings) as path:
            yield path


@contextlib.contextmanager
def _running_nginx(engine: int) -> Iterator[tuple[int, int]]:
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin:/opt/homebrew/bin")
    if program is None:
        raise BenchmarkError("nginx is not installed (Debian: nginx-light); leave it out with --without nginx.")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="mistral-api-bench-") as folder:
        Path(folder).chmod(0o755)
        configuration = Path(folder) / "nginx.conf"
        configuration.write_text(_NGINX_CONFIGURATION.format(folder=folder, port=port, upstream=engine))
        command = [program, "-c", str(configuration), "-e", f"{folder}/error.log"]
        server = ServerCommand(command, port, log=Path(folder) / "output", ready_path=None)
        with running_server(server) as process:
            yield port, process.pid


@contextlib.contextmanager
def _running_relay(engine: int) -> Iterator[tuple[int, int]]:
    port = free_port()
    command = [sys.executable, "-m", "bench.relay", str(port), f"http://127.0.0.1:{engine}"]
    with tempfile.TemporaryDirectory(prefix="mistral-api-bench-") as folder:
        server = ServerCommand(command, port, log=Path(folder) / "output", ready_path=None)
        with running_server(server) as process:
            yield port, process.pid


@contextlib.contextmanager
def _running_ours(
    name: str, engine: int, header: str | None, other: Path | None, settings: dict[str, str]
) -> Iterator[EnginePath]:
    root = ROOT if other is None or name != OTHER else other
    given = {"MODEL_SERVER_URL": f"http://127.0.0.1:{engine}", "LOG_LEVEL": "INFO", **settings}
    if header is not None:
        given["MODEL_SERVER_API_KEY"] = header.rpartition(" ")[2]
    count = int(name.removeprefix(f"{OURS} ")) if name.startswith(f"{OURS} ") else 1
    if count > 1:  # not said otherwise: another checkout may not know the setting
        given["API_PROCESSES"] = str(count)
    program = ("-m", "bench.unrecorded") if name == UNRECORDED else ("bin/serve",)
    with running_stack_of(root, program, given) as running:
        path = EnginePath(name, running.api[1], running.process.pid, records=name != UNRECORDED)
        if count > 1:
            path.wait_for_processes(count)
        yield path
