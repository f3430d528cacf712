"""A real Redis for one test."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import redis

from tests.support.processes import free_port, skip_unless_ci, wait_for


class RedisServer:
    """A ``redis-server`` that keeps nothing on disk; it can be stopped and started again on its port."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("redis-server")
        if program is None:
            skip_unless_ci("redis-server is not installed")
        self._program = program
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL of its first database."""
        return f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(
            [self._program, "--port", str(self._port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
            cwd=self._folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        with redis.Redis.from_url(self.url) as client:
            wait_for(lambda: _answers(client), "an answer of Redis")

    def stop(self) -> None:
        """Stop it with all it knows."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=10)
        self._process = None


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


@contextlib.contextmanager
def running_redis(folder: Path) -> Iterator[RedisServer]:
    """Run it, and stop it at the end."""
    server = RedisServer(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
