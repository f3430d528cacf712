"""Writes of the same moment share a transaction; each gets its own result or error, and the event loop never waits."""

from __future__ import annotations

import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from mistral_api.event_loop import waiting
from mistral_api.event_loop.loop import EventLoop
from mistral_api.recording.group_commit import MOST_BYTES_IN_LOOP, MOST_IN_LOOP, Change, GroupCommit
from mistral_api.recording.journal import connect
from tests.support.event_loops import run_as_task, running_loop
from tests.support.processes import wait_for

SECONDS = 10.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database with a table of numbers."""
    made = tmp_path / "numbers.sqlite3"
    with closing(connect(made)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE numbers (number INTEGER PRIMARY KEY CHECK (number < 1000))")
    return made


@pytest.fixture(params=[False, True], ids=["normal", "synced"])
def synced(request: pytest.FixtureRequest) -> bool:
    """Whether commits wait for the disk."""
    return bool(request.param)


@pytest.fixture
def statements() -> list[str]:
    """What was executed, as SQLite tells it."""
    return []


@pytest.fixture
def commits(path: Path, synced: bool, statements: list[str]) -> Iterator[GroupCommit]:
    connection = connect(path, synced=synced)
    made = GroupCommit(connection, synced=synced)
    connection.set_trace_callback(statements.append)
    yield made
    made.close()


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    with running_loop() as running:
        yield running


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def _insert(number: int) -> Change:
    def insert(connection: sqlite3.Connection) -> int:
        connection.execute("INSERT INTO numbers VALUES (?)", (number,))
        return number

    return insert


def _stored(path: Path) -> list[int]:
    with closing(connect(path)) as connection:
        return [number for (number,) in connection.execute("SELECT number FROM numbers ORDER BY number")]


class _SlowCommit:
    """A write that goes on until it is told to end; meanwhile others queue."""

    def __init__(self, commits: GroupCommit, threads: ThreadPoolExecutor) -> None:
        self._began, self._ends = threading.Event(), threading.Event()
        self._write = threads.submit(commits.write, self._change)
        assert self._began.wait(SECONDS)

    def _change(self, _connection: sqlite3.Connection) -> int:
        self._began.set()
        assert self._ends.wait(SECONDS)
        return 0

    def end(self) -> None:
        """Let it end."""
        self._ends.set()
        self._write.result(SECONDS)


def _spawn(loop: EventLoop, function: Callable[[], int]) -> Future[int]:
    """Run a function as a task, without waiting for it."""
    future: Future[int] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except Exception as error:  # noqa: BLE001 - raised again by the future
            future.set_exception(error)

    loop.spawn(run)
    return future


def _transactions(statements: list[str]) -> int:
    return sum(statement.startswith("BEGIN") for statement in statements)


def test_a_lone_write_is_committed_by_its_own_thread(commits: GroupCommit, statements: list[str], path: Path) -> None:
    names: list[str] = []

    def insert(connection: sqlite3.Connection) -> int:
        names.append(threading.current_thread().name)
        return _insert(7)(connection)

    assert commits.write(insert) == 7
    assert names == [threading.current_thread().name]
    assert _transactions(statements) == 0
    assert _stored(path) == [7]


def test_writes_that_come_during_a_commit_share_the_next_one(
    commits: GroupCommit, statements: list[str], threads: ThreadPoolExecutor, path: Path, loop: EventLoop
) -> None:
    slow = _SlowCommit(commits, threads)
    writes = [threads.submit(commits.write, _insert(number)) for number in range(4)]
    writes += [_spawn(loop, partial(commits.write, _insert(number))) for number in range(4, 8)]
    wait_for(lambda: commits.queued == 8, "the writes' queue", 5)
    # The loop is not held up by its tasks that wait.
    run_as_task(loop, partial(waiting.sleep, 0.001))
    assert not any(write.done() for write in writes)
    slow.end()
    assert [write.result(SECONDS) for write in writes] == list(range(8))
    assert _transactions(statements) == 1
    assert _stored(path) == list(range(8))


def test_a_bad_row_fails_alone(commits: GroupCommit, threads: ThreadPoolExecutor, path: Path, loop: EventLoop) -> None:
    slow = _SlowCommit(commits, threads)
    numbers = [1, 5000, 2, 5000, 3]
    writes = [threads.submit(commits.write, _insert(number)) for number in numbers]
    tasks = [_spawn(loop, partial(commits.write, _insert(number + 10))) for number in numbers]
    wait_for(lambda: commits.queued == 2 * len(numbers), "the writes' queue", 5)
    slow.end()
    for number, write in zip(numbers * 2, writes + tasks, strict=True):
        assert isinstance(write.exception(SECONDS), sqlite3.IntegrityError if number == 5000 else type(None))
    assert _stored(path) == [1, 2, 3, 11, 12, 13]


def test_a_change_of_several_statements_is_written_whole_or_not_at_all(commits: GroupCommit, path: Path) -> None:
    def insert(connection: sqlite3.Connection) -> int:
        return _insert(1)(connection) + _insert(5000)(connection)

    with pytest.raises(sqlite3.IntegrityError):
        commits.write(insert, single=False)
    assert _stored(path) == []


def test_tasks_of_one_turn_of_the_loop_share_a_commit(
    commits: GroupCommit, statements: list[str], path: Path, loop: EventLoop
) -> None:
    def write_many() -> list[Future[int]]:
        commits.write(_insert(0))  # the first one is written at once
        return [_spawn(loop, partial(commits.write, _insert(number))) for number in range(1, 30)]

    writes = run_as_task(loop, write_many)
    assert [write.result(SECONDS) for write in writes] == list(range(1, 30))
    # Two, unless the system takes the processor away between them for a millisecond or more.
    assert _transactions(statements) <= 10
    assert _stored(path) == list(range(30))


@pytest.mark.skipif(sys.platform == "win32", reason="its clock is too coarse: how many come at a time is chance")
@pytest.mark.parametrize("synced", [False], indirect=True)
def test_many_tasks_are_written_beside_the_loop(commits: GroupCommit, loop: EventLoop) -> None:
    names: set[str] = set()

    def change(_connection: sqlite3.Connection) -> int:
        names.add(threading.current_thread().name)
        return 1

    def write_many() -> list[Future[int]]:
        commits.write(change)
        return [_spawn(loop, partial(commits.write, change)) for _ in range(3 * MOST_IN_LOOP)]

    assert sum(write.result(SECONDS) for write in run_as_task(loop, write_many)) == 3 * MOST_IN_LOOP
    assert "journal" in names


@pytest.mark.parametrize("synced", [False], indirect=True)
def test_a_large_write_is_made_beside_the_loop(commits: GroupCommit, loop: EventLoop) -> None:
    names: list[str] = []

    def change(_connection: sqlite3.Connection) -> int:
        names.append(threading.current_thread().name)
        return 1

    assert run_as_task(loop, lambda: commits.write(change, size=MOST_BYTES_IN_LOOP + 1)) == 1
    assert names == ["journal"]


@pytest.mark.parametrize("synced", [True], indirect=True)
def test_the_loop_does_not_wait_for_an_fsync(commits: GroupCommit, loop: EventLoop) -> None:
    names: list[str] = []

    def change(_connection: sqlite3.Connection) -> int:
        names.append(threading.current_thread().name)
        return 1

    assert run_as_task(loop, partial(commits.write, change)) == 1
    assert names == ["journal"]


@pytest.mark.parametrize("as_task", [False, True], ids=["thread", "task"])
def test_a_write_waits_for_another_process_and_the_loop_does_not(
    commits: GroupCommit, threads: ThreadPoolExecutor, path: Path, loop: EventLoop, as_task: bool
) -> None:
    with closing(connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        write = (
            _spawn(loop, partial(commits.write, _insert(1))) if as_task else threads.submit(commits.write, _insert(1))
        )
        run_as_task(loop, partial(waiting.sleep, 0.02))
        assert not write.done()
        other.execute("COMMIT")
        assert write.result(SECONDS) == 1


def test_another_process_that_writes_for_too_long_fails_the_write(
    commits: GroupCommit, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mistral_api.recording.group_commit.BUSY_TIMEOUT_SECONDS", 0.1)
    with closing(connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            commits.write(_insert(1))
        other.execute("COMMIT")
    assert commits.write(_insert(2)) == 2


def test_a_write_whose_turn_does_not_come_is_taken_back(
    commits: GroupCommit, threads: ThreadPoolExecutor, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mistral_api.recording.group_commit.TURN_SECONDS", 0.05)
    slow = _SlowCommit(commits, threads)
    with pytest.raises(sqlite3.OperationalError, match="busy"):
        commits.write(_insert(1))
    slow.end()
    assert commits.write(_insert(2)) == 2
    assert _stored(path) == [2]


def test_closing_writes_what_is_queued_and_refuses_the_rest(
    commits: GroupCommit, threads: ThreadPoolExecutor, path: Path, loop: EventLoop
) -> None:
    before = set(threading.enumerate())
    slow = _SlowCommit(commits, threads)
    writes = [threads.submit(commits.write, _insert(1)), _spawn(loop, partial(commits.write, _insert(2)))]
    wait_for(lambda: commits.queued == 2, "the writes' queue", 5)
    closing_it = threads.submit(commits.close)
    slow.end()
    closing_it.result(SECONDS)
    with pytest.raises(sqlite3.ProgrammingError):
        commits.write(_insert(3))
    assert {write.exception(SECONDS) for write in writes} <= {None}
    assert _stored(path) == [1, 2]
    begun = [thread for thread in set(threading.enumerate()) - before if thread.name == "journal"]
    wait_for(lambda: not any(thread.is_alive() for thread in begun), "the end of the thread", 5)


def test_nothing_is_lost_or_mixed_up_under_contention(
    commits: GroupCommit, threads: ThreadPoolExecutor, path: Path, loop: EventLoop
) -> None:
    def write_some(start: int) -> int:
        assert [commits.write(_insert(start + each)) for each in range(20)] == list(range(start, start + 20))
        return start

    writes = [threads.submit(write_some, start) for start in range(0, 160, 20)]
    writes += [_spawn(loop, partial(write_some, start)) for start in range(160, 400, 20)]
    assert sorted(write.result(SECONDS) for write in writes) == list(range(0, 400, 20))
    assert _stored(path) == list(range(400))
