"""Run real servers for a test: on free ports, with their own data, and always stopped at the end."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import psutil
import pytest
import requests

from mistral_api.control.server_key import key_file
from mistral_api.control.server_spec import MAIN_SERVER
from mistral_api.settings import setting_fields
from tests.support import prepared_postgres
from tests.support.prepared_postgres import copy_prepared_postgres
from tests.support.run_folder import run_folder

ROOT = Path(__file__).parent.parent.parent
START_SECONDS = 90.0
SCHEMA = prepared_postgres.SCHEMA
STOP_SECONDS = 40.0
# Settings in the environment of the tests must not reach the servers under test.
_SETTINGS = frozenset(name for name, _ in setting_fields())
_SETTING_PREFIXES = ("LLAMA_", "EMBEDDING_LLAMA_")


# Below the ports that the system gives to outgoing connections (from 32768 on Linux, 49152 on Windows): none of those
# takes a port between the moment that it is found free and the moment that a server listens on it.
_TEST_PORTS = range(10_000, 32_000)
_PORTS_A_WORKER = 1_000


def _test_ports() -> Iterator[int]:
    """Yield the ports of this process of pytest-xdist, each once a round, beginning anywhere: no two share a port."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = _TEST_PORTS.start + worker * _PORTS_A_WORKER % len(_TEST_PORTS)
    begin = random.randrange(_PORTS_A_WORKER)
    while True:
        for offset in range(_PORTS_A_WORKER):
            yield first + (begin + offset) % _PORTS_A_WORKER


_ports = _test_ports()


def free_port() -> int:
    """Return a port that nobody listens on, and that no other test of this run gets."""
    for port in _ports:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError("the ports of the tests never end")


def skip_unless_ci(reason: str) -> NoReturn:
    """Skip the test because something is not installed; on CI, where nothing may be skipped, fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 20.0) -> Any:
    """Poll until the result is true and return it. Fails after the deadline, naming ``what`` did not happen."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.02)


@contextlib.contextmanager
def temporary_data_dir() -> Iterator[Path]:
    """Yield a DATA_DIR that every account can reach, also when the tests run as root."""
    folder = Path(tempfile.mkdtemp(dir=run_folder()))
    folder.chmod(0o755)
    try:
        yield folder / "var"
    finally:
        shutil.rmtree(folder)


def libpq_url(url: str) -> str:
    """Return a SQLAlchemy URL in the form that psycopg2 takes."""
    return url.replace("+psycopg2", "")


def clean_environment(**settings: str) -> dict[str, str]:
    """Return the environment of the tests without any setting of ours, plus these settings."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in _SETTINGS and not name.startswith(_SETTING_PREFIXES)
    }
    # One thread each: engines of parallel tests would otherwise compete for the same cores.
    schema = {"DATABASE_SCHEMA": SCHEMA} if SCHEMA else {}
    # A machine with a card must not fetch the engine's build for it in each test: nobody listens on that port.
    ours = {"PYTHONUNBUFFERED": "1", "THREADS": "1", "ENGINE_INDEX_URL": "http://127.0.0.1:9"}
    return inherited | ours | schema | settings


def read_key(data_dir: Path, server_name: str = MAIN_SERVER) -> str:
    """Return the key of a model server that runs on this DATA_DIR."""
    return key_file(data_dir, server_name).read_text()


class RunningProgram(NamedTuple):
    """A process with what it was called when it was seen: later it may be gone, or a zombie that no longer says so."""

    process: psutil.Process
    name: str
    command: list[str]


def programs_of(data_dir: Path) -> list[RunningProgram]:
    """Return every live process that has this folder in its command line or environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):  # a zombie raises the first, too
            program = RunningProgram(process, process.name(), process.cmdline())
            words = [*program.command, process.environ().get("DATA_DIR", "")]
            if process.pid != os.getpid() and any(str(data_dir) in word for word in words):
                found.append(program)
    return found


def processes_of(data_dir: Path) -> list[psutil.Process]:
    """Return the processes of this folder."""
    return [program.process for program in programs_of(data_dir)]


def postgres_processes(data_dir: Path) -> list[psutil.Process]:
    """Return the PostgreSQL server of this folder, its first process first, and its children."""
    servers = [program.process for program in programs_of(data_dir) if "postgres" in program.name]
    assert servers
    return servers + [child for process in servers for child in process.children(recursive=True)]


