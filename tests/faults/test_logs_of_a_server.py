"""The log of a running server: in JSON at DEBUG, on a full disk, and when its terminal is gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.databases import temporary_database
from tests.support.processes import (
    ROOT,
    START_SECONDS,
    Server,
    assert_no_traceback,
    clean_environment,
    free_port,
    is_live,
    temporary_data_dir,
    wait_for,
)

resource = pytest.importorskip("resource", reason="POSIX limits")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="prlimit is Linux's")

MESSAGES = [{"role": "user", "content": "tell me of the aardvark"}]


class LoggingApi:
    """An API process whose console is a pipe of ours. ``console`` is what has come out of it."""

    def __init__(self, url: str, process: subprocess.Popen[bytes], pipe: int, logs: Path) -> None:
        self.url, self.process, self.logs = url, process, logs
        self._pipe = pipe
        self._console = b""

    def console(self) -> list[dict[str, Any]]:
        """Return the events on the console so far. The pipe must be open."""
        while True:
            try:
                piece = os.read(self._pipe, 1 << 16)
            except BlockingIOError:
                return [json.loads(line) for line in self._console.splitlines()]
            assert piece, self._console
            self._console += piece

    def file(self) -> list[dict[str, Any]]:
        """Return the events in the file."""
        return [json.loads(line) for line in (self.logs / "api.log").read_text().splitlines()]

    def lose_terminal(self) -> None:
        """Close the pipe: who writes to it gets an error from now on."""
        os.close(self._pipe)

    def chat(self, name: str, **more: Any) -> requests.Response:
        """Ask for an answer; the request has this id."""
        body = {"messages": MESSAGES, "max_tokens": 3, "ignore_eos": True, "session_id": name, **more}
        return requests.post(f"{self.url}/v1/chat/completions", json=body, headers={"X-Request-Id": name}, timeout=60)


def _request(events: Callable[[], list[dict[str, Any]]], name: str) -> dict[str, Any]:
    """Wait for the line of a request, and return it."""

    def find() -> dict[str, Any] | None:
        found = [event for event in events() if event.get("request_id") == name]
        assert len(found) <= 1
        return found[0] if found else None

    line: dict[str, Any] = wait_for(find, f"the line of {name}")
    return line


@contextmanager
def _logging_api(server: Server, database_url: str, data_dir: Path) -> Iterator[LoggingApi]:
    port = free_port()
    data_dir.mkdir(exist_ok=True, mode=0o711)
    environment = clean_environment(
        DATABASE_URL=database_url,
        DATA_DIR=str(data_dir),
        LOG_FORMAT="json",
        LOG_LEVEL="DEBUG",
        **server.model_settings,
    )
    command = [str(Path(sys.executable).parent / "waitress-serve"), f"--listen=127.0.0.1:{port}", "wsgi:app"]
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=theirs, stderr=theirs)
    os.close(theirs)
    api = LoggingApi(f"http://127.0.0.1:{port}", process, ours, data_dir / "logs")
    try:
        wait_for(lambda: _is_live(api), "an answer of the API", START_SECONDS)
        yield api
    finally:
        process.terminate()
        process.wait(timeout=40)
    assert_no_traceback(api.logs)


def _is_live(api: LoggingApi) -> bool:
    assert api.process.poll() is None, api.console()
    return is_live(api.url)


@pytest.fixture(scope="module")
def api(server: Server) -> Iterator[LoggingApi]:
    """One API process for the tests of this module, which run in order: the last one takes its terminal away."""
    with (
        temporary_database(server, "logs") as url,
        temporary_data_dir() as data_dir,
        _logging_api(server, url, data_dir) as running,
    ):
        yield running


def test_request_is_one_line_with_its_figures_on_the_console_and_in_the_file(api: LoggingApi) -> None:
    api.chat("whole")
    assert b"[DONE]" in api.chat("streamed", stream=True).content
    for name in ("whole", "streamed"):
        line = _request(api.console, name)
        assert line == _request(api.file, name)
        assert (line["level"], line["logger"], line["message"]) == ("INFO", "mistral_api.access", "request")
        assert (line["method"], line["path"], line["status"]) == ("POST", "/v1/chat/completions", 200)
        assert (line["session"], line["client"]) == (name, "python-requests")
        assert line["prompt_tokens"] > 5
        assert line["completion_tokens"] == 3
        assert 0 < line["ttft_ms"] <= line["duration_ms"]
        assert "error" not in line


def test_response_in_the_background_has_a_line_at_its_own_end(api: LoggingApi) -> None:
    body = {"input": "tell me of the aardvark", "max_output_tokens": 16, "background": True, "ignore_eos": True}
    asked = requests.post(f"{api.url}/v1/responses", json=body, headers={"X-Request-Id": "later"}, timeout=60)
    assert asked.status_code == 200, asked.text

    def lines() -> list[dict[str, Any]]:
        return [event for event in api.file() if event.get("request_id") == "later"]

    wait_for(lambda: len(lines()) == 2, "the line of the exchange")
    request, exchange = lines()
    assert "completion_tokens" not in request
    assert (exchange["background"], exchange["status"], exchange["completion_tokens"]) == (True, 200, 16)


def test_client_that_leaves_a_stream_is_named_in_its_line(api: LoggingApi) -> None:
    with requests.post(
        f"{api.url}/v1/chat/completions",
        json={"messages": MESSAGES, "max_tokens": 1500, "stream": True, "ignore_eos": True},
        headers={"X-Request-Id": "left"},
        stream=True,
        timeout=60,
    ) as response:
        next(response.iter_content(10))
    line = _request(api.file, "left")
    assert (line["status"], line["error"]) == (200, "client_closed_request")
    assert line["completion_tokens"] > 0


def test_polls_are_at_debug_and_libraries_are_silent(api: LoggingApi) -> None:
    requests.get(f"{api.url}/health/ready", headers={"X-Request-Id": "poll"}, timeout=30)
    assert _request(api.file, "poll")["level"] == "DEBUG"
    events = api.console()
    assert {event["logger"].split(".")[0] for event in events} <= {"mistral_api", "waitress"}
    assert [event["message"] for event in events if event["logger"] == "waitress"] == [f"Serving on {api.url}"]
    assert all("aardvark" not in json.dumps(event) for event in events)


def test_full_disk_is_one_warning_on_the_console(api: LoggingApi) -> None:
    pid = api.process.pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
    try:
        for number in range(3):
            assert api.chat(f"full-{number}").status_code == 200
        for number in range(3):
            _request(api.console, f"full-{number}")
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))
    told = [event["message"] for event in api.console() if "cannot be written" in event["message"]]
    assert len([text for text in told if text.startswith("the log in")]) == 1
    assert all(told.count(text) == 1 for text in told)
    assert api.chat("room-again").status_code == 200
    _request(api.file, "room-again")
    assert not [event for event in api.file() if event.get("request_id") == "full-1"]


def test_server_outlives_its_terminal(api: LoggingApi) -> None:
    api.lose_terminal()
    for number in range(3):
        assert api.chat(f"alone-{number}").status_code == 200
        _request(api.file, f"alone-{number}")
    began = time.monotonic()
    api.process.terminate()
    api.process.wait(timeout=40)
    assert time.monotonic() - began < 30
