"""The checks before a model server is started: they find what no restart would mend, and say it in one sentence."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mistral_api.control.listening import require_free_address
from mistral_api.control.rpc_workers import worker_addresses
from mistral_api.control.server_spec import ServerSpec
from mistral_api.control.status import BUNDLED
from mistral_api.errors import StartError
from mistral_api.hardware.gpu import read_device_memory
from mistral_api.hardware.main_memory import total_memory_bytes
from mistral_api.model_files.served_model import ModelInfo, read_model
from mistral_api.settings import Settings
from mistral_api.supervisor.engine import Engine, choose_engine
from mistral_api.system.addresses import connect_unix

# For the status file and a log. Saved caches check for their own space.
NEEDED_DISK_BYTES = 16 << 20
# Connecting to a Unix socket takes no time, unless the program that listens is stuck.
SOCKET_TIMEOUT_SECONDS = 2.0
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class PreflightResult:
    """What the checks have found usable: the engine, and the model for it."""

    engine: Engine
    model: ModelInfo


def run_preflight(spec: ServerSpec, stop_requested: Callable[[], bool]) -> PreflightResult:
    """Check everything that the model server needs.

    Raises StartError for what no restart would mend, and StopRequested when ``stop_requested`` returns true.
    """
    settings = spec.settings
    model = read_model(settings, spec.path_setting)
    engine = choose_engine(settings, stop_requested)
    require_free_port(spec)
    _require_disk_space(settings)
    # Workers say only once they are asked how much they have.
    workers = worker_addresses(spec.environment())
    require_memory(spec, engine, model, of_workers=None if workers else 0)
    return PreflightResult(engine, model)


def require_free_port(spec: ServerSpec) -> None:
    """Raise StartError for an address that another program uses. A leftover server of ours has been ended before."""
    host, port = spec.settings.model_server_host, spec.settings.model_server_port
    if spec.settings.model_server_socket is not None:
        _require_unused_socket(spec.settings.model_server_socket)
        return
    if port == spec.taken_port:
        raise StartError(f"{spec.port_setting}: {port} is the port of the other model server; choose another.")
    require_free_address(host, port, host_setting=spec.host_setting, port_setting=spec.port_setting)


def _require_unused_socket(path: str) -> None:
    """Raise StartError where a program that is not ours listens on the socket."""
    try:
        connect_unix(path, SOCKET_TIMEOUT_SECONDS).close()
    except (FileNotFoundError, ConnectionRefusedError):
        return
    except OSError as error:
        raise StartError(f"DATA_DIR: '{path}' cannot be listened on: {error.strerror or error}.") from error
    raise StartError(f"DATA_DIR: another program listens on '{path}'; stop it first.")


def remove_stale_socket(settings: Settings) -> None:
    """Remove the file of a Unix socket that a killed model server has left, since it is in the way. Raises OSError."""
    if settings.model_server_socket is not None:
        Path(settings.model_server_socket).unlink(missing_ok=True)


def _require_disk_space(settings: Settings) -> None:
    free = shutil.disk_usage(settings.data_dir).free
    if free < NEEDED_DISK_BYTES:
        raise StartError(
            f"DATA_DIR: the disk of '{settings.data_dir}' has only {free // MIB} MiB left; "
            f"make at least {NEEDED_DISK_BYTES // MIB} MiB free."
        )


def require_memory(spec: ServerSpec, engine: Engine, model: ModelInfo, *, of_workers: int | None = 0) -> None:
    """Raise StartError for a model that is larger than all memory: the machine would only swap.

    ``of_workers``: the memory in bytes that other machines offer; with None, where nobody knows, nothing is checked.
    """
    if of_workers is None:
        return
    memory = total_memory_bytes() + of_workers
    if model.file_bytes <= memory:
        return
    if engine.name != BUNDLED and spec.settings.gpu_layers != "0":
        device = read_device_memory()
        if device is None:  # a card that does not report its memory: llama.cpp will find out
            return
        memory += device.total_bytes
    if model.file_bytes > memory:
        where = "all machines together" if of_workers else "this machine"
        raise StartError(
            f"{spec.path_setting}: '{model.path}' has {model.file_bytes // MIB} MiB and {where} "
            f"{memory // MIB} MiB of memory; choose a smaller quantization or model."
        )
