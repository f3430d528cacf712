"""What is left of a real engine's speed behind each path: its tokens a second at 1 and 4 streams, its first token."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

from bench.affinity import cores_apart, pin, pinned_here
from bench.figures import Figures
from bench.load import chat_body
from bench.paths import DIRECT, NGINX, OTHER, OURS, RELAY, EnginePath, running_paths
from bench.peers import LITELLM, LLAMA_CPP_PYTHON, MODEL, running_llama_cpp_python
from bench.plan import Plan, rounds_of
from bench.programs import BenchmarkError, generate_load
from bench.running import RunningStack, running_stack

STREAMS = (1, 4)
TOKENS = 64
DEADLINE_SECONDS = 30
# Slots for four streams, with room for the prompt and the answer of each.
# It goes by the name that LiteLLM was told.
_SETTINGS = {"PARALLEL": "4", "CONTEXT_SIZE": "4096", "LOG_LEVEL": "INFO", "MODEL_ALIAS": MODEL}


def measure_real_engine(plan: Plan, figures: Figures) -> None:
    """Measure with the engine's cores apart from all others, where there are two, and with all cores shared."""
    apart = cores_apart()
    if apart is not None:
        with pinned_here(apart[1]), _paths(plan, len(apart[0]), apart[0]) as paths:
            _measure(paths, "apart", plan, figures)
    with _paths(plan, len(os.sched_getaffinity(0)), None) as paths:
        _measure(paths, "shared", plan, figures)


@contextlib.contextmanager
def _paths(plan: Plan, threads: int, engine_cores: list[int] | None) -> Iterator[list[EnginePath]]:
    """Run the bundled engine with so many threads, and the paths to it; its cores are its own where they are given."""
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(running_stack(**_SETTINGS, THREADS=str(threads)))
        header = f"Authorization: Bearer {running.model_server_key}"
        if engine_cores is not None:
            pin(_engine_pid(running), engine_cores)
        names = [name for name in plan.paths(DIRECT, NGINX, RELAY, OURS, LITELLM) if name != OURS]
        paths = stack.enter_context(
            running_paths([name for name in names if name != OTHER], running.model_server[1], header=header)
        )
        paths.append(EnginePath(OURS, running.api[1], running.process.pid, records=True))
        if OTHER in names:
            paths += stack.enter_context(
                running_paths([OTHER], running.model_server[1], header=header, other=plan.other)
            )
        if plan.peers:
            paths += stack.enter_context(_peer(threads, engine_cores))
        yield paths


@contextlib.contextmanager
def _peer(threads: int, cores: list[int] | None) -> Iterator[list[EnginePath]]:
    """Run llama-cpp-python's server; yield nothing, and say why, where it cannot be had."""
    with contextlib.ExitStack() as stack:
        paths = []
        try:
            port, pid = stack.enter_context(running_llama_cpp_python(threads, int(_SETTINGS["CONTEXT_SIZE"])))
            paths = [EnginePath(LLAMA_CPP_PYTHON, port, pid)]
            if cores is not None:
                pin(pid, cores)
        except BenchmarkError as error:
            print(f"{LLAMA_CPP_PYTHON} is left out: {error}", file=sys.stderr)
        yield paths


def _engine_pid(running: RunningStack) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{running.api[1]}/health", timeout=30) as response:
        return int(json.load(response)["model_server"]["pid"])


def _measure(paths: list[EnginePath], placement: str, plan: Plan, figures: Figures) -> None:
    for path in paths:  # the first request of a connection, and the prompt's first reading
        generate_load("streams", path.port, _body(), path.header, clients=max(STREAMS), deadline=DEADLINE_SECONDS)
    for path in rounds_of(paths, plan.rounds):
        for streams in STREAMS:
            where = "engine", f"{placement}, {streams} stream{'s' * (streams > 1)}", path.name
            found = generate_load(
                "streams", path.port, _body(), path.header, clients=streams, deadline=DEADLINE_SECONDS
            )
            figures.add(where, "tokens", found["complete"] * TOKENS / found["seconds"], "1/s", more_is_better=True)
            figures.add(where, "first token p50", found["first"].get("p50", float("nan")), "ms")
            figures.add(where, "complete", found["complete"], f"of {streams}", more_is_better=True)
    for streams in STREAMS:
        _add_shares(figures, f"{placement}, {streams} stream{'s' * (streams > 1)}", paths)


def _body() -> dict[str, Any]:
    story = "Write a long story about a panda."
    return chat_body(story, max_tokens=TOKENS, temperature=0, ignore_eos=True, stream=True)


def _add_shares(figures: Figures, case: str, paths: list[EnginePath]) -> None:
    """Add each path's tokens a second as a share of the engine's own in the same round."""
    bare = figures.find("engine", case, DIRECT, "tokens")
    for path in paths:
        own = figures.find("engine", case, path.name, "tokens")
        if path.name == DIRECT or bare is None or own is None:
            continue
        for tokens, most in zip(own.values, bare.values, strict=False):
            figures.add(
                ("engine", case, path.name), "of the engine's own", tokens / most * 100, "%", more_is_better=True
            )
