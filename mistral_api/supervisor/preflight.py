"""The checks before a model server is started: they find what no restart would mend, and say it in one sentence."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mistral_api.control.attention import BASE_MODEL
from mistral_api.control.engine_switches import refused_switches, sentence_of_switches, switch_variables
from mistral_api.control.listening import require_free_address
from mistral_api.control.rpc_workers import worker_addresses
from mistral_api.control.server_spec import MAIN_SERVER, ServerSpec
from mistral_api.control.shared_cache import whole_context
from mistral_api.control.status import BUNDLED
from mistral_api.errors import StartError
from mistral_api.hardware.gpu import read_device_memory
from mistral_api.hardware.main_memory import total_memory_bytes
from mistral_api.model_files.served_model import ModelInfo, read_model
from mistral_api.settings import Settings
from mistral_api.supervisor.engine import Engine, choose_engine
from mistral_api.system.addresses import connect_unix
from mistral_api.system.byte_sizes import MIB

log = logging.getLogger(__name__)

# For the status file and a log. Saved caches check for their own space.
NEEDED_DISK_BYTES = 16 << 20
# Connecting to a Unix socket takes no time, unless the program that listens is stuck.
SOCKET_TIMEOUT_SECONDS = 2.0
# With these llama.cpp has a template, whatever the model's file has, or no chats at all (tools/server/README.md).
_TEMPLATE_VARIABLES = ("LLAMA_ARG_CHAT_TEMPLATE", "LLAMA_ARG_CHAT_TEMPLATE_FILE")
_NO_CHAT_VARIABLES = ("LLAMA_ARG_EMBEDDINGS", "LLAMA_ARG_RERANKING", "LLAMA_ARG_POOLING")


@dataclass(frozen=True, slots=True)
class PreflightResult:
    """What the checks have found usable: the engine, and the model for it.

    ``has_chat_template``: whether chats have a form that was made for the model, or nobody chats with it.
    """

    engine: Engine
    model: ModelInfo
    has_chat_template: bool = True


def run_preflight(spec: ServerSpec, stop_requested: Callable[[], bool]) -> PreflightResult:
    """Check everything that the model server needs.

    Raises StartError for what no restart would mend, and StopRequested when ``stop_requested`` returns true.
    """
    settings = spec.settings
    _require_reachable(spec)
    model = read_model(settings, spec.path_setting)
    engine = choose_engine(settings, stop_requested)
    _warn_of_switches(spec, engine)
    require_free_port(spec)
    _require_disk_space(settings)
    # Workers say only once they are asked how much they have.
    workers = worker_addresses(spec.environment())
    require_memory(spec, engine, model, of_workers=None if workers else 0)
    has_template = has_chat_template(spec, model)
    if not has_template:
        log.warning("%s: '%s' %s", spec.path_setting, model.path, BASE_MODEL)
    return PreflightResult(engine, model, has_template)


def has_chat_template(spec: ServerSpec, model: ModelInfo) -> bool:
    """Return whether chats with a model have its own form, or the operator's; true for one that is no chat model."""
    if model.has_chat_template or model.pools or spec.name != MAIN_SERVER:
        return True
    return any(spec.environment().get(name) for name in (*_TEMPLATE_VARIABLES, *_NO_CHAT_VARIABLES))


def _warn_of_switches(spec: ServerSpec, engine: Engine) -> None:
    """Say in the log which variables of llama.cpp have no effect on this server."""
    variables = switch_variables(os.environ, bundled=engine.name == BUNDLED)
    sentence = sentence_of_switches(each for each in variables if each.name.startswith(spec.variable_prefix))
    if sentence is not None:
        log.warning(sentence)


def _require_reachable(spec: ServerSpec) -> None:
    """Raise StartError for a variable of llama.cpp with which nobody would reach the server."""
    for sentence in refused_switches(os.environ, spec.variable_prefix):
        raise StartError(sentence)


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

    What is loaded beside it (a projector, adapters, a draft model) counts with it, and must be usable. ``of_workers``:
    the memory in bytes that other machines offer; with None, where nobody knows, nothing is compared.
    """
    beside = sum(file.require_usable() for file in spec.companion_files)
    if of_workers is None:
        return
    memory = total_memory_bytes() + of_workers
    needed = model.file_bytes + beside
    if needed <= memory:
        return
    if engine.may_use_card and spec.settings.gpu_layers != "0":
        device = read_device_memory()
        if device is None:  # a card that does not report its memory: llama.cpp will find out
            return
        memory += device.total_bytes
    if needed > memory:
        others = f", the files beside it {beside // MIB} MiB," if beside else ""
        where = "all machines together" if of_workers else "this machine"
        raise StartError(
            f"{spec.path_setting}: '{model.path}' has {model.file_bytes // MIB} MiB{others} and {where} "
            f"{memory // MIB} MiB of memory; choose a smaller quantization or model."
        )


def needed_bytes(spec: ServerSpec, model: ModelInfo) -> int:
    """Return the bytes of the weights and of the KV cache; where the file does not tell its size, the weights alone."""
    if model.dimensions is None:
        return model.file_bytes
    context = whole_context(spec.settings, model.context, spec.environment())
    return model.file_bytes + model.dimensions.blocks * model.dimensions.kv_bytes(context)
