"""The supervisor's process, which ``bin/serve`` starts, and starts again when it was killed."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence

from mistral_api.control.server_spec import EMBEDDING_SERVER, MAIN_SERVER
from mistral_api.control.status import State, read_status
from mistral_api.errors import StartError
from mistral_api.settings import Settings
from mistral_api.system.exit_codes import FINAL_FOR_SUPERVISOR
from mistral_api.system.processes import NEW_GROUP, ask_to_stop
from mistral_api.system.python_command import without_launcher

log = logging.getLogger(__name__)

RESPAWN_SECONDS = 1.0
# It grows to this while the system has no process to give.
MOST_RESPAWN_SECONDS = 30.0
# It saves the caches of conversations (15 s at most) before it ends its model server.
STOP_SECONDS = 60.0
# The states of a server that has not been loaded yet; None is that of one whose supervisor has said nothing yet.
_BEFORE_READY = (None, State.STOPPED, State.STARTING, State.LOADING)


class SupervisorProcess:
    """The supervisor's process, from :meth:`start` to :meth:`stop`."""

    def __init__(self, settings: Settings, first_options: Sequence[str] = ()) -> None:
        """``first_options``: of its command line at the first start alone."""
        self._settings = settings
        self._first_options = list(first_options)
        self._process: subprocess.Popen[bytes] | None = None
        self._respawn_at: float | None = None
        self._respawn_seconds = RESPAWN_SECONDS

    def start(self) -> None:
        """Start the supervisor, or plan to, where the system has no process to give.

        Ctrl-C does not reach it: we stop it in its turn. The process is the supervisor itself, since its status says
        which process has written it.
        """
        command = [sys.executable, "-m", "mistral_api.supervisor", "--die-with-parent", *self._first_options]
        program, environment = without_launcher(command, os.environ)
        try:
            self._process = subprocess.Popen(program, start_new_session=True, creationflags=NEW_GROUP, env=environment)
        except OSError as error:
            self._process = None
            log.error("the supervisor could not be started, and is tried in %.0f s: %s", self._respawn_seconds, error)
            self._respawn_at = time.monotonic() + self._respawn_seconds
            self._respawn_seconds = min(self._respawn_seconds * 2, MOST_RESPAWN_SECONDS)
            return
        self._first_options, self._respawn_seconds = [], RESPAWN_SECONDS

    def has_started(self) -> bool:
        """Whether the model server is ready, where we run it, and the embedding server is too, or has failed."""
        if self._settings.supervised and self._state_of(MAIN_SERVER) is not State.READY:
            return False
        return self._settings.embedding_model_path is None or self._state_of(EMBEDDING_SERVER) not in _BEFORE_READY

    def _state_of(self, server_name: str) -> State | None:
        """Return the state that this supervisor, not an earlier one, has written, or None before it has."""
        status = read_status(self._settings.data_dir, server_name)
        if status is None or self._process is None or status.supervisor_pid != self._process.pid:
            return None
        return status.state

    def require_alive(self) -> None:
        """Raise StartError where it has ended for good: it has printed why, on the same terminal."""
        if self._process is not None and self._process.poll() in FINAL_FOR_SUPERVISOR:
            raise StartError("")

    def restart_if_ended(self) -> None:
        """Start the supervisor again if it was killed, and not if it has given up."""
        process = self._process
        if process is None:
            self._start_when_due()
            return
        if process.poll() is None:
            return
        if self._respawn_at is None:
            level = logging.ERROR if process.returncode else logging.INFO
            log.log(level, "the supervisor ended with exit code %d", process.returncode)
            self._respawn_at = time.monotonic() + RESPAWN_SECONDS
        if process.returncode not in FINAL_FOR_SUPERVISOR:
            self._start_when_due()

    def _start_when_due(self) -> None:
        if self._respawn_at is not None and time.monotonic() >= self._respawn_at:
            self._respawn_at = None
            self.start()

    def stop(self) -> None:
        """Ask it to stop its model server and itself; kill it where that takes too long."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        ask_to_stop(process)
        try:
            process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            log.error("the supervisor did not stop in %.0f s and is killed", STOP_SECONDS)
            process.kill()
            process.wait(timeout=STOP_SECONDS)
