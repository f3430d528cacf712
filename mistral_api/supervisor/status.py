"""The status file: what the supervisor says of the model server, for whoever wants to know."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path

from mistral_api.supervisor.identity import ProcessIdentity, is_alive
from mistral_api.supervisor.states import State


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelServerStatus:
    """The model server at one moment. ``since`` is in Unix seconds, the start times are the system's."""

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
    url: str
    restarts: int = 0
    gpu_layers: str
    context_size: int
    parallel: int
    last_error: str | None = None
    log_path: str

    @property
    def supervisor(self) -> ProcessIdentity:
        """The supervisor that wrote this."""
        return ProcessIdentity(self.supervisor_pid, self.supervisor_started)

    @property
    def server(self) -> ProcessIdentity | None:
        """The model server's process, if there was one."""
        if self.pid is None or self.pid_started is None:
            return None
        return ProcessIdentity(self.pid, self.pid_started)


def status_file(data_dir: Path) -> Path:
    """Where the status is."""
    return data_dir / "run" / "model-server.json"


def write_status(data_dir: Path, status: ModelServerStatus) -> None:
    """Replace the status file at once: a reader sees the old one or the new one. Raises OSError."""
    path = status_file(data_dir)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    writing = path.with_suffix(f".{os.getpid()}.new")
    writing.write_text(json.dumps(dataclasses.asdict(status), indent=1), encoding="utf-8")
    os.replace(writing, path)


def read_recorded(data_dir: Path) -> ModelServerStatus | None:
    """The status as it was written, or None where there is none that can be read."""
    try:
        fields = json.loads(status_file(data_dir).read_text(encoding="utf-8"))
        return ModelServerStatus(**(fields | {"state": State(fields["state"])}))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def read_status(data_dir: Path) -> ModelServerStatus | None:
    """The status as it is now: what a supervisor wrote that has died since says ``stopped``."""
    status = read_recorded(data_dir)
    if status is None or status.state in (State.FATAL, State.STOPPED) or is_alive(status.supervisor):
        return status
    return dataclasses.replace(status, state=State.STOPPED, pid=None, pid_started=None)
