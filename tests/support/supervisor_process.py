"""Run a supervisor for a test, with the real engine or with a misbehaving one."""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mistral_api.control.status import ModelServerStatus, State, read_status
from tests.support.processes import ROOT, assert_no_traceback, clean_environment, free_port, wait_for


@dataclass
class SupervisorProcess:
    """A supervisor's process with its data folder and its model server's port."""

    process: subprocess.Popen[str]
    data_dir: Path
    port: int

    def status(self) -> ModelServerStatus:
        """Return the status file, which must exist."""
        status = read_status(self.data_dir)
        assert status is not None
        return status

    def wait_ready(self, restarts: int | None = 0, seconds: float = 40) -> ModelServerStatus:
        """Wait until the model server is ready after this many restarts; None means any number."""

        def found_ready() -> ModelServerStatus | None:
            status = read_status(self.data_dir)
            ready = status is not None and status.state is State.READY and restarts in (None, status.restarts)
            return status if ready else None

        found: ModelServerStatus = wait_for(
            found_ready, f"a model server that is ready after {restarts} restarts", seconds
        )
        return found


def supervisor_environment(data_dir: Path, **settings: str) -> dict[str, str]:
    """Return the environment of a supervisor with a free port."""
    own = {"DATA_DIR": str(data_dir), "MODEL_SERVER_PORT": str(free_port()), "CONTEXT_SIZE": "8192"}
    return clean_environment(**own | settings)


@contextlib.contextmanager
def running_supervisor(data_dir: Path, *options: str, **settings: str) -> Iterator[SupervisorProcess]:
    """Run a supervisor until the end of the block."""
    environment = supervisor_environment(data_dir, **settings)
    command = [sys.executable, "-m", "mistral_api.supervisor", *options]
    log_path = data_dir.parent / f"supervisor-{environment['MODEL_SERVER_PORT']}.log"
    with log_path.open("w") as log:
        process = subprocess.Popen(command, env=environment, cwd=data_dir.parent, stderr=log, text=True)
    try:
        yield SupervisorProcess(process, data_dir, int(environment["MODEL_SERVER_PORT"]))
    finally:
        process.terminate()
        process.wait(timeout=30)
    assert_no_traceback(log_path, data_dir / "logs")


def run_supervisor_to_end(data_dir: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a supervisor that is expected to end by itself."""
    done = subprocess.run(
        [sys.executable, "-m", "mistral_api.supervisor", *arguments],
        env=supervisor_environment(data_dir, LOG_LEVEL="ERROR", **settings),
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stdout + done.stderr
    return done


@dataclass
class MisbehavingEngine:
    """A misbehaving ``llama-server``: the settings that choose it, and the record of what it did."""

    folder: Path

    def settings(self, how: str) -> dict[str, str]:
        """Return the settings for a behaviour; see ``tests/support/misbehaving_engine.py``."""
        return {
            "LLAMA_SERVER_BIN": str(self.folder / "llama-server"),
            "GGML_MISBEHAVE": how,
            "GGML_MISBEHAVE_DIR": str(self.folder),
        }

    def starts(self) -> list[dict[str, str]]:
        """Return the flags with values of every start."""
        file = self.folder / "starts"
        lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return [dict(itertools.pairwise(words)) for words in lines]

    def probes(self) -> int:
        """Return the number of GET requests it got."""
        file = self.folder / "probes"
        return file.stat().st_size if file.exists() else 0

    def descriptors(self) -> list[str]:
        """Return its open file descriptors at the start, including the one of the folder listing itself."""
        return (self.folder / "descriptors").read_text().split()


def install_misbehaving_engine(folder: Path) -> MisbehavingEngine:
    """Write the program into a new folder."""
    folder.mkdir()
    program = folder / "llama-server"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT}/tests/support/misbehaving_engine.py "$@"\n')
    program.chmod(0o755)
    return MisbehavingEngine(folder)


def broken_xllamacpp(folder: Path) -> Path:
    """Return a folder for PYTHONPATH in which xllamacpp fails as it does where a library of the system is missing."""
    package = folder / "broken" / "xllamacpp"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('raise ImportError("DLL load failed while importing xllamacpp")\n')
    return package.parent
