"""Real workers (``ggml-rpc-server``), each in a network namespace of its own: a machine whose cable can be cut."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support.processes import wait_for

PORT = 50052
IP = shutil.which("ip") or "/sbin/ip"


def missing_for_networks() -> str | None:
    """Return why there can be no workers in networks of their own here, or None."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    if os.geteuid() != 0 or not Path(IP).exists():
        return "network namespaces need root and iproute2"
    if not {"LLAMA_SERVER_BIN", "GGML_RPC_SERVER_BIN"} <= os.environ.keys():
        return "LLAMA_SERVER_BIN and GGML_RPC_SERVER_BIN name no programs of llama.cpp"
    made = subprocess.run([IP, "netns", "add", f"try-{os.getpid()}"], capture_output=True, check=False)
    if made.returncode != 0:
        return "network namespaces need root and iproute2"
    _ip("netns", "del", f"try-{os.getpid()}")
    return None


def _ip(*words: str) -> None:
    subprocess.run([IP, *words], check=True, capture_output=True, timeout=20)


class NetworkedWorker:
    """Owns a namespace, the pair of interfaces that leads there, and the worker in it."""

    def __init__(self, number: int, folder: Path) -> None:
        """``number``: of this worker, of which its network is made: 10.213.(number).0/30."""
        self.name = f"w{number}-{os.getpid()}"
        self.host = f"10.213.{number}.2"
        self._own_end = f"10.213.{number}.1"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        _ip("netns", "add", self.name)
        _ip("link", "add", self.name, "type", "veth", "peer", "name", "far", "netns", self.name)
        _ip("addr", "add", f"{self._own_end}/30", "dev", self.name)
        _ip("-n", self.name, "addr", "add", f"{self.host}/30", "dev", "far")
        _ip("link", "set", self.name, "up")
        self.connect_cable()

    @property
    def address(self) -> str:
        """``host:port``, as LLAMA_ARG_RPC has it."""
        return f"{self.host}:{PORT}"

    @property
    def log_path(self) -> Path:
        """The file with the worker's output."""
        return self._folder / f"{self.name}.log"

    def cut_cable(self) -> None:
        """Let nothing pass between here and there.

        The far end is taken down: at this end the route would go with the interface, and packets another way.
        """
        _ip("-n", self.name, "link", "set", "far", "down")

    def connect_cable(self) -> None:
        """Let everything pass again."""
        _ip("-n", self.name, "link", "set", "far", "up")

    def start(self) -> None:
        """Start the worker, and wait until it listens."""
        program = os.environ["GGML_RPC_SERVER_BIN"]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [IP, "netns", "exec", self.name, program, "-H", self.host, "-p", str(PORT), "-t", "1"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                # SIGPIPE stays ignored, as under systemd: it would end a worker whose client was cut off.
                restore_signals=False,
            )  # fmt: skip
        wait_for(self._listens, f"a worker on {self.address}", 20)

    def _listens(self) -> bool:
        try:
            socket.create_connection((self.host, PORT), timeout=1).close()
        except OSError:
            return False
        return True

    def signal(self, number: int) -> None:
        """Send the worker a signal. (``ip netns exec`` has become the worker.)"""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End the worker at once."""
        self.signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait(timeout=20)

    def close(self) -> None:
        """End the worker and its network."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        with contextlib.suppress(subprocess.CalledProcessError):
            _ip("link", "del", self.name)
        with contextlib.suppress(subprocess.CalledProcessError):
            _ip("netns", "del", self.name)


@contextlib.contextmanager
def networked_workers(folder: Path, count: int) -> Iterator[list[NetworkedWorker]]:
    """Run so many workers until the end of the block."""
    with contextlib.ExitStack() as owned:
        workers = []
        for number in range(1, count + 1):
            worker = NetworkedWorker(number, folder)
            owned.callback(worker.close)
            worker.start()
            workers.append(worker)
        yield workers
