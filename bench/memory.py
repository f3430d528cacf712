"""Resident memory: of a server at rest, and of each stream when there are a thousand."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import psutil

from bench.figures import Figures
from bench.paths import OTHER, OURS, RELAY, EnginePath, running_paths
from bench.peers import LITELLM, MODEL
from bench.plan import Plan, rounds_of
from bench.programs import fake_engine, generate_load
from bench.running import ROOT, ServerCommand, free_port, python_of, running_server
from bench.startup import prepared_folder

SAMPLE_SECONDS = 0.05
STREAMS, CHUNKS, CHUNKS_PER_SECOND = 1000, 20, 5
# How long a server rests before its memory is read.
REST_SECONDS = 2.0
DEADLINE_SECONDS = 60


class MemorySampler:
    """Samples the memory of a path's first process during a block. ``added``: its most, less that at the beginning."""

    def __init__(self, path: EnginePath) -> None:
        self._process = None if path.pid is None else psutil.Process(path.pid)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.before = self.most = self._resident()

    @property
    def added(self) -> int:
        """Bytes."""
        return self.most - self.before

    def _resident(self) -> int:
        return 0 if self._process is None else int(self._process.memory_info().rss)

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self.most = max(self.most, self._resident())

    def __enter__(self) -> MemorySampler:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._thread.join()


def measure_memory(plan: Plan, figures: Figures) -> None:
    """Read the memory of servers at rest, and while a thousand slow streams are open."""
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": f"Count. rate={CHUNKS_PER_SECOND} tokens={CHUNKS}"}],
        "max_tokens": CHUNKS,
        "stream": True,
    }
    for name, root in ({OURS: ROOT} | ({} if plan.other is None else {OTHER: plan.other})).items():
        _measure_restarted(name, root, figures)
    names = plan.paths(RELAY, OURS, LITELLM)
    with fake_engine() as engine, running_paths(names, engine.port, other=plan.other) as paths:
        time.sleep(REST_SECONDS)
        for path in paths:
            _add_resident(path, "at rest", figures)
        for path in rounds_of([path for path in paths if path.name in (OURS, OTHER)], plan.rounds):
            where = "memory", f"{STREAMS} streams", path.name
            with MemorySampler(path) as memory:
                found = generate_load(
                    "streams", path.port, body, path.header, clients=STREAMS, deadline=DEADLINE_SECONDS
                )
            figures.add(where, "memory a stream", memory.added / STREAMS / 1024, "KB")
            figures.add(where, "complete", found["complete"], f"of {STREAMS}", more_is_better=True)
        for path in paths:
            path.settle()
            _add_resident(path, "afterwards", figures)


def _measure_restarted(name: str, root: Path, figures: Figures) -> None:
    """Read the memory of a server at rest whose database was there already: its first start has loaded Alembic too."""
    with fake_engine() as engine:
        settings = {"MODEL_SERVER_URL": f"http://127.0.0.1:{engine.port}", "LOG_LEVEL": "WARNING"}
        with prepared_folder(root, settings) as data_dir:
            port = free_port()
            environment = os.environ | settings | {"DATA_DIR": str(data_dir), "API_PORT": str(port)}
            command = [python_of(root), "bin/serve"]
            log = data_dir.parent / "output"
            with running_server(ServerCommand(command, port, environment, log, root)) as process:
                time.sleep(REST_SECONDS)
                _add_resident(EnginePath(name, port, process.pid), "started again", figures)


def _add_resident(path: EnginePath, case: str, figures: Figures) -> None:
    sizes = [process.memory_info().rss / 2**20 for process in path.processes()]
    figures.add(("memory", case, path.name), "first process", sizes[0], "MB")
    figures.add(("memory", case, path.name), "all processes", sum(sizes), "MB")
