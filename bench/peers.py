"""Other people's servers, each in an environment of its own in the cache, never in this project's."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.programs import BenchmarkError, cache_folder
from bench.running import ServerCommand, free_port, running_server
from mistral_api.model_files.served_model import demo_model_path

LITELLM, LLAMA_CPP_PYTHON = "LiteLLM", "llama-cpp-python"
# The model that LiteLLM serves; the fake engine goes by this name.
MODEL = "fake-engine"
# Newer versions of LiteLLM need packages that not every index has.
REQUIREMENTS = {LITELLM: "litellm[proxy]==1.108.7", LLAMA_CPP_PYTHON: "llama-cpp-python[server]==0.3.36"}
# llama-cpp-python is compiled where its index has no wheel for this machine.
INSTALL_SECONDS = 3600
# LiteLLM asks the network for prices and for more, unless it is told not to.
_LITELLM_OFFLINE = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    "LITELLM_TELEMETRY": "False",
    "NO_DOCS": "True",
}


def programs_of(peer: str) -> Path:
    """Return the folder of programs of a peer's environment, which is made at its first use.

    Raises BenchmarkError where it cannot be installed.
    """
    folder, requirement = cache_folder() / peer.lower(), REQUIREMENTS[peer]
    done = folder / "installed"
    if not done.exists() or done.read_text(encoding="utf-8") != requirement:
        print(f"installing {requirement} in {folder} ...", flush=True)
        _run([sys.executable, "-m", "venv", str(folder)])
        _run([str(folder / "bin" / "python"), "-m", "pip", "install", "-q", requirement])
        done.write_text(requirement, encoding="utf-8")
    return folder / "bin"


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchmarkError(f"'{' '.join(command[-2:])}' failed: {error}") from error
    if done.returncode != 0:
        raise BenchmarkError(f"'{' '.join(command[-2:])}' failed: {done.stderr.strip()[-500:]}")


@contextlib.contextmanager
def running_litellm(engine: int, header: str | None) -> Iterator[tuple[int, int]]:
    """Run LiteLLM's proxy in front of an engine until the end of the block; yield its port and its process."""
    programs, port = programs_of(LITELLM), free_port()
    key = "none" if header is None else header.rpartition(" ")[2]
    parameters = {"model": f"openai/{MODEL}", "api_base": f"http://127.0.0.1:{engine}/v1", "api_key": key}
    with tempfile.TemporaryDirectory(prefix="mistral-api-bench-") as folder:
        configuration = Path(folder) / "config.yaml"  # JSON is YAML
        configuration.write_text(
            json.dumps({"model_list": [{"model_name": MODEL, "litellm_params": parameters}]}), encoding="utf-8"
        )
        command = [str(programs / "litellm"), "--config", str(configuration), "--host", "127.0.0.1"]
        server = ServerCommand(
            [*command, "--port", str(port)],
            port,
            os.environ | _LITELLM_OFFLINE,
            Path(folder) / "output",
            Path(folder),
            "/health/liveliness",
        )
        with running_server(server) as process:
            yield port, process.pid


@contextlib.contextmanager
def running_llama_cpp_python(threads: int, context: int) -> Iterator[tuple[int, int]]:
    """Run llama-cpp-python's server with the demo model until the end of the block; yield its port and its process."""
    programs, port = programs_of(LLAMA_CPP_PYTHON), free_port()
    arguments = {"model": demo_model_path(), "host": "127.0.0.1", "port": port, "n_threads": threads, "n_ctx": context}
    # By default a request ends the one before it.
    arguments["interrupt_requests"] = False
    words = [str(word) for name, value in arguments.items() for word in (f"--{name}", value)]
    with tempfile.TemporaryDirectory(prefix="mistral-api-bench-") as folder:
        command = [str(programs / "python"), "-m", "llama_cpp.server", *words]
        server = ServerCommand(command, port, None, Path(folder) / "output", Path(folder), "/v1/models")
        with running_server(server) as process:
            yield port, process.pid
