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
from collections.abc import Sequence
from typing import Any, TypeAlias

from mistral_api.embedded.engine.command_line import help_text
from mistral_api.embedded.engine.flag import BadFlag
from mistral_api.embedded.engine.flags import EngineOptions, parse_options
from mistral_api.embedded.engine.library import xllamacpp
from mistral_api.embedded.engine.load_messages import LOADING_VERBOSITY, end_load_messages
from mistral_api.embedded.engine.parameters import common_params, devices
from mistral_api.system.byte_sizes import MIB
from mistral_api.system.exit_codes import ExitCode
from mistral_api.system.logs import configure_command_log
from mistral_api.system.processes import handle_stop_signals

# The longest wait of the main thread without a look around (Windows delivers Ctrl-C only between waits).
POLL_SECONDS = 0.5
# llama.cpp writes its log from a thread of its own, which nobody can wait for. Without this time the lines that say why
# a load failed are lost now and then on a busy machine, and the supervisor cannot tell short memory from a bad file.
LOG_SECONDS = 0.5

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
    if options.commands:
        print("\n".join(_answer(command) for command in sorted(options.commands)))
        return ExitCode.OK
    if "model.path" not in options.values:
        print("error: argument -m/--model: a model file is needed", file=sys.stderr)
        return ExitCode.CANNOT_START
    for warning in options.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return _serve(options)


def _answer(command: str) -> str:
    """Return what a flag that is a command prints. ``--usage`` is the help."""
    if command == "--version":
        return f"version: xllamacpp {xllamacpp.__version__} (llama.cpp {xllamacpp.BUILD_INFO['build_target']})"
    if command == "--list-devices":
        return "\n".join(["Available devices:", *map(_device_line, devices())])
    return help_text()


def _serve(options: EngineOptions) -> int:
    try:
        params = common_params(options.values)
    except BadFlag as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.CANNOT_START
    events: queue.SimpleQueue[_LoadEvent] = queue.SimpleQueue()
    handle_stop_signals(events.put)

    def load() -> None:
        try:
            events.put(_load(params, options))
        except BaseException as error:  # noqa: BLE001 - passed to the main thread, which ends the process
            events.put(error)

    threading.Thread(target=load, name="load", daemon=True).start()
    return _wait(events)


def _load(params: xllamacpp.CommonParams, options: EngineOptions) -> xllamacpp.Server:
    """Return the server once it has its model. How much it prints meanwhile is the operator's choice, or ours."""
    # All that llama.cpp fits to the memory without a device is a context of no given size. To find out it reads the
    # model's vocabulary one more time, which is a third of the start of a small model.
    if params.n_ctx and "fit_params" not in options.values and not devices():
        params.fit_params = False
    if "verbosity" in options.values:
        return xllamacpp.Server(params)
    params.verbosity = LOADING_VERBOSITY
    server = xllamacpp.Server(params)
    end_load_messages()
    return server


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
