"""Debian's Prometheus on a port of its own, with its data in a folder of the test."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from tests.support.processes import free_port, skip_unless_ci, wait_for


@dataclass(frozen=True)
class Prometheus:
    """A running server."""

    url: str

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return what a query finds. Fails where Prometheus refuses it."""
        answer = requests.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=30)
        body = answer.json()
        assert body["status"] == "success", (expression, body)
        assert not body.get("warnings"), (expression, body)
        result: list[dict[str, Any]] = body["data"]["result"]
        return result

    def metric_names(self) -> set[str]:
        """Return the names of all metrics that have a value."""
        names = requests.get(f"{self.url}/api/v1/label/__name__/values", timeout=30).json()["data"]
        return set(names)


def program(name: str) -> str:
    """Return the path of ``prometheus`` or ``promtool``; without it the test is skipped."""
    found = shutil.which(name)
    if found is None:
        skip_unless_ci(f"{name} is not installed")
    return found


@contextlib.contextmanager
def running_prometheus(folder: Path, config: Path) -> Iterator[Prometheus]:
    """Run it with this configuration, and stop it at the end."""
    port = free_port()
    command = [
        program("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
    ]  # fmt: skip
    log_path = folder / "prometheus.log"
    with log_path.open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    server = Prometheus(f"http://127.0.0.1:{port}")
    try:
        wait_for(lambda: _is_ready(server, process, log_path), "Prometheus", 40)
        yield server
    finally:
        process.terminate()
        process.wait(timeout=30)


def _is_ready(server: Prometheus, process: subprocess.Popen[bytes], log_path: Path) -> bool:
    assert process.poll() is None, log_path.read_text()
    try:
        return requests.get(f"{server.url}/-/ready", timeout=5).ok
    except requests.ConnectionError:
        return False
