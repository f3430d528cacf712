"""One process of the model server: started in a group of its own, stopped with its whole group."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from mistral_api.process_identity import identity_of
from mistral_api.supervisor import launcher
from mistral_api.supervisor.events import Event
from mistral_api.supervisor.groups import kill_group, terminate_group
from mistral_api.supervisor.output import OutputLog

STOP_SECONDS = 10.0
# One that hangs will not end by itself: it gets just long enough to die of the signal.
HUNG_STOP_SECONDS = 2.0
KILL_SECONDS = 5.0


class ServerProcess:
    """Owns a process from its start to :meth:`stop` or its exit, of which the queue is told."""

    def __init__(
        self,
        command: Sequence[str],
        output: OutputLog,
        exits: queue.SimpleQueue[Event],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start it, in our environment or the one given. Raises OSError."""
        self._process = _spawn(command, environment)
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

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Ask it to end, wait so long, then end it by force, with whatever it has started itself."""
        if self.exit_code is None:
            terminate_group(self._process)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=seconds)
        self._clean_up()

    def _clean_up(self) -> None:
        """Leave nothing of its group behind, and wait until its last words are read.

        A process that the system cannot end (it is stuck in a driver) is left to it: nobody else could do more.
        """
        kill_group(self._process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=KILL_SECONDS)
        self._waiter.join(timeout=KILL_SECONDS)
        self._reader.join(timeout=KILL_SECONDS)


def _spawn(command: Sequence[str], environment: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
    """Nothing but its three standard streams is inherited (Popen closes the rest), and its output is unbuffered."""
    if sys.platform == "win32":
        return subprocess.Popen(
            command,
            env=environment,
            bufsize=0,
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
        env=environment,
        bufsize=0,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
