"""The first API process starts the others, sees how each is, and ends what hangs; stubs stand for the others."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psutil
import pytest

from mistral_api.serving import api_processes
from mistral_api.serving.api_processes import ApiProcesses
from mistral_api.settings import Settings
from tests.support.event_loops import running_loop
from tests.support.processes import wait_for

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="API_PROCESSES is for POSIX systems")


@pytest.fixture(autouse=True)
def _stubs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_processes, "MODULE", "tests.support.stub_sibling")


@contextmanager
def _running(monkeypatch: pytest.MonkeyPatch, behaviour: str, count: int = 2) -> Iterator[ApiProcesses]:
    """Run so many processes, of which all but the first are stubs."""
    monkeypatch.setenv("STUB_SIBLING", behaviour)
    processes = ApiProcesses(Settings(api_processes=count))
    with ExitStack() as stack:
        loop = stack.enter_context(running_loop())
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        stack.callback(processes.close)
        processes.start(listener, loop)
        yield processes


def _shows(processes: ApiProcesses, running: int, problem: str | None) -> bool:
    processes.restart_if_ended()
    health = processes.health()
    error = health["last_error"] or ""
    return health["running"] == running and (problem or "") in error and (health["status"] == "ok") == (not problem)


def test_all_serve_and_end_when_they_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with _running(monkeypatch, "serves", 3) as processes:
        assert processes.health()["configured"] == 3
        wait_for(lambda: _shows(processes, 3, None), "three processes")
        assert not processes.ended
        processes.ask_to_stop()
        wait_for(lambda: processes.ended, "the end of the others")


def test_one_that_ends_is_started_again_and_health_says_why_it_does_not_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    with _running(monkeypatch, "fails") as processes:
        wait_for(lambda: _shows(processes, 1, "API process 2 ended with exit code 3"), "what became of it")
        monkeypatch.setenv("STUB_SIBLING", "serves")
        wait_for(lambda: _shows(processes, 2, None), "the next start")


def test_one_that_never_serves_is_worth_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_processes, "START_SECONDS", 0.0)
    with _running(monkeypatch, "waits") as processes:
        assert _shows(processes, 1, "API process 2 does not begin to serve")


def test_one_that_hangs_is_killed_and_started_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("ASK_SECONDS", "HANG_SECONDS", "END_SECONDS"):
        monkeypatch.setattr(api_processes, name, 0.1)
    with _running(monkeypatch, "hangs") as processes:
        monkeypatch.setenv("STUB_SIBLING", "serves")
        wait_for(lambda: _shows(processes, 1, "ended with exit code -9"), "the end of the one that hangs")
        assert "API process 2 hangs" in caplog.text
        monkeypatch.setattr(api_processes, "HANG_SECONDS", 10.0)
        wait_for(lambda: _shows(processes, 2, None), "the next start")


def test_one_that_does_not_answer_is_worth_attention_until_it_does(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, seconds in (("ASK_SECONDS", 0.1), ("ANSWER_SECONDS", 0.5), ("AGAIN_SECONDS", 0.1)):
        monkeypatch.setattr(api_processes, name, seconds)
    others = set(psutil.Process().children())
    with _running(monkeypatch, "serves") as processes:
        wait_for(lambda: _shows(processes, 2, None), "two processes")
        assert processes.hub is not None
        (peer,) = processes.hub.peers
        seen: list[bool] = []
        peer.on_silence(seen.append)
        (child,) = set(psutil.Process().children()) - others
        child.suspend()
        try:
            wait_for(lambda: _shows(processes, 2, "API process 2 does not answer"), "that it is seen")
            wait_for(lambda: len(seen) > 2, "that it is seen again and again")
        finally:
            child.resume()
        wait_for(lambda: _shows(processes, 2, None), "its answer")
        assert seen == [True] * (len(seen) - 1) + [False]
        assert caplog.text.count("API process 2 does not answer") == 1
        assert caplog.text.count("API process 2 answers again") == 1


def test_others_that_do_not_end_are_killed_within_one_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_processes, "END_SECONDS", 0.5)
    with _running(monkeypatch, "hangs", 4) as processes:
        wait_for(lambda: processes.health()["running"] == 4, "four processes")
        began = time.monotonic()
        processes.close()
        assert time.monotonic() - began < 10
        assert processes.ended


def test_one_process_has_no_others() -> None:
    processes = ApiProcesses(Settings())
    assert (processes.hub, processes.shares, processes.ended) == (None, None, True)
    assert processes.health() == {"status": "ok", "configured": 1, "running": 1, "last_error": None}
    processes.close()