def kill_processes(processes: Iterable[psutil.Process]) -> None:
    """Send SIGKILL to those that still run: the death of one may end another."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


@dataclass
class Server:
    """A stack run by ``bin/serve``: one process with its children."""

    process: subprocess.Popen[str]
    api_port: int
    model_port: int
    data_dir: Path
    log_path: Path

    @property
    def url(self) -> str:
        """The base URL of the API."""
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def model_url(self) -> str:
        """The base URL of the model server."""
        return f"http://127.0.0.1:{self.model_port}"

    @property
    def model_key(self) -> dict[str, str]:
        """The header with the model server's key, which is another one after each restart."""
        return {"Authorization": f"Bearer {read_key(self.data_dir)}"}

    @property
    def model_settings(self) -> dict[str, str]:
        """The settings by which an API process with another DATA_DIR uses this model server, until it restarts."""
        return {"MODEL_SERVER_PORT": str(self.model_port), "MODEL_SERVER_API_KEY": read_key(self.data_dir)}

    def log(self) -> str:
        """Return everything that the stack has printed."""
        return self.log_path.read_text(errors="replace")

    def health(self) -> dict[str, Any]:
        """Return the body of GET /health."""
        body: dict[str, Any] = requests.get(self.url + "/health", timeout=10).json()
        return body

    def wait_for_embedding_server(self) -> None:
        """Wait until the second model server is ready, which the ready line does not wait for."""
        wait_for(lambda: self.health()["embedding_server"]["state"] == "ready", "the embedding server", START_SECONDS)

    def stored_messages(self, session_id: str) -> list[dict[str, Any]]:
        """Return the messages of a conversation, as GET /v1/conversations/{session_id} shows them."""
        url = f"{self.url}/v1/conversations/{session_id}"
        messages: list[dict[str, Any]] = requests.get(url, timeout=10).json()["messages"]
        return messages

    def slots_busy(self) -> int:
        """Return the number of busy slots by the model server's own count."""
        slots = requests.get(self.model_url + "/slots", headers=self.model_key, timeout=30).json()
        return sum(slot["is_processing"] for slot in slots)

    def count_tokens(self, messages: list[Any]) -> int:
        """Return the number of prompt tokens of a chat by the model server's own count."""
        url = f"{self.model_url}/v1/chat/completions/input_tokens"
        counted = requests.post(url, json={"messages": messages}, headers=self.model_key, timeout=10).json()
        return int(counted["input_tokens"])

    def stop(self) -> int:
        """Send SIGTERM and return the exit code."""
        self.process.terminate()
        return self.process.wait(timeout=STOP_SECONDS)

    def kill(self) -> None:
        """Send SIGKILL to every process of the stack."""
        kill_processes(processes_of(self.data_dir))
        self.process.wait(timeout=20)


def assert_no_traceback(*outputs: Path) -> None:
    """Check that nothing in these files, or in the files of folders, is a traceback: an error of ours is one line.

    What the model server prints itself is not ours.
    """
    files = [file for path in outputs for file in (path.glob("*.log*") if path.is_dir() else [path])]
    for file in files:
        if not file.name.startswith(("model-server", "embedding-server")) and file.exists():
            text = file.read_text(errors="replace")
            assert "Traceback" not in text, f"{file}: {text[max(0, text.index('Traceback') - 500) :][:3000]}"


@contextlib.contextmanager
def launch_server(data_dir: Path, *options: str, **settings: str) -> Iterator[Server]:
    """Start the stack without waiting for it; stop it at the end, by force if necessary."""
    api_port, model_port = free_port(), free_port()
    log_path = data_dir.parent / f"serve-{api_port}.log"
    environment = clean_environment(
        **{"API_PORT": str(api_port), "MODEL_SERVER_PORT": str(model_port), "DATA_DIR": str(data_dir)} | settings
    )
    with log_path.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mistral_api.serving", *options],
            env=environment, cwd=data_dir.parent, stdout=log, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
    server = Server(process, api_port, model_port, data_dir, log_path)
    try:
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(timeout=STOP_SECONDS)
        finally:
            kill_processes(processes_of(data_dir))
    assert_no_traceback(log_path, data_dir / "logs")


@contextlib.contextmanager
def running_server(data_dir: Path, **settings: str) -> Iterator[Server]:
    """Run the stack, and yield it when it is ready. A DATA_DIR without a database gets one that was made before."""
    _copy_database(data_dir, settings)
    with launch_server(data_dir, **settings) as server:
        wait_until_ready(server)
        yield server


def _copy_database(data_dir: Path, settings: dict[str, str]) -> None:
    if not settings.keys() & {"DATABASE_URL", "DATABASE_SCHEMA"}:
        copy_prepared_postgres(data_dir)


def wait_until_ready(server: Server) -> None:
    """Wait until the ready line is printed."""

    def announced() -> bool:
        assert server.process.poll() is None, server.log()
        return "Mistral Local API ready on" in server.log()

    wait_for(announced, "the ready line", START_SECONDS)


@contextlib.contextmanager
def running_api(data_dir: Path, **settings: str) -> Iterator[Server]:
    """Run ``waitress-serve wsgi:app`` in front of a model server that runs already; stop it with SIGTERM."""
    port = free_port()
    data_dir.mkdir(exist_ok=True, mode=0o711)
    _copy_database(data_dir, settings)
    log_path = data_dir.parent / f"api-{port}.log"
    command = [str(Path(sys.executable).parent / "waitress-serve"), f"--listen=127.0.0.1:{port}", "--threads=16"]
    environment = clean_environment(DATA_DIR=str(data_dir), **settings)
    with log_path.open("w") as log:
        process = subprocess.Popen(
            [*command, "--channel-request-lookahead=1", "wsgi:app"],
            env=environment, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
    server = Server(process, port, int(settings["MODEL_SERVER_PORT"]), data_dir, log_path)
    try:
        wait_for(lambda: _is_live(server), "an answer of the API", START_SECONDS)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert_no_traceback(log_path, data_dir / "logs")


def _is_live(server: Server) -> bool:
    assert server.process.poll() is None, server.log()
    return is_live(server.url)


def is_live(url: str) -> bool:
    """Whether an API answers at this URL."""
    try:
        return requests.get(f"{url}/health/live", timeout=5).status_code == 200
    except requests.RequestException:
        return False
