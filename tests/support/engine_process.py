"""The bundled engine alone, without a supervisor or an API, started as an operator's variables say."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from tests.support.processes import START_SECONDS, clean_environment, free_port, wait_for


@dataclass(frozen=True, slots=True)
class EngineProcess:
    """A running engine. ``url``: where it listens; ``log_path``: all that it prints."""

    url: str
    log_path: Path

    def log(self) -> str:
        """Return what it has printed."""
        return self.log_path.read_text(errors="replace")

    def get(self, path: str) -> Any:
        """Return the JSON of an answer."""
        return requests.get(self.url + path, timeout=30).json()

    def post(self, path: str, **body: Any) -> Any:
        """Return the JSON of an answer."""
        return requests.post(self.url + path, json=body, timeout=60).json()


@contextlib.contextmanager
def running_engine(folder: Path, model: Path, **variables: str) -> Iterator[EngineProcess]:
    """Run the engine with these ``LLAMA_ARG_*`` variables, named without that beginning, until the end of the test."""
    port = free_port()
    # One thread, as everywhere in the tests: two would wait for each other on a busy machine.
    own = {"MODEL": str(model), "PORT": str(port), "LOG_VERBOSITY": "4", "THREADS": "1"} | variables
    environment = clean_environment(**{f"LLAMA_ARG_{name}": value for name, value in own.items()})
    log_path = folder / f"engine-{port}.log"
    with log_path.open("w") as log:
        command = [sys.executable, "-m", "mistral_api.embedded.engine"]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    engine = EngineProcess(f"http://127.0.0.1:{port}", log_path)

    def is_listening() -> bool:
        assert process.poll() is None, engine.log()
        return "engine: listening on" in engine.log()

    try:
        wait_for(is_listening, "the engine", START_SECONDS)
        yield engine
    finally:
        process.kill()
        process.wait(timeout=20)
