"""Delivery is retried after temporary database errors, and nothing is lost or stored twice."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import OperationalError

from mistral_api.database import deadlines
from mistral_api.database.address import name_address_in_errors
from mistral_api.delivery.writer import writer_starter
from mistral_api.recording.recorder import Recorder, RecordingPolicy
from tests.support.databases import count_rows, rows_of, superuser_url
from tests.support.exchanges import make_exchange, question, record_exchange, reply
from tests.support.processes import libpq_url, wait_for
from tests.support.transfers import url_of


@contextmanager
def _recording(folder: Path, engine: Engine) -> Iterator[Recorder]:
    recorder = Recorder(folder, RecordingPolicy(), writer_starter(engine))
    recorder.start()
    yield recorder
    recorder.close()
    engine.dispose()


def _record(recorder: Recorder, number: int, name: str = "one") -> None:
    for turn in range(number):
        exchange = make_exchange(f"{name}-{turn}", messages=question("hi"), answers=reply("hello"))
        record_exchange(recorder, exchange)


def _wait_until_delivered(recorder: Recorder) -> None:
    wait_for(lambda: recorder.state().pending == 0, "an empty journal", 30)
    assert recorder.state().rejected == 0


def test_delivery_retries_while_the_role_has_no_free_connection(engine: Engine, tmp_path: Path) -> None:
    superuser = create_engine(superuser_url(url_of(engine)))
    with superuser.begin() as connection:
        connection.execute(text("CREATE ROLE crowded LOGIN PASSWORD 'crowded' CONNECTION LIMIT 0"))
        connection.execute(text("GRANT ALL ON ALL TABLES IN SCHEMA public TO crowded"))
        connection.execute(text("GRANT ALL ON SCHEMA public TO crowded"))
        connection.execute(text("ALTER TABLE api_usage OWNER TO crowded"))
    crowded = create_engine(engine.url.set(username="crowded", password="crowded"), pool_size=1, max_overflow=0)
    try:
        with _recording(tmp_path, crowded) as recorder:
            _record(recorder, 3)
            with pytest.raises(psycopg2.OperationalError, match="too many connections"):
                psycopg2.connect(libpq_url(crowded.url.render_as_string(hide_password=False)))
            with superuser.begin() as connection:
                connection.execute(text("ALTER ROLE crowded CONNECTION LIMIT 1"))
            _wait_until_delivered(recorder)
    finally:
        with superuser.begin() as connection:
            connection.execute(text(f"REASSIGN OWNED BY crowded TO {engine.url.username}"))
            connection.execute(text("DROP OWNED BY crowded"))
            connection.execute(text("DROP ROLE crowded"))
        superuser.dispose()
    assert count_rows(engine, "api_usage") == 3


def test_delivery_waits_while_the_database_is_read_only_and_rejects_nothing(engine: Engine, tmp_path: Path) -> None:
    """As between the end of a primary and the promotion of its standby."""
    name, own = engine.url.database, create_engine(engine.url, pool_size=1, max_overflow=0)
    name_address_in_errors(own)
    failures: list[str] = []

    @event.listens_for(own, "handle_error")
    def _note(context: object) -> None:
        failures.append(getattr(getattr(context, "original_exception", None), "pgcode", "") or "")

    with engine.begin() as connection:
        connection.execute(text(f"ALTER DATABASE {name} SET default_transaction_read_only = on"))
    try:
        with _recording(tmp_path, own) as recorder:
            _record(recorder, 3)
            wait_for(lambda: failures.count("25006") >= 2, "refused writes")
            with engine.begin() as connection:
                connection.execute(text("SET TRANSACTION READ WRITE"))
                connection.execute(text(f"ALTER DATABASE {name} RESET default_transaction_read_only"))
            _wait_until_delivered(recorder)
    finally:
        with engine.begin() as connection:
            connection.execute(text("SET TRANSACTION READ WRITE"))
            connection.execute(text(f"ALTER DATABASE {name} RESET default_transaction_read_only"))
        engine.dispose()
    assert count_rows(engine, "api_usage") == 3


def test_delivery_waits_while_the_disk_of_the_database_is_full(engine: Engine, tmp_path: Path) -> None:
    """A trigger raises the error of a full disk, since the disk of the tests cannot be filled."""
    own = create_engine(engine.url, pool_size=1, max_overflow=0)
    failures: list[str] = []

    @event.listens_for(own, "handle_error")
    def _note(context: object) -> None:
        failures.append(getattr(getattr(context, "original_exception", None), "pgcode", "") or "")

    with engine.begin() as connection:
        connection.execute(
            text(
                "CREATE FUNCTION disk_full() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN RAISE EXCEPTION 'No space left on device' USING ERRCODE = '53100'; END $$"
            )
        )
        connection.execute(
            text("CREATE TRIGGER full_disk BEFORE INSERT ON api_usage FOR EACH ROW EXECUTE FUNCTION disk_full()")
        )
    with _recording(tmp_path, own) as recorder:
        _record(recorder, 3)
        wait_for(lambda: failures.count("53100") >= 2, "refused writes")
        with engine.begin() as connection:
            connection.execute(text("DROP FUNCTION disk_full CASCADE"))
        _wait_until_delivered(recorder)
    assert count_rows(engine, "api_usage") == 3


def test_delivery_retries_statements_that_time_out(engine: Engine, tmp_path: Path) -> None:
    impatient = create_engine(engine.url, pool_size=1, connect_args={"options": "-c statement_timeout=100"})
    timeouts: list[str] = []

    @event.listens_for(impatient, "handle_error")
    def _note(context: object) -> None:
        timeouts.append(getattr(getattr(context, "original_exception", None), "pgcode", ""))

    with _recording(tmp_path, impatient) as recorder:
        with engine.begin() as blocker:
            blocker.execute(text("LOCK TABLE api_usage IN ACCESS EXCLUSIVE MODE"))
            _record(recorder, 20)
            wait_for(lambda: timeouts.count("57014") >= 2, "statements that time out")
        _wait_until_delivered(recorder)
    assert rows_of(engine, "SELECT count(*), count(DISTINCT request_id) FROM api_usage") == [(20, 20)]
    assert count_rows(engine, "messages") == 40


def test_lost_commit_acknowledgement_delivers_nothing_twice(engine: Engine, tmp_path: Path) -> None:
    unlucky = create_engine(engine.url, pool_size=1)
    lost: list[bool] = []

    @event.listens_for(unlucky, "commit")
    def _lose(connection: object) -> None:
        if len(lost) < 3:
            lost.append(True)
            raw = connection.connection.dbapi_connection  # type: ignore[attr-defined]
            raw.commit()
            raw.close()

    with _recording(tmp_path, unlucky) as recorder:
        _record(recorder, 5)
        _wait_until_delivered(recorder)
    assert len(lost) == 3
    assert count_rows(engine, "api_usage") == 5
    assert rows_of(engine, "SELECT sum(requests) FROM usage_rollups WHERE period = 'hour'") == [(5,)]
    assert count_rows(engine, "messages") == 10


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_query_to_a_stopped_postgresql_fails_at_its_deadline(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    deadlines.install_deadlines()
    hung = create_engine(engine.url)
    with hung.connect() as connection:
        backend = connection.scalar(text("SELECT pg_backend_pid()"))
        token = deadlines._answer_seconds.set(0.3)
        os.kill(backend, signal.SIGSTOP)
        try:
            began = time.monotonic()
            with pytest.raises(OperationalError, match=r"did not answer within 0\.3 s"):
                connection.execute(text("SELECT 1"))
            assert 0.3 <= time.monotonic() - began < 10
            assert connection.invalidated
        finally:
            os.kill(backend, signal.SIGCONT)
            deadlines._answer_seconds.reset(token)
    hung.dispose()


def test_clock_set_back_an_hour_keeps_the_order_and_loses_nothing(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time
    with _recording(tmp_path, engine) as recorder:
        _record_at(recorder, "before", real())
        monkeypatch.setattr(time, "time", lambda: real() - 3600)
        _record_at(recorder, "after", real() - 3600)
        age = recorder.state().oldest_pending_seconds
        assert age is None or age >= 0
        recorder.require_delivered("local", "clock")
        _wait_until_delivered(recorder)
    texts = rows_of(engine, "SELECT content FROM messages ORDER BY sequence")
    assert texts == [("before",), ("hello",), ("after",), ("hello",)]
    created, updated = rows_of(engine, "SELECT created_at, updated_at FROM conversations")[0]
    assert updated >= created
    assert rows_of(engine, "SELECT sum(requests) FROM usage_series WHERE period = 'hour' AND owner = ''") == [(2,)]


def _record_at(recorder: Recorder, text_said: str, moment: float) -> None:
    created_at = datetime.fromtimestamp(moment, UTC)
    exchange = make_exchange("clock", created_at=created_at, messages=question(text_said), answers=reply("hello"))
    record_exchange(recorder, exchange)
