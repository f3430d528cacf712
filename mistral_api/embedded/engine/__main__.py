"""``python -m mistral_api.embedded.engine``: serve like llama-server until SIGTERM or SIGINT.

The flags become xllamacpp's parameters. The model is loaded in a thread, since the load blocks in native code: so a
signal ends the process at any time.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from mistral_api.embedded.engine.flags import BadFlag, EngineOptions, FlagValue, parse_options
from mistral_api.embedded.engine.library import xllamacpp
from mistral_api.system.byte_sizes import MIB
from mistral_api.system.exit_codes import ExitCode
from mistral_api.system.logs import configure_command_log
from mistral_api.system.processes import handle_stop_signals

# On a CPU a batch of prompt tokens takes seconds, and llama.cpp looks for abandoned requests only between
# batches. Steps of this size cost about a tenth of the speed there and free such a slot within a second.
LARGEST_CPU_BATCH = 64
# The longest wait of the main thread without a look around (Windows delivers Ctrl-C only between waits).
POLL_SECONDS = 0.5
# llama.cpp writes its log from a thread of its own, which nobody can wait for. Without this time the lines that say why
# a load failed are lost now and then on a busy machine, and the supervisor cannot tell short memory from a bad file.
LOG_SECONDS = 0.5

_FLASH_ATTENTION = {"on": "ENABLED", "off": "DISABLED", "auto": "AUTO"}

# What the main thread waits for: a signal, the loaded server, or the error of a failed load.
_LoadEvent: TypeAlias = "int | BaseException | xllamacpp.Server"

# The loaded server, until the process ends at once: to let go of it waits for its threads, and for ever where it is
# asked to end in the moment in which they begin.
_kept: list[xllamacpp.Server] = []


def main(arguments: Sequence[str] | None = None) -> int:
    """Load the model and serve it; return an ExitCode."""
    configure_command_log()
    try:
        options = parse_options(sys.argv[1:] if arguments is None else arguments, os.environ)
    except BadFlag as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.CANNOT_START
    if options.version:
        print(f"version: xllamacpp {xllamacpp.__version__} (llama.cpp {xllamacpp.BUILD_INFO['build_target']})")
        return ExitCode.OK
    if options.list_devices:
        print("\n".join(["Available devices:", *map(_device_line, _devices())]))
        return ExitCode.OK
    if "model.path" not in options.values:
        print("error: argument -m/--model: a model file is needed", file=sys.stderr)
        return ExitCode.CANNOT_START
    for name in options.unknown_variables:
        print(f"warning: {name} has no effect on the bundled engine", file=sys.stderr)
    return _serve(options)


def _serve(options: EngineOptions) -> int:
    events: queue.SimpleQueue[_LoadEvent] = queue.SimpleQueue()
    handle_stop_signals(events.put)

    def load() -> None:
        try:
            events.put(xllamacpp.Server(common_params(options.values)))
        except BaseException as error:  # noqa: BLE001 - passed to the main thread, which ends the process
            events.put(error)

    threading.Thread(target=load, name="load", daemon=True).start()
    return _wait(events)


def _wait(events: queue.SimpleQueue[_LoadEvent]) -> int:
    while True:
        try:
            event = events.get(timeout=POLL_SECONDS)
        except queue.Empty:
            continue
        if isinstance(event, int):
            return ExitCode.OK
        if isinstance(event, BaseException):
            time.sleep(LOG_SECONDS)
            print(f"error: the model could not be loaded: {event}", file=sys.stderr)
            return ExitCode.FAILED
        _kept.append(event)
        print(f"engine: listening on {event.listening_address}", file=sys.stderr, flush=True)


def common_params(values: Mapping[str, FlagValue]) -> xllamacpp.CommonParams:
    """Return llama.cpp's parameters with these values set, by attribute path."""
    params = xllamacpp.CommonParams()
    params.endpoint_slots = True
    for path, value in _expand_reranking(values).items():
        *parents, name = path.split(".")
        target = params
        for parent in parents:
            target = getattr(target, parent)
        setattr(target, name, _native_value(name, value))
    if "timeout_read" in values:
        params.timeout_write = values["timeout_read"]
    if _devices():
        return params
    # An embedding model computes all tokens of a text at once.
    if not params.embedding:
        params.n_batch = min(params.n_batch, LARGEST_CPU_BATCH)
    # Without a device, all that llama.cpp fits to the memory is a context of no given size. To find out it reads the
    # model's vocabulary one more time, which is a third of the start of a small model.
    if params.n_ctx and "fit_params" not in values:
        params.fit_params = False
    return params


def _expand_reranking(values: Mapping[str, FlagValue]) -> dict[str, FlagValue]:
    """Replace the flag ``--reranking`` by the two values that it stands for (common/arg.cpp)."""
    others = dict(values)
    if others.pop("reranking", False):
        others |= {"embedding": True, "pooling_type": "rank"}
    return others


def _native_value(name: str, value: FlagValue) -> object:
    """Return the member of an enumeration for a word, and other values as they are."""
    if name in ("cache_type_k", "cache_type_v"):
        return getattr(xllamacpp.ggml_type, f"GGML_TYPE_{str(value).upper()}")
    if name == "pooling_type":
        return getattr(xllamacpp.llama_pooling_type, f"LLAMA_POOLING_TYPE_{str(value).upper()}")
    if name == "flash_attn_type":
        return getattr(xllamacpp.llama_flash_attn_type, f"LLAMA_FLASH_ATTN_TYPE_{_FLASH_ATTENTION[str(value)]}")
    return value


def _devices() -> list[dict[str, Any]]:
    """Return what the build computes on beside the CPU."""
    cpu = (
        xllamacpp.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_CPU,
        xllamacpp.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_ACCEL,
    )
    return [device for device in xllamacpp.get_device_info() if device["type"] not in cpu]


def _device_line(device: dict[str, Any]) -> str:
    """Return a device as llama-server lists it (common/arg.cpp, --list-devices)."""
    total, free = device["memory_total"] // MIB, device["memory_free"] // MIB
    return f"  {device['name']}: {device['description']} ({total} MiB, {free} MiB free)"


def _end(code: int) -> None:
    """End at once, without waiting for native threads that generate or load."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _end(main())
