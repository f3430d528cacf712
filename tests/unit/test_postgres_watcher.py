"""When the embedded PostgreSQL is started again, and what the log and /health say meanwhile."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mistral_api.embedded.postgres import watcher as module
from mistral_api.embedded.postgres.postmaster import remove_misleading_lock_files, running_postmaster
from mistral_api.embedded.postgres.watcher import PostgresWatcher
from mistral_api.errors import StartError
from mistral_api.system.backoff import Backoff
from mistral_api.system.processes import ProcessIdentity, identity_of
from tests.support.processes import wait_for


class _FakePostgres:
    """A process that stands for the postmaster, and a start that fails so often."""

    def __init__(self, failures: int = 0) -> None:
        self.failures, self.starts = failures, 0
        self.process = self._spawn()

    def _spawn(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)

    def find(self) -> ProcessIdentity | None:
        with contextlib.suppress(psutil.NoSuchProcess):
            return identity_of(self.process.pid) if self.process.poll() is None else None
        return None

    def restart(self) -> None:
        self.starts += 1
        if self.failures > 0:
            self.failures -= 1
            raise StartError("The disk is full.")
        self.process.communicate()
        self.process = self._spawn()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.01)


@contextlib.contextmanager
def _watched(postgres: _FakePostgres, backoff: Backoff | None = None) -> Iterator[PostgresWatcher]:
    watcher = PostgresWatcher(postgres.find, postgres.restart, Path("/data/log"), backoff)
    watcher.start()
    try:
        yield watcher
    finally:
        watcher.close()
        postgres.kill()


def test_killed_postgres_is_started_again_and_both_are_said(caplog: pytest.LogCaptureFixture) -> None:
    postgres = _FakePostgres(failures=1)
    pid = postgres.process.pid
    with _watched(postgres) as watcher:
        assert watcher.health() == {"state": "running", "restarts": 0, "last_error": None}
        postgres.kill()
        wait_for(lambda: watcher.health()["restarts"] == 1, "a restart")
        assert watcher.health() == {"state": "running", "restarts": 1, "last_error": None}
    said = [record.getMessage() for record in caplog.records]
    assert [text.partition("; ")[0] for text in said[:2]] == [
        f"the embedded PostgreSQL does not run: its process {pid} ended",
        "the embedded PostgreSQL does not run: The disk is full",
    ]
    assert said[2].startswith("the embedded PostgreSQL runs again")
    assert len(said) == 3


def test_postgres_that_never_starts_is_given_up_for_a_while_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    postgres = _FakePostgres(failures=100)
    with _watched(postgres, Backoff(max_restarts=2)) as watcher:
        postgres.kill()
        wait_for(lambda: watcher.health()["state"] == "given_up", "the end of all tries")
        assert watcher.health() == {"state": "given_up", "restarts": 0, "last_error": "The disk is full"}
    assert postgres.starts == 2
    (error,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert error == (
        "the embedded PostgreSQL is given up for 5 minutes: The disk is full; records wait in the journal; "
        f"its log is in '{Path('/data/log')}'"
    )


def test_postgres_that_another_process_has_started_is_not_started_twice() -> None:
    postgres = _FakePostgres()
    with _watched(postgres) as watcher:
        former, postgres.process = postgres.process, postgres._spawn()
        former.kill()
        former.communicate()
        wait_for(lambda: watcher._current == postgres.find(), "the other one's process")
        assert (postgres.starts, watcher.health()["restarts"]) == (0, 0)


def test_lock_file_that_names_another_program_is_no_running_postgres_and_is_removed(tmp_path: Path) -> None:
    lock, socket_lock = tmp_path / "postmaster.pid", tmp_path / "socket.lock"
    other = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    try:
        for content in (f"{other.pid}\n{tmp_path}\n", "", "garbage"):
            lock.write_text(content)
            socket_lock.write_text(content)
            assert running_postmaster(tmp_path) is None
            remove_misleading_lock_files(tmp_path, socket_lock)
            assert not lock.exists()
            assert not socket_lock.exists()
    finally:
        other.communicate()
    lock.write_text(f"{other.pid}\n")  # it has ended: PostgreSQL itself sees that, and what else the file says
    remove_misleading_lock_files(tmp_path, socket_lock)
    assert lock.exists()


def test_watcher_goes_on_after_any_failure_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    postgres = _FakePostgres()
    failures = [OSError(12, "Cannot allocate memory")]
    start = postgres.restart

    def restart() -> None:
        if failures:
            raise failures.pop()
        start()

    monkeypatch.setattr(postgres, "restart", restart)
    with _watched(postgres, Backoff(10)) as watcher:
        postgres.kill()
        wait_for(lambda: watcher.health()["restarts"] == 1, "another start")
    assert not failures
