"""Statements are counted by kind, slow ones logged without their values, and waits for connections counted."""

from __future__ import annotations

import logging
import threading
import time

import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError

from mistral_api.database.query_times import PoolState, SlowQueryLog, WatchedPool, kind_of, pool_state, watch_queries
from mistral_api.database.search_path import search_path_setting


class Observer:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.noted: list[tuple[str, str, bool]] = []

    def note_query(self, connections: str, kind: str, seconds: float, *, failed: bool) -> None:
        """Note a statement."""
        assert 0 <= seconds < 60
        self.noted.append((connections, kind, failed))


def _engine() -> Engine:
    return create_engine("sqlite://", poolclass=WatchedPool, pool_size=1, max_overflow=0, pool_timeout=5)


def test_every_statement_is_counted_by_its_first_word() -> None:
    engine, observer = _engine(), Observer()
    watch_queries(engine, "readers", observer, SlowQueryLog(0))
    with engine.connect() as connection:
        connection.execute(text("SELECT :secret"), {"secret": "x"})
        with pytest.raises(DBAPIError):
            connection.execute(text("INSERT INTO nowhere VALUES (1)"))
    assert observer.noted == [("readers", "select", False), ("readers", "insert", True)]
    engine.dispose()


def test_setting_of_the_schema_is_no_part_of_a_statement(caplog: pytest.LogCaptureFixture) -> None:
    engine, observer = _engine(), Observer()

    @event.listens_for(engine, "before_cursor_execute", retval=True)
    def _begin(_c: object, _cursor: object, statement: str, parameters: object, *_: object) -> tuple[str, object]:
        return search_path_setting("mine") + statement, parameters

    watch_queries(engine, "readers", observer, SlowQueryLog(0.000001))
    with engine.connect() as connection, pytest.raises(DBAPIError):  # SQLite knows no such setting
        connection.execute(text("INSERT INTO nowhere VALUES (1)"))
    assert observer.noted == [("readers", "insert", True)]
    assert caplog.records[0].getMessage().endswith(" ms: INSERT INTO nowhere VALUES (1)")
    engine.dispose()


@pytest.mark.parametrize(
    ("statement", "kind"),
    [("SELECT 1", "select"), ("\n  with x AS (SELECT 1) TABLE x", "with"), ("VACUUM", "other"), ("", "other")],
)
def test_kind_is_one_of_a_few(statement: str, kind: str) -> None:
    assert kind_of(statement) == kind


def test_slow_statement_is_logged_without_its_values(caplog: pytest.LogCaptureFixture) -> None:
    engine = _engine()
    watch_queries(engine, "readers", Observer(), SlowQueryLog(0.000001))
    with caplog.at_level(logging.WARNING), engine.connect() as connection:
        connection.execute(text("SELECT\n   :secret"), {"secret": "rhododendron"})
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("slow query of the readers: ")
    assert line.endswith(" ms: SELECT ?")
    assert "rhododendron" not in line
    engine.dispose()


def test_one_slow_statement_a_minute_is_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = SlowQueryLog(100)
    for _ in range(4):
        slow.note("writer", "SELECT 1", 0.2)
    slow.note("writer", "SELECT 1", 0.05)
    assert len(caplog.records) == 1
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 61)
    slow.note("writer", "SELECT " + "x" * 1000, 0.2)
    assert "(3 more since the last such line)" in caplog.records[1].getMessage()
    assert len(caplog.records[1].getMessage()) < 450


def test_nothing_is_slow_with_0(caplog: pytest.LogCaptureFixture) -> None:
    SlowQueryLog(0).note("writer", "SELECT 1", 3600)
    assert not caplog.records


def test_pool_tells_its_use_and_waits() -> None:
    engine = create_engine(
        "sqlite:///:memory:?check_same_thread=false", poolclass=WatchedPool, pool_size=1, max_overflow=0, pool_timeout=5
    )
    assert pool_state(engine) == PoolState(1, 0, 0, 0)
    with engine.connect():
        assert pool_state(engine) == PoolState(1, 1, 0, 0)
        waiter = threading.Thread(target=lambda: engine.connect().close())
        waiter.start()
        deadline = time.monotonic() + 5
        while pool_state(engine) != PoolState(1, 1, 0, 1):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    waiter.join(timeout=5)
    engine.dispose()
    assert pool_state(engine) == PoolState(1, 0, 0, 1)
