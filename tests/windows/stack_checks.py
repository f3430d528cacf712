"""``bin\\serve`` as a user starts it, with its own PostgreSQL and engine, until it is stopped in every way."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import requests

from tests.support.processes import free_port
from tests.windows.checks import CheckError, Step
from tests.windows.installation import Installation
from tests.windows.wine import WineProcess, tail

READY_LINE = "Mistral Local API ready on"
# CI gives these programs a tenth of what a test gets: what else takes 24 s has taken more than 120 s there.
READY_SECONDS = 600.0
REQUEST_SECONDS = 300.0
STOP_SECONDS = 300.0
LEFT_SECONDS = 180.0
QUESTION = "Wie heißt die Hauptstadt von Österreich?"
SESSION = "windows-check"
DATA_FOLDER = "Daten von Zoë"
ENGINE, DATABASE = "mistral_api.embedded.engine", "postgres.exe"


class StackChecks:
    """One life of the server after another, on one DATA_DIR."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._port, self._model_port = free_port(), free_port()
        self._process: WineProcess | None = None

    def steps(self) -> list[Step]:
        """Return the steps; each needs those before it."""
        return [
            Step(r"bin\serve gets ready", self._start),
            Step("a chat", self._chat),
            Step("a stream", self._stream),
            Step("history, statistics, documentation", self._read_back),
            Step("the engine, killed, is ready again", self._kill_engine),
            Step(r"bin\serve, killed, leaves nothing", self._kill_serve),
            Step(r"bin\serve starts again on the same data", self._start_again),
            Step("Ctrl-C ends everything in order", self._press_ctrl_c),
        ]

    @property
    def url(self) -> str:
        """The base URL of the API."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def settings(self) -> dict[str, str]:
        """The settings that the server is started with."""
        return {
            "API_PORT": str(self._port),
            "MODEL_SERVER_PORT": str(self._model_port),
            "DATA_DIR": rf"C:\{DATA_FOLDER}",
            "CONTEXT_SIZE": "2048",
        }

    def _start(self) -> str:
        self._process = self._installation.start_script(r"bin\serve", **self.settings)
        return self._wait_until_ready()

    def _wait_until_ready(self) -> str:
        process = self._running()
        wait_until(lambda: READY_LINE in process.output or process.ended, READY_SECONDS, process)
        if READY_LINE not in process.output:
            raise CheckError(f"it ended:\n{tail(process.output)}")
        require_no_traceback(process.output)
        return str(self._get("/health")["status"])

    def _running(self) -> WineProcess:
        if self._process is None:
            raise CheckError("not started")
        return self._process

    def _get(self, path: str) -> Any:
        answer = requests.get(self.url + path, timeout=REQUEST_SECONDS)
        if answer.status_code != 200:
            raise CheckError(f"GET {path}: {answer.status_code} {answer.text[:300]}")
        return answer.json() if "json" in answer.headers["Content-Type"] else answer.text

    def _chat(self) -> str:
        return chat(self.url, SESSION)

    def _stream(self) -> str:
        return stream(self.url, SESSION)

    def _read_back(self) -> str:
        """Read what the two turns have left, from PostgreSQL once it is there."""
        wait_until(lambda: self._get("/health")["recording"]["pending"] == 0, REQUEST_SECONDS, self._running())
        self._require_messages(4)
        if self._get("/v1/stats")["requests"]["total"] < 2:
            raise CheckError("the statistics do not have the two requests")
        if "swagger" not in self._get("/docs").lower():
            raise CheckError("/docs is no page of Swagger UI")
        health = self._get("/health")
        if (health["status"], health["database"]["status"]) != ("ok", "ok"):
            raise CheckError(f"/health says {health}")
        return "4 messages"

    def _require_messages(self, least: int) -> None:
        messages = self._get(f"/v1/conversations/{SESSION}")["messages"]
        if len(messages) < least or QUESTION not in str(messages[0]):
            raise CheckError(f"the conversation has {len(messages)} messages: {str(messages)[:300]}")

    def _kill_engine(self) -> str:
        old = self._engine_pids()
        for process in self._installation.prefix.processes_with(ENGINE):
            process.kill()
        began = time.monotonic()
        wait_until(lambda: self._has_new_engine(old), READY_SECONDS, self._running())
        seconds = time.monotonic() - began
        chat(self.url, SESSION)
        require_no_traceback(self._running().output)
        return f"after {seconds:.1f} s, and answers"

    def _engine_pids(self) -> set[int]:
        return {process.pid for process in self._installation.prefix.processes_with(ENGINE)}

    def _has_new_engine(self, old: set[int]) -> bool:
        return bool(self._engine_pids() - old) and self._get_model_state() == "ready"

    def _get_model_state(self) -> str:
        answer = requests.get(self.url + "/health", timeout=REQUEST_SECONDS)  # 503 until it is ready
        return str(answer.json()["model_server"]["state"])

    def _kill_serve(self) -> str:
        """Kill the process that the user started, and no other."""
        process = self._running()
        process.kill()
        return self._require_nothing_left(process.output)

    def _require_nothing_left(self, output: str) -> str:
        began = time.monotonic()
        require_nothing_left(self._installation, LEFT_SECONDS)
        require_no_traceback(output)
        return f"after {time.monotonic() - began:.1f} s"

    def _start_again(self) -> str:
        """Start it in a console, where a user can press Ctrl-C."""
        self._process = self._installation.start_script(r"tests\windows\console_user.py", r"bin\serve", **self.settings)
        state = self._wait_until_ready()
        self._require_messages(4)
        return state

    def _press_ctrl_c(self) -> str:
        process = self._running()
        process.say("")
        code = process.wait(STOP_SECONDS)
        if code != 0:
            raise CheckError(f"it ended with {code}:\n{tail(process.output)}")
        return self._require_nothing_left(process.output)


def wait_until(happened: Callable[[], bool], seconds: float, process: WineProcess) -> None:
    """Wait until something is seen. Raises CheckError after so many seconds, with what a process has printed."""
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() >= deadline:
            raise CheckError(f"not within {seconds:.0f} s; printed:\n{tail(process.output)}")
        time.sleep(0.1)


def require_nothing_left(installation: Installation, seconds: float) -> None:
    """Raise CheckError where a program still runs after this time."""
    left = installation.prefix.wait_until_empty(seconds)
    if left:
        raise CheckError("still running:\n" + "\n".join(left))


def require_no_traceback(output: str) -> None:
    """Raise CheckError where a traceback was printed."""
    if "Traceback" in output:
        raise CheckError(f"a traceback:\n{tail(output[output.index('Traceback') :])}")


def chat(url: str, session: str) -> str:
    """Ask a question; return the answer. Raises CheckError."""
    body = {"messages": [{"role": "user", "content": QUESTION}], "session_id": session, "max_tokens": 16}
    answer = requests.post(f"{url}/v1/chat/completions", json=body, timeout=REQUEST_SECONDS)
    if answer.status_code != 200:
        raise CheckError(f"{answer.status_code} {answer.text[:300]}")
    content = str(answer.json()["choices"][0]["message"]["content"])
    if not content.strip():
        raise CheckError(f"an empty answer: {answer.text[:300]}")
    return repr(content[:40])


def stream(url: str, session: str) -> str:
    """Ask for a stream; return the number of its events. Raises CheckError."""
    body = {
        "messages": [{"role": "user", "content": "Zähle bis zehn."}],
        "session_id": session,
        "max_tokens": 16,
        "stream": True,
    }
    with requests.post(f"{url}/v1/chat/completions", json=body, stream=True, timeout=REQUEST_SECONDS) as answer:
        events = [line for line in answer.iter_lines() if line.startswith(b"data: ")]
    if answer.status_code != 200 or len(events) < 3 or events[-1] != b"data: [DONE]":
        raise CheckError(f"{answer.status_code}, {len(events)} events, the last is {events[-1:]!r}")
    return f"{len(events)} events"
