"""``python -m mistral_api.embedded.engine.trial MODEL``: try out constraints on llama.cpp, until the input ends.

Each line of the input is a request, ``["completions" | "chat_completions", body]``. After each a line is written,
``{"cpu": seconds}``. The first line, ``{"ready": true}``, says that the model is loaded.

The process is thrown away: its owner kills it when a request takes too long. It ends by itself with the input, after
IDLE_SECONDS without work, and by the kernel where it computes or allocates too much, which also holds when its owner is
dead. What llama.cpp prints goes nowhere, since it quotes the constraints.
"""

from __future__ import annotations

import json
import os
import queue
import secrets
import sys
import threading
from pathlib import Path
from typing import IO, Any

from mistral_api.embedded.engine.library import xllamacpp
from mistral_api.system.exit_codes import ExitCode

IDLE_SECONDS = 120.0
# Beyond what the owner waits for.
_CPU_SECONDS = 6
_MEMORY_BYTES = 2 * 1024**3
_CONTEXT = 2048


def main() -> None:
    """Run until the input ends. Never returns: native threads would hold up an orderly exit."""
    answers = take_output()
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read_input, args=(lines,), daemon=True).start()
    try:
        server = xllamacpp.Server(engine_parameters(Path(sys.argv[1])))
        _limit_memory()
        _answer(answers, {"ready": True})
        while True:
            kind, body = json.loads(lines.get(timeout=IDLE_SECONDS))
            _answer(answers, {"cpu": _try_out(server, kind, body)})
    except (queue.Empty, BrokenPipeError):
        pass
    os._exit(ExitCode.OK)


def take_output() -> IO[str]:
    """Return our output for the answers alone, and have everything else written to nowhere."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    return answers


def _read_input(lines: queue.SimpleQueue[str]) -> None:
    """Read what the owner writes. When it is gone, end at once, whatever is computed."""
    for line in sys.stdin:
        lines.put(line)
    os._exit(ExitCode.OK)


def engine_parameters(model: Path) -> xllamacpp.CommonParams:
    """Return how llama.cpp serves a model of trials: on the processor, and to nobody else."""
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.n_ctx, params.n_parallel, params.n_gpu_layers, params.n_threads_http = _CONTEXT, 1, 0, 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.warmup = params.fit_params = False
    params.use_jinja = True
    # It listens whether or not it is asked to: on a free port, for nobody.
    params.hostnames, params.port, params.api_keys = ["127.0.0.1"], 0, [secrets.token_hex(32)]
    return params


def _try_out(server: xllamacpp.Server, kind: str, body: dict[str, Any]) -> float:
    """Return the processor time of a request, in seconds."""
    handlers = {"completions": server.handle_completions, "chat_completions": server.handle_chat_completions}
    _limit_cpu()
    before = _cpu_seconds()
    # A constraint that llama.cpp refuses is refused for the client too, and costs nothing.
    handlers[kind](json.dumps(body), lambda _response: None)
    return _cpu_seconds() - before


def _answer(answers: IO[str], answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system


def _limit_cpu() -> None:
    """Have the kernel end this process if the next request computes for much longer than its owner waits."""
    if sys.platform != "win32":
        import resource  # noqa: PLC0415 - not on Windows

        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (int(_cpu_seconds()) + _CPU_SECONDS, hard))


def _limit_memory() -> None:
    if sys.platform == "linux":
        import resource  # noqa: PLC0415 - not on Windows

        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY_BYTES, hard))


if __name__ == "__main__":
    main()
