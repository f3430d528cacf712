"""The states and the status file.

The states of the model server, and which may follow which.

The status file: what the supervisor says of the model server, for whoever wants to know.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from mistral_api.control.server_spec import MAIN_SERVER
from mistral_api.system.files import replace_file
from mistral_api.system.processes import ProcessIdentity, is_alive


class State(StrEnum):
    """Where the model server is in its life, as its supervisor sees it."""

    STOPPED = "stopped"
    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    UNRESPONSIVE = "unresponsive"
    BACKOFF = "backoff"
    FATAL = "fatal"
    STOPPING = "stopping"


_RUNNING_ENDS = {State.STOPPING, State.BACKOFF, State.FATAL}

SUCCESSORS: dict[State, set[State]] = {
    State.STOPPED: {State.STARTING, State.FATAL},
    State.STARTING: {State.LOADING, *_RUNNING_ENDS},
    State.LOADING: {State.READY, *_RUNNING_ENDS},
    State.READY: {State.UNRESPONSIVE, *_RUNNING_ENDS},
    State.UNRESPONSIVE: {State.READY, *_RUNNING_ENDS},
    State.BACKOFF: {State.STARTING, State.STOPPING, State.FATAL},
    State.STOPPING: {State.STOPPED},
    State.FATAL: set(),
}


class IllegalTransition(AssertionError):
    """A state was to follow that may not."""


def require_legal_transition(current: State, following: State) -> None:
    """Raise IllegalTransition unless ``following`` may come after ``current``."""
    if following not in SUCCESSORS[current]:
        raise IllegalTransition(f"{following} does not follow {current}")


@dataclass(frozen=True, slots=True)
class Restart:
    """One restart: when (Unix seconds), and why."""

    at: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelServerStatus:
    """The model server at one moment. ``since`` is in Unix seconds, the start times are the system's.

    ``gpu_layers``, ``context_size`` and ``cache_type`` are those in effect; ``memory_step`` says so in words where
    they are not the ones that were asked for. ``last_restarts`` are the newest of ``restarts``, ``last_lines`` the
    server's own words before it ended last.
    """

    state: State
    since: float
    supervisor_pid: int
    supervisor_started: float
    pid: int | None = None
    pid_started: float | None = None
    engine: str
    engine_version: str | None = None
    model: str
    model_path: str
    architecture: str | None = None
    parameters: int | None = None
    quantization: str | None = None
    model_context: int | None = None
    url: str
    gpu_layers: str
    context_size: int
    cache_type: str | None = None
    memory_step: str | None = None
    batch_size: int
    threads: int
    parallel: int
    restarts: int = 0
    last_restarts: list[Restart] = field(default_factory=list)
    last_error: str | None = None
    last_lines: list[str] = field(default_factory=list)
    log_path: str

    @property
    def supervisor_process(self) -> ProcessIdentity:
        """The supervisor that wrote this."""
        return ProcessIdentity(self.supervisor_pid, self.supervisor_started)

    @property
    def server_process(self) -> ProcessIdentity | None:
        """The model server's process, if there was one."""
        if self.pid is None or self.pid_started is None:
            return None
        return ProcessIdentity(self.pid, self.pid_started)


_COMING = (State.STARTING, State.LOADING)


def status_file(data_dir: Path, server_name: str = MAIN_SERVER) -> Path:
    """Where the status of one of our model servers is."""
    return data_dir / "run" / f"{server_name}.json"


def write_status(data_dir: Path, status: ModelServerStatus, server_name: str = MAIN_SERVER) -> None:
    """Replace the status file. Raises OSError."""
    replace_file(status_file(data_dir, server_name), json.dumps(dataclasses.asdict(status), indent=1))


def read_status_file(data_dir: Path, server_name: str = MAIN_SERVER) -> ModelServerStatus | None:
    """The status as it was written, or None where there is none that can be read."""
    try:
        return _from_fields(json.loads(status_file(data_dir, server_name).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _from_fields(fields: dict[str, Any]) -> ModelServerStatus:
    restarts = [Restart(**each) for each in fields["last_restarts"]]
    return ModelServerStatus(**(fields | {"state": State(fields["state"]), "last_restarts": restarts}))


def read_status(data_dir: Path, server_name: str = MAIN_SERVER) -> ModelServerStatus | None:
    """The status as it is now: what a supervisor wrote that has died since says ``stopped``."""
    status = read_status_file(data_dir, server_name)
    if status is None or status.state in (State.FATAL, State.STOPPED) or is_alive(status.supervisor_process):
        return status
    return dataclasses.replace(status, state=State.STOPPED, pid=None, pid_started=None)


class StatusReader:
    """Reads the status again only when the file is another one: cheap enough to be asked with each request."""

    def __init__(self, data_dir: Path, server: str = MAIN_SERVER) -> None:
        self._path = status_file(data_dir, server)
        self._data_dir, self._server = data_dir, server
        self._read: tuple[tuple[int, int] | None, ModelServerStatus | None] = (None, None)

    def is_given_up(self) -> bool:
        """Whether the supervisor says that it will not bring the model server back."""
        status = self._recorded()
        return status is not None and status.state is State.FATAL

    def is_starting(self) -> bool:
        """Whether a supervisor that lives is about to have the model server ready.

        The server itself may answer already: it gets the caches of its conversations back first.
        """
        status = self._recorded()
        return status is not None and status.state in _COMING and is_alive(status.supervisor_process)

    def server_process(self) -> ProcessIdentity | None:
        """The process of the model server, as the supervisor wrote it last: another one after each restart."""
        status = self._recorded()
        return None if status is None else status.server_process

    def _recorded(self) -> ModelServerStatus | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        version = found.st_mtime_ns, found.st_ino
        if self._read[0] != version:
            self._read = version, read_status_file(self._data_dir, self._server)
        return self._read[1]
