"""A process that ``bin/serve`` starts, starts again when it was killed, and stops: delivery, or another API process."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Container, Sequence

from mistral_api.system.backoff import Backoff
from mistral_api.system.processes import NEW_GROUP
from mistral_api.system.python_command import without_launcher

log = logging.getLogger(__name__)

# After so many ends in ten minutes it is started again in five minutes, and so on.
MOST_RESTARTS = 10
# How long the system may take to end a process that is killed.
KILL_SECONDS = 10.0
# What asks a process that takes it to let its requests finish, and then to end.
ASK_TO_STOP = b"s"


def start_python(command: Sequence[str], pass_fds: Sequence[int] = ()) -> subprocess.Popen[bytes]:
    """Start ``python -m`` with these arguments, and a pipe as its standard input. Raises OSError.

    Ctrl-C does not reach it: we stop it in its turn. ``pass_fds``: file descriptors that it inherits.
    """
    program, environment = without_launcher([sys.executable, "-m", *command], os.environ)
    return subprocess.Popen(
        program,
        stdin=subprocess.PIPE,
        start_new_session=True,
        creationflags=NEW_GROUP,
        env=environment,
        pass_fds=tuple(pass_fds),
    )


class ChildProcess:
    """The process from :meth:`start` to :meth:`stop`. The main loop calls it.

    It ends, in order, when the pipe that is its standard input is closed: by us, or by the system when we are killed.
    """

    def __init__(
        self,
        name: str,
        spawn: Callable[[], subprocess.Popen[bytes]],
        *,
        meanwhile: str,
        final_codes: Container[int] = (),
        backoff: Backoff | None = None,
    ) -> None:
        """``name``, and what happens ``meanwhile``, for the log; ``spawn`` starts the process, or raises OSError;
        ``final_codes``: after these exit codes it is not started again, which the process has explained."""
        self.name = name
        # Why it does not run, until it does again.
        self.problem: str | None = None
        self._spawn, self._meanwhile, self._final_codes = spawn, meanwhile, final_codes
        self._backoff = backoff or Backoff(MOST_RESTARTS)
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._respawn_at: float | None = None
        self._killed_at = float("inf")

    @property
    def running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, or plan to, where the system has no process to give."""
        self._started_at, self._killed_at = time.monotonic(), float("inf")
        try:
            self._process = self._spawn()
        except OSError as error:
            self._process = None
            self._plan_start(f"could not be started ({error})")

    def restart_if_ended(self) -> None:
        """Start it again some time after its end, and kill it where it was to end and does not."""
        process, now = self._process, time.monotonic()
        if process is not None:
            if process.poll() is None:
                if now >= self._killed_at:
                    process.kill()
                return
            self._process = None
            self._close_pipe(process)
            self._note_end(process.returncode)
        if self._respawn_at is not None and now >= self._respawn_at:
            self._respawn_at = None
            self.start()

    def _note_end(self, code: int) -> None:
        if code in self._final_codes:
            self.problem = "cannot be started again: its log says why"
            log.error("%s ended with exit code %d and is not started again; %s", self.name, code, self._meanwhile)
        else:
            self._plan_start(f"ended with exit code {code}")

    def _plan_start(self, why: str) -> None:
        now = time.monotonic()
        delay = self._next_delay(now - self._started_at)
        self._respawn_at, self.problem = now + delay, why
        log.error("%s %s; it is started again in %.1f s, and %s", self.name, why, delay, self._meanwhile)

    def _next_delay(self, healthy_seconds: float) -> float:
        delay = self._backoff.next_delay(healthy_seconds)
        return self._backoff.next_slow_delay() if delay is None else delay

    def ask_to_stop(self) -> None:
        """Ask it to let its requests finish, and then to end. It is not waited for."""
        process = self._process
        if process is not None and process.stdin is not None:
            with contextlib.suppress(OSError, ValueError):  # it has ended, or is about to
                process.stdin.write(ASK_TO_STOP)
                process.stdin.flush()

    def end_soon(self, seconds: float) -> None:
        """Have it end in order, at once, and be killed by :meth:`restart_if_ended` where it has not in so long."""
        if self._process is not None and self._killed_at == float("inf"):
            self._killed_at = time.monotonic() + seconds
            self._close_pipe(self._process)

    def stop(self, seconds: float) -> None:
        """Let it end in order, and kill it where it has not after so long. It is not started again."""
        process, self._process, self._respawn_at = self._process, None, None
        if process is None:
            return
        self._close_pipe(process)
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            log.error("%s did not end in time and is killed; %s", self.name, self._meanwhile)
            process.kill()
            process.wait(timeout=KILL_SECONDS)

    @staticmethod
    def _close_pipe(process: subprocess.Popen[bytes]) -> None:
        if process.stdin is not None:
            with contextlib.suppress(OSError):  # what it was asked last was not read any more
                process.stdin.close()
