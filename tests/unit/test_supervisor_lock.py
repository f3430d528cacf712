"""One supervisor a data folder: the next one waits for one that is stopping, and is refused by one that goes on."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock

from mistral_api.control.server_spec import main_server_spec
from mistral_api.control.status import State
from mistral_api.errors import StartError
from mistral_api.settings import Settings
from mistral_api.supervisor import __main__ as command
from mistral_api.supervisor.events import Events, StopRequested
from mistral_api.supervisor.status_reporter import StatusReporter


@pytest.fixture
def held(tmp_path: Path) -> FileLock:
    """The lock of another supervisor, which is ready."""
    (tmp_path / "run").mkdir()
    lock = FileLock(tmp_path / "run" / "supervisor.lock", thread_local=False)
    lock.acquire()
    _enter(tmp_path, State.STARTING, State.LOADING, State.READY)
    return lock


def _enter(data_dir: Path, *states: State) -> None:
    reporter = StatusReporter(main_server_spec(Settings(data_dir=data_dir)))
    for state in states:
        reporter.enter(state)


def test_supervisor_waits_for_one_that_is_stopping(
    held: FileLock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "NOTICE_SECONDS", 0.2)
    _enter(tmp_path, State.STARTING, State.STOPPING)
    threading.Timer(0.6, held.release).start()
    began = time.monotonic()
    command._acquire_lock(tmp_path, Events()).release()
    assert time.monotonic() - began >= 0.5


def test_supervisor_is_refused_while_another_one_goes_on(
    held: FileLock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "NOTICE_SECONDS", 0.1)
    with pytest.raises(StartError, match="another supervisor runs"):
        command._acquire_lock(tmp_path, Events())
    assert held.is_locked


def test_supervisor_that_waits_for_another_one_can_be_stopped(held: FileLock, tmp_path: Path) -> None:
    events = Events()
    threading.Timer(0.1, events.request_stop).start()
    with pytest.raises(StopRequested):
        command._acquire_lock(tmp_path, events)
    assert held.is_locked
