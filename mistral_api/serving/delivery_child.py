"""The process that delivers, which ``bin/serve`` starts, starts again when it was killed, and stops after the API."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time

from mistral_api.recording.recorder import DRAIN_SECONDS
from mistral_api.system.backoff import Backoff
from mistral_api.system.processes import NEW_GROUP
from mistral_api.system.python_command import without_launcher

log = logging.getLogger(__name__)

MODULE = "mistral_api.delivery_process"
# After so many ends in ten minutes it is started again in five minutes, and so on.
MOST_RESTARTS = 10
# Beyond DRAIN_SECONDS, for its threads and connections.
END_SECONDS = 10.0


class DeliveryChild:
    """The process from :meth:`start` to :meth:`stop`. The main loop calls it.

    It ends, in order, when the pipe that is its standard input is closed: by us, or by the system when we are killed.
    """

    def __init__(self, backoff: Backoff | None = None) -> None:
        self._backoff = backoff or Backoff(MOST_RESTARTS)
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._respawn_at: float | None = None

    def start(self) -> None:
        """Start it, or plan to, where the system has no process to give.

        Ctrl-C does not reach it: we stop it in its turn.
        """
        program, environment = without_launcher([sys.executable, "-m", MODULE], os.environ)
        self._started_at = time.monotonic()
        try:
            self._process = subprocess.Popen(
                program, stdin=subprocess.PIPE, start_new_session=True, creationflags=NEW_GROUP, env=environment
            )
        except OSError as error:
            self._process = None
            self._plan_start(f"could not be started ({error})")

    def restart_if_ended(self) -> None:
        """Start it again some time after its end: what is journaled meanwhile waits."""
        process = self._process
        if process is not None:
            if process.poll() is None:
                return
            self._process = None
            self._close_pipe(process)
            self._plan_start(f"ended with exit code {process.returncode}")
        if self._respawn_at is not None and time.monotonic() >= self._respawn_at:
            self._respawn_at = None
            self.start()

    def _plan_start(self, why: str) -> None:
        now = time.monotonic()
        delay = self._next_delay(now - self._started_at)
        self._respawn_at = now + delay
        log.error(
            "the process that delivers %s; it is started again in %.1f s, and records wait in the journal", why, delay
        )

    def _next_delay(self, healthy_seconds: float) -> float:
        delay = self._backoff.next_delay(healthy_seconds)
        return self._backoff.next_slow_delay() if delay is None else delay

    def stop(self) -> None:
        """Let it deliver what waits, for DRAIN_SECONDS at most, and end; kill it where that takes too long."""
        process, self._process, self._respawn_at = self._process, None, None
        if process is None:
            return
        self._close_pipe(process)
        try:
            process.wait(timeout=DRAIN_SECONDS + END_SECONDS)
        except subprocess.TimeoutExpired:
            log.error("the process that delivers did not end in time and is killed; what waits is delivered later")
            process.kill()
            process.wait(timeout=END_SECONDS)

    @staticmethod
    def _close_pipe(process: subprocess.Popen[bytes]) -> None:
        if process.stdin is not None:
            process.stdin.close()
