"""Group commit: writes of requests that run at the same time share a transaction, and so its locks and its fsync.

A write that finds the journal free is committed at once by its own thread. Those that come meanwhile queue, and the
next one to lead commits them all: one of the waiting threads, which the last leader wakes.

A task (``event_loop``) must not block the loop. Without an fsync a commit takes 30 µs, which is less than any way to
have it done elsewhere (a turn of the loop: 50 µs more, a thread: 100 µs and more), so where the loop is quiet the task
commits at once. Writes that follow within a millisecond queue until the loop's next turn, which commits them together.
What the loop would have to wait for is done by a thread of the journal's own: an fsync, another process that writes, a
large group, and for a while all of them where a commit was slow.
"""

from __future__ import annotations

import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator

from mistral_api.event_loop.blocking import blocking
from mistral_api.event_loop.task import Loop, Task, current_task
from mistral_api.event_loop.waiting import Signal

# How long a write waits for other processes that write.
BUSY_TIMEOUT_SECONDS = 5.0
_FIRST_BUSY_PAUSE, _LAST_BUSY_PAUSE = 0.0002, 0.005
# How long a write waits until its turn comes, before it gives up.
TURN_SECONDS = 30.0
# The loop is quiet where no task has written for so long.
QUIET_SECONDS = 0.001
# The event loop commits so many writes by itself: about half a millisecond. More are for the thread.
MOST_IN_LOOP = 64
# And at most so many bytes.
MOST_BYTES_IN_LOOP = 256 << 10
# Where a commit in the loop took longer than the first, the thread commits for the time of the second; for twice as
# long each time that the loop finds the disk slow again, up to the third.
SLOW_SECONDS, SLOW_PAUSE_SECONDS, LONGEST_SLOW_PAUSE_SECONDS = 0.02, 1.0, 64.0

# Executes statements, and returns the position of a row.
Change = Callable[[sqlite3.Connection], int]


class _Write:
    """One write. ``single``: it is one statement; ``size``: about how many bytes it writes.

    ``task`` waits for it, else a thread, which may be told to lead.
    """

    __slots__ = ("change", "done", "error", "leads", "may_lead", "result", "single", "size", "task")

    def __init__(self, change: Change, *, single: bool, task: Task | None, size: int = 0) -> None:
        self.change = change
        self.single = single
        self.size = size
        self.task = task
        # Set when the write is done, or when its thread is to lead the next group.
        self.done = Signal()
        self.may_lead = task is None
        self.leads = False
        self.result: int | None = None
        self.error: BaseException | None = None

    def outcome(self) -> int:
        """Return the result, or raise why there is none."""
        if self.error is not None:
            raise self.error
        assert self.result is not None  # noqa: S101 - a write that is done has one of both
        return self.result


