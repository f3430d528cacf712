"""The bundled engine.

From flag values to xllamacpp's CommonParams.

``python -m mistral_api.embedded.engine``: serves like llama-server until it gets SIGTERM or SIGINT.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import xllamacpp

from mistral_api.embedded.engine.flags import BadFlag, EngineOptions, parse_options
from mistral_api.system.exit_codes import ExitCode

# On a CPU a batch of prompt tokens takes seconds, and llama.cpp looks for abandoned requests only between
# batches. Steps of this size cost about a tenth of the speed there and free such a slot within a second.
LARGEST_CPU_BATCH = 64

_FLASH_ATTENTION = {"on": "ENABLED", "off": "DISABLED", "auto": "AUTO"}


def common_params(values: Mapping[str, Any]) -> xllamacpp.CommonParams:
    """llama.cpp's parameters with these values set, by attribute path."""
    made = xllamacpp.CommonParams()
    made.endpoint_slots = True
    for path, value in _expand_reranking(values).items():
        *parents, name = path.split(".")
        target = made
        for parent in parents:
            target = getattr(target, parent)
        setattr(target, name, _native_value(name, value))
    if "timeout_read" in values:
        made.timeout_write = values["timeout_read"]
    # Of a text that is to become a vector all tokens are computed at once.
    if not made.embedding and not _has_gpu():
        made.n_batch = min(made.n_batch, LARGEST_CPU_BATCH)
    return made


def _expand_reranking(values: Mapping[str, Any]) -> dict[str, Any]:
    """What the flag ``--reranking`` is short for (common/arg.cpp)."""
    others = dict(values)
    if others.pop("reranking", False):
        others |= {"embedding": True, "pooling_type": "rank"}
    return others


def _native_value(name: str, value: Any) -> Any:
    """The enumeration member that a word stands for."""
    if name in ("cache_type_k", "cache_type_v"):
        return getattr(xllamacpp.ggml_type, f"GGML_TYPE_{value.upper()}")
    if name == "pooling_type":
        return getattr(xllamacpp.llama_pooling_type, f"LLAMA_POOLING_TYPE_{value.upper()}")
    if name == "flash_attn_type":
        return getattr(xllamacpp.llama_flash_attn_type, f"LLAMA_FLASH_ATTN_TYPE_{_FLASH_ATTENTION[value]}")
    return value


def _has_gpu() -> bool:
    """Whether the build computes on anything but the CPU."""
    cpu = (
        xllamacpp.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_CPU,
        xllamacpp.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_ACCEL,
    )
    return any(device["type"] not in cpu for device in xllamacpp.get_device_info())


# What the main thread waits for: a signal, the loaded server, or the error of a failed load.
Event: TypeAlias = "int | BaseException | xllamacpp.Server"
LOOK_SECONDS = 0.5


def main(arguments: Sequence[str] | None = None) -> int:
    """Load the model and serve it; the exit code says how it ended."""
    try:
        asked = parse_options(sys.argv[1:] if arguments is None else arguments, os.environ)
    except BadFlag as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.CANNOT_START
    if asked.version:
        print(f"version: xllamacpp {xllamacpp.__version__} (llama.cpp {xllamacpp.BUILD_INFO['build_target']})")
        return ExitCode.OK
    if "model.path" not in asked.values:
        print("error: argument -m/--model: a model file is needed", file=sys.stderr)
        return ExitCode.CANNOT_START
    for name in asked.unknown_variables:
        print(f"warning: {name} has no effect on the bundled engine", file=sys.stderr)
    return _serve(asked)


def _serve(asked: EngineOptions) -> int:
    """The load blocks in native code, so it has a thread of its own: signals end the process at any time."""
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda number, _frame: events.put(number))
    if sys.platform == "win32":
        signal.signal(signal.SIGBREAK, lambda number, _frame: events.put(number))

    def load() -> None:
        try:
            events.put(xllamacpp.Server(common_params(asked.values)))
        except BaseException as error:  # noqa: BLE001 - handed to the main thread, which ends the process
            events.put(error)

    threading.Thread(target=load, name="load", daemon=True).start()
    return _wait(events)


def _wait(events: queue.SimpleQueue[Event]) -> int:
    server: xllamacpp.Server | None = None
    while True:
        try:
            event = events.get(timeout=LOOK_SECONDS)
        except queue.Empty:
            continue
        if isinstance(event, int):
            break
        if isinstance(event, BaseException):
            print(f"error: the model could not be loaded: {event}", file=sys.stderr)
            return ExitCode.FAILED
        server = event
        print(f"engine: listening on {server.listening_address}", file=sys.stderr, flush=True)
    return ExitCode.OK


def _end(code: int) -> None:
    """End at once: native threads that are generating or loading are not waited for."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _end(main())
