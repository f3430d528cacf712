"""The states of a model server, and the status file in which its supervisor publishes them.

The supervisor writes ``DATA_DIR/run/<server>.json``. The API, ``supervisor status`` and the next supervisor read it.
All of them work without it.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path

from mistral_api.control.placement import Placement, read_placement
from mistral_api.control.rpc_workers import WorkerFields
from mistral_api.control.server_spec import MAIN_SERVER
from mistral_api.control.shared_cache import SharedCache
from mistral_api.system.files import ReplacedFile, replace_file
from mistral_api.system.processes import ProcessIdentity, is_alive

# The engine that is installed with this project; it does not know its version.
BUNDLED = "bundled"


class State(StrEnum):
    """The state of a model server, as its supervisor sees it."""

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
    # After hangs alone the supervisor tries again in the end.
    State.FATAL: {State.STARTING, State.STOPPING},
}
_STARTING_STATES = (State.STARTING, State.LOADING)


class IllegalTransition(AssertionError):
    """A state was entered that may not follow the current one."""


def require_legal_transition(current: State, following: State) -> None:
    """Raise IllegalTransition unless ``following`` may come after ``current``."""
    if following not in SUCCESSORS[current]:
        raise IllegalTransition(f"{following} does not follow {current}")


class RestartReason(StrEnum):
    """Why a model server was started again, in one word."""

    CRASH = "crash"
    HANG = "hang"
    LOAD = "load"
    MEMORY = "memory"
    CONSTRAINT = "constraint"


@dataclass(frozen=True, slots=True)
class Restart:
    """One restart: when it was decided (Unix seconds), and why."""

    at: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelServerStatus:
    """A model server at one moment. The field names are the keys of the status file.

    ``since`` is in Unix seconds. ``supervisor_started`` and ``pid_started`` are on the clock of ``ProcessIdentity``.
    ``system_fingerprint`` is what responses say of the engine, the model and their settings (OpenAI's field).
    ``gpu_layers``, ``context_size`` and ``cache_type`` are what the server was started with. ``memory_step`` describes
    them in words where they differ from the settings, and is None where they do not. ``placement`` is what became of
    them: what the server has said of its load; None while it has not loaded its model.
    ``idle_cards``: the names of cards that could compute and do not, though nobody has chosen that; ``idle_reason``
    says why there is nothing to install for them, if that is so.
    ``has_chat_template``: whether chats have the model's own form; a base model has none.
    ``prompt_cache``: whether the server caches prompts in main memory, whoever sent them; ``prompt_cache_mib``: how
    much they may take there, None where nobody knows.
    ``shared_cache``: whether the server was asked for one KV cache that all slots share.
    ``restored_slots``: the keys of the conversations whose saved caches its slots got at its start, by slot.
    ``rpc_workers``: the machines that compute with the server, as they were seen last.
    ``restart_reasons`` counts ``restarts`` by RestartReason. ``last_restarts`` has the newest of them.
    ``last_lines`` is the server's output before it ended last.
    """

    state: State
    since: float
    supervisor_pid: int
    supervisor_started: float
    pid: int | None = None
    pid_started: float | None = None
    engine: str
    engine_version: str | None = None
    system_fingerprint: str | None = None
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
    placement: Placement | None = None
    idle_cards: list[str] = field(default_factory=list)
    idle_reason: str | None = None
    has_chat_template: bool = True
    prompt_cache: bool = True
    prompt_cache_mib: int | None = None
    shared_cache: bool = False
    restored_slots: dict[str, str] = field(default_factory=dict)
    rpc_workers: list[WorkerFields] = field(default_factory=list)
    batch_size: int
    threads: int
    parallel: int
    restarts: int = 0
    restart_reasons: dict[str, int] = field(default_factory=dict)
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
        """The model server's process, or None where there was none."""
        if self.pid is None or self.pid_started is None:
            return None
        return ProcessIdentity(self.pid, self.pid_started)

    @property
    def offloaded_layers(self) -> int | None:
        """The layers that lie on cards; None where nobody knows."""
        return None if self.placement is None else self.placement.gpu_layers

    @property
    def whole_context(self) -> int | None:
        """The tokens of the whole context: those in effect, or else those that were set; None where nobody knows."""
        in_effect = None if self.placement is None else self.placement.context_size
        return in_effect or self.context_size or None

    @property
    def shared_kv_cache(self) -> SharedCache | None:
        """The KV cache that all slots share; None where each has its own, or as much as a request can use."""
        placement, tokens = self.placement, self.whole_context or self.model_context
        is_shared = self.shared_cache
        if placement is not None and placement.unified_cache is not None:
            is_shared = placement.unified_cache
        if not (is_shared and tokens):
            return None
        in_effect = None if placement is None else placement.request_context_size
        request = in_effect or min(tokens, self.model_context or tokens)
        return SharedCache(tokens, request, self.parallel) if request * self.parallel > tokens else None

    def to_json(self) -> str:
        """Return the content of the status file."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> ModelServerStatus:
        """Read the content of a status file. Raises ValueError, TypeError or KeyError for anything else."""
        fields = json.loads(text)
        state, restarts = State(fields["state"]), [Restart(**each) for each in fields["last_restarts"]]
        placement = fields.get("placement")
        return cls(
            **fields
            | {
                "state": state,
                "last_restarts": restarts,
                "placement": None if placement is None else read_placement(placement),
            }
        )


def status_file(data_dir: Path, server_name: str = MAIN_SERVER) -> Path:
    """Return the path of a server's status file."""
    return data_dir / "run" / f"{server_name}.json"


def supervisor_lock_file(data_dir: Path) -> Path:
    """Return the path of the lock that the one supervisor of a DATA_DIR holds."""
    return data_dir / "run" / "supervisor.lock"


def write_status(data_dir: Path, status: ModelServerStatus, server_name: str = MAIN_SERVER) -> None:
    """Replace the status file. Raises OSError."""
    replace_file(status_file(data_dir, server_name), status.to_json())


def read_status_file(data_dir: Path, server_name: str = MAIN_SERVER) -> ModelServerStatus | None:
    """Return the status as it was written, or None where no file can be read and understood."""
    try:
        return ModelServerStatus.from_json(status_file(data_dir, server_name).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def read_status(data_dir: Path, server_name: str = MAIN_SERVER) -> ModelServerStatus | None:
    """Return the status as it is now: ``stopped`` where the supervisor that wrote the file has died since.

    ``fatal`` stays, since it is the reason why that supervisor ended.
    """
    status = read_status_file(data_dir, server_name)
    if status is None or status.state in (State.FATAL, State.STOPPED) or is_alive(status.supervisor_process):
        return status
    return dataclasses.replace(status, state=State.STOPPED, pid=None, pid_started=None, placement=None)


class StatusReader:
    """The API's view of one status file. It reads the file only after a change, so each request may ask it."""

    def __init__(self, data_dir: Path, server_name: str = MAIN_SERVER, *, unasked_seconds: float = 0.0) -> None:
        """``unasked_seconds``: see :class:`ReplacedFile`."""
        read = partial(read_status_file, data_dir, server_name)
        self._file: ReplacedFile[ModelServerStatus | None] = ReplacedFile(
            status_file(data_dir, server_name), read, None, unasked_seconds=unasked_seconds
        )
        # The cache that the slots share by the status that was asked for it last: each request asks several times.
        self._shared: tuple[ModelServerStatus | None, SharedCache | None] = None, None

    def is_given_up(self) -> bool:
        """Return whether the supervisor has said that it will not start the model server again."""
        status = self._file.current()
        return status is not None and status.state is State.FATAL

    def is_starting(self) -> bool:
        """Return whether a supervisor that is alive is about to have the model server ready.

        The server may answer already: before it counts as ready, it gets the saved caches of its conversations back.
        """
        status = self._file.current()
        return status is not None and status.state in _STARTING_STATES and is_alive(status.supervisor_process)

    def server_process(self) -> ProcessIdentity | None:
        """Return the model server's process as written last. It is another one after each restart."""
        status = self._file.current()
        return None if status is None else status.server_process

    def context_size(self) -> int | None:
        """Return the tokens of the model server's whole context, which its slots share; None where nobody knows."""
        status = self._file.current()
        return None if status is None else status.whole_context or status.model_context

    def shared_cache(self) -> SharedCache | None:
        """Return the KV cache that the slots share; None where each has its own, or as much as a request can use."""
        status, known = self._file.current(), self._shared
        if known[0] is not status:
            self._shared = known = status, None if status is None else status.shared_kv_cache
        return known[1]

    def cache_tokens(self) -> int | None:
        """Return the tokens of the cache that the slots share, None where there is none."""
        shared = self.shared_cache()
        return None if shared is None else shared.tokens

    def system_fingerprint(self) -> str | None:
        """Return what tells this engine, model and settings from others; None where nobody knows."""
        status = self._file.current()
        return None if status is None else status.system_fingerprint

    def build_info(self) -> str | None:
        """Return the version of an engine that does not know its own; None for all others."""
        status = self._file.current()
        return status.engine_version if status is not None and status.engine == BUNDLED else None

    def has_prompt_cache(self) -> bool:
        """Return whether the model server caches prompts in main memory, or nobody knows."""
        status = self._file.current()
        return status is None or status.prompt_cache

    def model_path(self) -> Path | None:
        """Return the model's file as written last."""
        status = self._file.current()
        return Path(status.model_path) if status is not None and status.model_path else None

    def restored_slots(self) -> dict[int, str]:
        """Return the keys of the conversations whose saved caches the slots got at the start, by slot."""
        status = self._file.current()
        return {} if status is None else {int(slot): key for slot, key in status.restored_slots.items()}