class GroupCommit:
    """Owns a connection in autocommit mode, and its thread from the first need to :meth:`close`.

    Threads and tasks may write at once. ``synced``: the connection waits for the disk at each commit.
    """

    def __init__(self, connection: sqlite3.Connection, *, synced: bool) -> None:
        """Take over a connection."""
        # Another process that writes is waited for here, since the loop must not wait.
        connection.execute("PRAGMA busy_timeout=0")
        self._connection = connection
        self._synced = synced
        # Guards everything below; it is held for a few instructions only.
        self._mutex = threading.Lock()
        self._queue: list[_Write] = []
        # Whether somebody commits, or has been told to.
        self._busy = False
        self._closed = False
        # When a task wrote last, by the monotonic clock.
        self._task_wrote_at = float("-inf")
        # The loop that has been asked to commit what is queued, and from when on one may be.
        self._called_loop: Loop | None = None
        self._loop_from = float("-inf")
        self._slow_pause = SLOW_PAUSE_SECONDS
        self._thread: threading.Thread | None = None
        # What the thread waits for: True to commit what is queued, False to end.
        self._calls: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def write(self, change: Change, *, single: bool = True, size: int = 0) -> int:
        """Commit a change, alone or with others, and return its result.

        ``single``: it executes one statement. ``size``: about how many bytes it writes.

        The statements of a change are committed all or none. Those of a change may be executed again, after they have
        been rolled back. Raises sqlite3.Error, and whatever the change itself raises.
        """
        write = _Write(change, single=single, task=current_task(), size=size)
        if write.task is None:
            self._lead(self._join(write))
        elif self._join_quietly(write):
            self._lead_in_loop()
        self._await(write)
        return write.outcome()

    @property
    def queued(self) -> int:
        """How many writes wait for their turn."""
        return len(self._queue)

    def close(self) -> None:
        """Commit what is queued, and close the connection and the thread."""
        with self._mutex:
            self._closed = True
        last = _Write(lambda _connection: 0, single=True, task=None)
        self._lead(self._join(last, late=True))
        self._await(last)
        self._connection.close()
        if self._thread is not None:
            self._calls.put(False)
            self._thread.join(timeout=5)

    def _join(self, write: _Write, *, late: bool = False) -> list[_Write]:
        """Queue a write of a thread. Return the group that it is to commit now; none where others do it."""
        with self._mutex:
            self._enqueue(write, late=late)
            return self._take_group()

    def _join_quietly(self, write: _Write) -> bool:
        """Queue a write of a task. Return whether it may commit what is queued; else others do it."""
        now = time.monotonic()
        with self._mutex:
            self._enqueue(write)
            quiet = now >= self._task_wrote_at + QUIET_SECONDS
            self._task_wrote_at = now
            if self._busy:
                return False
            if quiet and self._may_lead_in_loop(now):
                return True
            self._call_leader_of_tasks()
            return False

    def _enqueue(self, write: _Write, *, late: bool = False) -> None:
        if self._closed and not late:
            raise sqlite3.ProgrammingError("the journal is closed")
        self._queue.append(write)

    def _take_group(self) -> list[_Write]:
        """Return all that is queued, for the caller to commit; nothing while another commits. Needs the mutex."""
        if self._busy:
            return []
        group, self._queue = self._queue, []
        self._busy = bool(group)
        return group

    def _call_leader_of_tasks(self) -> None:
        """Have the loop or the thread commit what is queued: all of it is of tasks. Needs the mutex."""
        task = self._queue[-1].task
        if task is None or not self._may_lead_in_loop(time.monotonic()):
            self._call_thread()
        elif self._called_loop is not task.loop:
            self._called_loop = task.loop
            task.loop.call_soon(self._lead_in_loop)

    def _may_lead_in_loop(self, now: float) -> bool:
        """Return whether the loop has hardly to wait for the commit of what is queued. Needs the mutex."""
        if self._synced or len(self._queue) > MOST_IN_LOOP or now < self._loop_from:
            return False
        return sum([write.size for write in self._queue]) <= MOST_BYTES_IN_LOOP

    def _call_thread(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
            self._thread.start()
        self._calls.put(True)

    def _run(self) -> None:
        while self._calls.get():
            with self._mutex:
                group = self._take_group()
            self._lead(group)

    def _await(self, write: _Write) -> None:
        """Wait until a write is done. Its thread leads a group meanwhile, if it is told to."""
        try:
            if not write.done.wait(TURN_SECONDS) and not self._withdraw(write) and not write.done.wait(TURN_SECONDS):
                write.error = sqlite3.OperationalError("the disk of the journal does not answer")
        finally:
            # Also where the wait was broken off: what is queued is written all the same.
            with self._mutex:
                write.may_lead = False
                group: list[_Write] = []
                if write.leads:
                    group, self._queue = self._queue, []
            self._lead(group)

    def _withdraw(self, write: _Write) -> bool:
        """Take a write back whose turn has not come. Return whether it was not too late."""
        with self._mutex:
            if write not in self._queue or write.leads:
                return False
            self._queue.remove(write)
        write.error = sqlite3.OperationalError("the journal is busy for too long")
        return True

    def _lead(self, group: list[_Write]) -> None:
        """Commit a group, tell those who wait for it, and let the next one lead."""
        if not group:
            return
        try:
            with blocking() if self._synced else contextlib.nullcontext():
                self._commit(group, time.monotonic() + BUSY_TIMEOUT_SECONDS)
        finally:
            self._end_turn()
            for write in group:
                if write.result is None and write.error is None:
                    write.error = sqlite3.OperationalError("the commit was broken off")
                write.done.set()

    def _lead_in_loop(self) -> None:
        """Commit what tasks have queued, in the loop itself. Whatever is in the way is for the thread."""
        began = time.monotonic()
        with self._mutex:
            self._called_loop = None
            may = self._may_lead_in_loop(began)  # more may have come meanwhile
            group = self._take_group() if may else []
            if not may and not self._busy:
                self._call_thread()
        if not group:
            return
        try:
            self._commit_at_once(group)
        except Exception:  # noqa: BLE001 - the thread meets it again, and tells each its own
            with self._mutex:
                self._queue[:0] = group
                self._busy = False
                self._call_thread()
            return
        ended = time.monotonic()
        self._note_duration(ended - began, ended)
        self._end_turn()
        for write in group:
            write.done.set()

    def _note_duration(self, seconds: float, now: float) -> None:
        """Note how long the loop took for a commit: a slow disk is left to the thread for a while."""
        if seconds > SLOW_SECONDS:
            self._loop_from = now + self._slow_pause
            self._slow_pause = min(2 * self._slow_pause, LONGEST_SLOW_PAUSE_SECONDS)
        elif self._slow_pause > SLOW_PAUSE_SECONDS and now > self._loop_from + self._slow_pause:
            self._slow_pause = SLOW_PAUSE_SECONDS

    def _end_turn(self) -> None:
        """Let the next one lead, if anybody waits: a thread, which is waiting anyway, before the loop."""
        with self._mutex:
            leader = next((write for write in self._queue if write.may_lead), None)
            self._busy = leader is not None
            if leader is not None:
                leader.leads = True
            elif self._queue:
                self._call_leader_of_tasks()
        if leader is not None:
            leader.done.set()

    def _commit(self, group: list[_Write], deadline: float) -> None:
        """Commit a group; where that fails, each write by itself, so that each gets its own result or error.

        ``deadline``: until when, by the monotonic clock, other processes are waited for.
        """
        try:
            self._commit_patiently(group, deadline)
        except Exception as error:  # noqa: BLE001 - raised again to whoever waits for the write
            if len(group) == 1:
                group[0].error = error
                return
            for write in group:
                self._commit([write], deadline)

    def _commit_patiently(self, group: list[_Write], deadline: float) -> None:
        """Commit a group as one transaction, and wait for other processes until ``deadline``. Raises sqlite3.Error."""
        pause = _FIRST_BUSY_PAUSE
        while True:
            try:
                return self._commit_at_once(group)
            except sqlite3.OperationalError as error:
                if not _is_busy(error) or time.monotonic() >= deadline:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, _LAST_BUSY_PAUSE)

    def _commit_at_once(self, group: list[_Write]) -> None:
        """Commit a group as one transaction. Raises sqlite3.Error, also where another process writes."""
        connection = self._connection
        if len(group) == 1 and group[0].single:
            group[0].result = group[0].change(connection)
            return
        with transaction(connection):
            results = [write.change(connection) for write in group]
        for write, result in zip(group, results, strict=True):
            write.result = result


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit what is done in the block, or roll all of it back."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite has rolled back by itself where the disk is full
            connection.execute("ROLLBACK")
        raise


def _is_busy(error: sqlite3.Error) -> bool:
    """Return whether another process writes at this moment."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
