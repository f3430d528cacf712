"""What no restart would mend is found out before anything is started, and said in one sentence."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from mistral_api.control.server_spec import ServerSpec
from mistral_api.errors import StartError
from mistral_api.hardware.gpu import read_device_memory
from mistral_api.model_files.served_model import ModelInfo, read_model
from mistral_api.settings import Settings
from mistral_api.supervisor.engine import BUNDLED, Engine, choose_engine
from mistral_api.system.addresses import claim_address

# For the status file and a log; saved caches look after their own room.
NEEDED_DISK_BYTES = 16 << 20
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class PreflightResult:
    """What passed: the engine to run and the model to give it."""

    engine: Engine
    model: ModelInfo


def run_preflight(served: ServerSpec, stopping: Callable[[], bool]) -> PreflightResult:
    """Look at everything the model server needs. Raises StartError, and StopAsked when ``stopping`` says so."""
    settings = served.settings
    model = read_model(served.settings, served.path_setting)
    engine = choose_engine(settings, stopping)
    require_free_port(served)
    _require_disk(settings)
    _require_memory(served, engine, model)
    return PreflightResult(engine, model)


def require_free_port(served: ServerSpec) -> None:
    """Refuse a port that somebody else listens on; a server of ours that was left has been ended by now."""
    host, port = served.settings.model_server_host, served.settings.model_server_port
    if port == served.taken_port:
        raise StartError(f"{served.port_setting}: {port} is the port of the other model server; choose another.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as listener:
            claim_address(listener)
            listener.bind(address)
            listener.listen(1)
    except OSError as error:
        raise StartError(
            f"{served.port_setting}: {host}:{port} cannot be listened on: {error.strerror}; "
            "stop the program that uses it, or choose another port."
        ) from error


def _require_disk(settings: Settings) -> None:
    free = shutil.disk_usage(settings.data_dir).free
    if free < NEEDED_DISK_BYTES:
        raise StartError(
            f"DATA_DIR: the disk of '{settings.data_dir}' has only {free // MIB} MiB left; "
            f"make at least {NEEDED_DISK_BYTES // MIB} MiB free."
        )


def _require_memory(served: ServerSpec, engine: Engine, model: ModelInfo) -> None:
    """A model larger than all memory there is would only make the disk run hot."""
    memory = psutil.virtual_memory().total + psutil.swap_memory().total
    if model.file_bytes <= memory:
        return
    if engine.name != BUNDLED and served.settings.gpu_layers != "0":
        device = read_device_memory()
        if device is None:  # a card that does not tell; llama.cpp will
            return
        memory += device.total_bytes
    if model.file_bytes > memory:
        raise StartError(
            f"{served.path_setting}: '{model.path}' has {model.file_bytes // MIB} MiB and this machine "
            f"{memory // MIB} MiB of memory; choose a smaller quantization or model."
        )
