"""How long a server takes to start: from its process, and from ``create_app``, to the first byte of an answer."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.figures import Figures
from bench.paths import OTHER, OURS, RELAY
from bench.plan import Plan
from bench.programs import BenchmarkError, fake_engine
from bench.running import ROOT, free_port, python_of, running_stack_of
from mistral_api.embedded.postgres import start_embedded_postgres

LONGEST_SECONDS = 60.0
POLL_SECONDS = 0.001
_LIVE, _READY = "/health/live", "/health/ready"


def measure_startup(plan: Plan, figures: Figures) -> None:
    """Start servers again and again, on a database that is there already, and time their first answers."""
    roots = {OURS: ROOT} | ({} if plan.other is None else {OTHER: plan.other})
    with fake_engine() as engine, contextlib.ExitStack() as stack:
        settings = {"MODEL_SERVER_URL": f"http://127.0.0.1:{engine.port}", "LOG_LEVEL": "INFO"}
        folders = {name: stack.enter_context(prepared_folder(root, settings)) for name, root in roots.items()}
        for _ in range(plan.rounds):
            _measure_relay(engine.port, figures)
            for name, root in roots.items():
                own = settings | {"DATA_DIR": str(folders[name])}
                _measure_serve("with its PostgreSQL", name, root, own, figures)
                with _database(folders[name]) as url:
                    _measure_serve("PostgreSQL runs", name, root, own | {"DATABASE_URL": url}, figures)
                    _measure_create_app(name, root, own | {"DATABASE_URL": url}, figures)


@contextlib.contextmanager
def _database(data_dir: Path) -> Iterator[str]:
    """Run the PostgreSQL of a data folder until the end of the block; yield its URL."""
    postgres = start_embedded_postgres(data_dir)
    try:
        yield postgres.url
    finally:
        postgres.stop()


@contextlib.contextmanager
def prepared_folder(root: Path, settings: dict[str, str]) -> Iterator[Path]:
    """Yield a data folder whose database has been made."""
    with tempfile.TemporaryDirectory(prefix="mistral-api-bench-") as folder:
        Path(folder).chmod(0o755)
        data_dir = Path(folder) / "data"
        with running_stack_of(root, ("bin/serve",), settings | {"DATA_DIR": str(data_dir)}):
            pass
        yield data_dir


def _measure_serve(case: str, name: str, root: Path, settings: dict[str, str], figures: Figures) -> None:
    port = free_port()
    with _started([python_of(root), "bin/serve"], root, settings | {"API_PORT": str(port)}) as began:
        where = "startup", case, name
        figures.add(where, "first byte", time_to_answer(port, _LIVE, began), "s")
        figures.add(where, "ready", time_to_answer(port, _READY, began), "s")


def _measure_relay(engine: int, figures: Figures) -> None:
    port = free_port()
    command = [sys.executable, "-m", "bench.relay", str(port), f"http://127.0.0.1:{engine}"]
    with _started(command, ROOT, {}) as began:
        figures.add(("startup", "PostgreSQL runs", RELAY), "first byte", time_to_answer(port, "/", began), "s")


@contextlib.contextmanager
def _started(command: list[str], folder: Path, settings: dict[str, str]) -> Iterator[float]:
    """Start a process and end it after the block; yield when it was started."""
    began = time.monotonic()
    process = subprocess.Popen(
        command, cwd=folder, env=os.environ | settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield began
    finally:
        process.terminate()
        process.wait(timeout=60)


def time_to_answer(port: int, path: str, began: float) -> float:
    """Return the seconds since ``began`` when a server first answers a path, but not with a 503."""
    deadline = time.monotonic() + LONGEST_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
            first = connection.recv(64)
            if first and b" 503 " not in first:
                return time.monotonic() - began
        time.sleep(POLL_SECONDS)
    raise BenchmarkError(f"A server did not answer {path} within {LONGEST_SECONDS:.0f} s.")


def _measure_create_app(name: str, root: Path, settings: dict[str, str], figures: Figures) -> None:
    done = subprocess.run(
        [python_of(root), str(ROOT / "bench" / "first_byte.py"), str(free_port())],
        cwd=root,
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
        timeout=LONGEST_SECONDS * 2,
    )
    words = done.stdout.split()
    if len(words) != 2:
        raise BenchmarkError("create_app failed in front of the fake engine.")
    figures.add(("startup", "PostgreSQL runs", name), "imports", float(words[0]), "s")
    figures.add(("startup", "PostgreSQL runs", name), "create_app to first byte", float(words[1]), "s")
