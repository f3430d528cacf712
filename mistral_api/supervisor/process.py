"""One process of the model server: started in a group of its own, stopped with its whole group."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from mistral_api.supervisor import launcher
from mistral_api.supervisor.identity import ProcessIdentity, identity_of, is_alive
from mistral_api.supervisor.output import OutputLog

STOP_SECONDS = 10.0
KILL_SECONDS = 5.0


class ServerProcess:
    """Owns a process from its start to :meth:`stop` or its exit, of which the queue is told."""

    def __init__(self, command: Sequence[str], output: OutputLog, exits: queue.SimpleQueue[str]) -> None:
        """Start it. Raises OSError."""
        self._process = _spawn(command)
        self.identity = identity_of(self._process.pid)
        self._exits = exits
        assert self._process.stdout is not None  # noqa: S101 - for the type checker: asked for with PIPE
        self._reader = output.follow(self._process.stdout)
        self._waiter = threading.Thread(target=self._wait, name="model-server-wait", daemon=True)
        self._waiter.start()

    def _wait(self) -> None:
        self._process.wait()
        self._exits.put("exited")

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for a signal, as subprocess has it."""
        return self._process.poll()

    def stop(self) -> None:
        """Ask it to end, wait, then end it by force, with whatever it has started itself."""
        if self.exit_code is None:
            _signal_group(self._process, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=STOP_SECONDS)
        self.clean_up()

    def clean_up(self) -> None:
        """Leave nothing of its group behind, and wait until its last words are read."""
        if sys.platform != "win32":
            _signal_group(self._process, signal.SIGKILL)
        elif self.exit_code is None:
            self._process.kill()
        self._process.wait(timeout=KILL_SECONDS)
        self._waiter.join(timeout=KILL_SECONDS)
        self._reader.join(timeout=KILL_SECONDS)


def _spawn(command: Sequence[str]) -> subprocess.Popen[bytes]:
    if sys.platform == "win32":
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            creationflags=subprocess.CREATE_NEW_PROCESS_GROUP,
        )
    prefix: list[str] = []
    if sys.platform == "linux":
        prefix = [sys.executable, "-I", "-S", str(Path(launcher.__file__)), str(os.getpid())]
    return subprocess.Popen(
        [*prefix, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    """Signal the process and all it has started; a group that is gone needs no signal."""
    if sys.platform == "win32":
        process.terminate()
    else:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)


def stop_leftover(identity: ProcessIdentity) -> bool:
    """End a server that an earlier supervisor has left, if it is that very process; whether there was one."""
    if not is_alive(identity):
        return False
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(identity.pid)
        process.terminate()
        _, alive = psutil.wait_procs([process], timeout=STOP_SECONDS)
        for each in alive:
            each.kill()
        psutil.wait_procs(alive, timeout=KILL_SECONDS)
    deadline = time.monotonic() + KILL_SECONDS
    while is_alive(identity) and time.monotonic() < deadline:
        time.sleep(0.02)
    return True
