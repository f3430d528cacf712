"""How long statements to PostgreSQL take, how many connections are in use, and a line in the log for slow ones.

SQLAlchemy tells of each statement (its documentation, "Core Events": ``before_cursor_execute``,
``after_cursor_execute``, ``handle_error``). Its text goes into the log without its parameters, which hold what users
wrote.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import Engine, QueuePool, event
from sqlalchemy.engine import Connection, ExceptionContext
from sqlalchemy.pool import ConnectionPoolEntry

from mistral_api.database.search_path import without_search_path

log = logging.getLogger(__name__)

# The kinds that statements are counted by: their first words.
KINDS = frozenset(("select", "insert", "update", "delete", "with", "create", "set"))
OTHER_KIND = "other"
# One slow statement a minute is logged; the others are counted in the next line.
SLOW_LINE_SECONDS = 60.0
SHOWN_CHARACTERS = 300
# The attribute of SQLAlchemy's execution context that has the time at which the statement was sent.
_STARTED = "mistral_api_started"


class QueryObserver(Protocol):
    """Whoever wants to know of each statement."""

    def note_query(self, connections: str, kind: str, seconds: float, *, failed: bool) -> None:
        """``connections``: whose they are; ``kind``: the first word of the statement, or ``other``."""


class WatchedPool(QueuePool):
    """A pool that counts how often somebody had to wait for a connection, since all were in use."""

    waits = 0

    def recreate(self) -> WatchedPool:
        """Return the pool that replaces this one when all its connections are given up; it counts on."""
        pool = super().recreate()
        assert isinstance(pool, WatchedPool)  # noqa: S101 - for mypy
        pool.waits = self.waits
        return pool

    def _do_get(self) -> ConnectionPoolEntry:
        # Two threads that count at the same moment may count one wait: a figure, and no lock for each query.
        if self.checkedout() >= self.size() + max(0, self._max_overflow):
            self.waits += 1
        return super()._do_get()


# SQLAlchemy names the logger of a pool after its class; its own classes are silent below WARNING.
logging.getLogger(f"{__name__}.{WatchedPool.__name__}").setLevel(logging.WARNING)


@dataclass(frozen=True, slots=True)
class PoolState:
    """A pool of connections: the most that it keeps, those in use, those beyond the most, and how often one was waited
    for."""

    size: int
    checked_out: int
    overflow: int
    waits: int


def pool_state(engine: Engine) -> PoolState | None:
    """Return the state of an engine's pool without asking PostgreSQL; None for a pool of another kind."""
    pool = engine.pool
    if not isinstance(pool, WatchedPool):
        return None
    return PoolState(pool.size(), pool.checkedout(), max(0, pool.overflow()), pool.waits)


class SlowQueryLog:
    """Logs statements that took long, one line a minute. Safe to use from many threads."""

    def __init__(self, slow_ms: float) -> None:
        """``slow_ms``: what is slow, in milliseconds; 0 logs nothing."""
        self._slow_seconds = slow_ms / 1000 if slow_ms > 0 else float("inf")
        self._lock = threading.Lock()
        self._silent_until = float("-inf")
        self._silenced = 0

    def note(self, connections: str, statement: str, seconds: float) -> None:
        """Log a statement, if it was slow and the last line is a minute old."""
        if seconds < self._slow_seconds:
            return
        with self._lock:
            if time.monotonic() < self._silent_until:
                self._silenced += 1
                return
            self._silent_until = time.monotonic() + SLOW_LINE_SECONDS
            silenced, self._silenced = self._silenced, 0
        more = f" ({silenced} more since the last such line)" if silenced else ""
        log.warning("slow query of the %s: %.0f ms%s: %s", connections, seconds * 1000, more, _shown(statement))


def _shown(statement: str) -> str:
    text = " ".join(statement.split())
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"


def kind_of(statement: str) -> str:
    """Return the first word of a statement, where it is one of KINDS."""
    word = statement[:32].lstrip().partition(" ")[0].partition("\n")[0].lower()
    return word if word in KINDS else OTHER_KIND


def watch_queries(engine: Engine, connections: str, observer: QueryObserver, slow: SlowQueryLog) -> None:
    """Have each statement of an engine counted. ``connections``: whose they are, as the metrics say it."""

    def end(execution: Any, statement: str, *, failed: bool) -> None:
        started = getattr(execution, _STARTED, None)
        if started is not None:
            delattr(execution, _STARTED)
            seconds = time.perf_counter() - started
            statement = without_search_path(statement)
            observer.note_query(connections, kind_of(statement), seconds, failed=failed)
            slow.note(connections, statement, seconds)

    @event.listens_for(engine, "before_cursor_execute")
    def _begin(
        _connection: Connection, _cursor: Any, _statement: str, _parameters: Any, context: Any, _many: bool
    ) -> None:
        setattr(context, _STARTED, time.perf_counter())

    @event.listens_for(engine, "after_cursor_execute")
    def _end(
        _connection: Connection, _cursor: Any, statement: str, _parameters: Any, context: Any, _many: bool
    ) -> None:
        end(context, statement, failed=False)

    @event.listens_for(engine, "handle_error")
    def _fail(context: ExceptionContext) -> None:
        if context.statement is not None:
            end(context.execution_context, context.statement, failed=True)
