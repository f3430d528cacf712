"""From the journal into a real PostgreSQL: each exchange once, what it refuses set aside, what is old forgotten."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask_migrate import upgrade
from sqlalchemy import Engine, text

from mistral_api import create_app
from mistral_api.embedded.postgres import start_embedded_postgres
from mistral_api.exchange import Exchange
from mistral_api.recording.delivery import Delivery
from mistral_api.recording.journal import Journal
from mistral_api.recording.recorder import Recorder
from mistral_api.recording.retention import prune
from mistral_api.services import services_of
from mistral_api.settings import Settings
from tests.exchanges import an_exchange, answered, said
from tests.running import data_folder, wait_for


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """The connections of an application to a database of the module's own, with the schema made."""
    with data_folder() as data_dir:
        running = start_embedded_postgres(data_dir)
        app = create_app(Settings(database_url=running.url, data_dir=data_dir))
        with app.app_context():
            upgrade()
        yield services_of(app).engine
        services_of(app).close()
        running.stop()


@pytest.fixture(autouse=True)
def _empty(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE api_usage, conversations CASCADE"))


def _rows(engine: Engine, query: str, **parameters: Any) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query), parameters)]


def _recorder(folder: Path, engine: Engine, *, store_content: bool = True) -> Recorder:
    made = Recorder(folder, engine, store_content=store_content, retention_days=0)
    made.start()
    return made


def _count(engine: Engine, table: str) -> int:
    return int(_rows(engine, f"SELECT count(*) FROM {table}")[0][0])  # noqa: S608 - a table's name


def test_an_exchange_that_is_delivered_twice_is_there_once(engine: Engine) -> None:
    exchange = an_exchange(messages=said("Hello"), answers=answered("Hi"))
    for _ in range(2):
        Delivery(engine).deliver([exchange])
    assert _count(engine, "api_usage") == 1
    assert _rows(engine, "SELECT role, content FROM messages ORDER BY sequence") == [
        ("user", "Hello"),
        ("assistant", "Hi"),
    ]
    assert _rows(engine, "SELECT session_id, title, message_count FROM conversations") == [("one", "Hello", 2)]


def test_a_batch_is_delivered_whole_or_not_at_all(engine: Engine) -> None:
    good, bad = an_exchange(messages=said("Hello")), an_exchange(status=1_000_000)
    with pytest.raises(Exception, match="smallint out of range"):
        Delivery(engine).deliver([good, bad])
    assert _count(engine, "api_usage") + _count(engine, "messages") == 0


def test_what_postgresql_refuses_is_set_aside_and_holds_nobody_up(engine: Engine, tmp_path: Path) -> None:
    recorder = _recorder(tmp_path, engine)
    exchanges = [
        an_exchange("before", messages=said("1")),
        an_exchange("poison", status=1_000_000),
        an_exchange("malformed", messages=["not a message"]),
        an_exchange("after", messages=said("2")),
    ]
    for exchange in exchanges:
        recorder.record(exchange)
    wait_for(lambda: recorder.backlog().pending == 0, "an empty journal")
    recorder.close()
    assert _rows(engine, "SELECT session_id FROM conversations ORDER BY session_id") == [("after",), ("before",)]
    connection = sqlite3.connect(tmp_path / "journal.sqlite3")
    rejected = connection.execute("SELECT payload, reason FROM rejected ORDER BY position").fetchall()
    connection.close()
    assert [Exchange.from_bytes(payload).session_id for payload, _ in rejected] == ["poison", "malformed"]
    assert "smallint out of range" in rejected[0][1]


def test_what_an_earlier_life_left_is_delivered_after_the_start(engine: Engine, tmp_path: Path) -> None:
    earlier = Journal(tmp_path)
    earlier.append(an_exchange("left", messages=said("Still there?")))
    earlier.close()
    recorder = _recorder(tmp_path, engine)
    assert recorder.wait_for_session("local", "left", seconds=10)
    recorder.close()
    assert _rows(engine, "SELECT content FROM messages") == [("Still there?",)]


def test_without_content_only_the_figures_are_kept(engine: Engine, tmp_path: Path) -> None:
    recorder = _recorder(tmp_path, engine, store_content=False)
    recorder.record(an_exchange(messages=said("SECRET"), answers=answered("SECRET"), completion_tokens=7))
    recorder.close()
    assert _rows(engine, "SELECT completion_tokens FROM api_usage") == [(7,)]
    assert _count(engine, "messages") + _count(engine, "conversations") == 0
    assert not any(b"SECRET" in file.read_bytes() for file in tmp_path.iterdir())


@pytest.mark.parametrize("year", [2019, 2031])
def test_a_row_of_any_month_finds_a_home_of_its_own(engine: Engine, year: int) -> None:
    Delivery(engine).deliver([an_exchange(created_at=datetime(year, 12, 31, 23, 59, tzinfo=UTC))])
    homes = _rows(engine, "SELECT tableoid::regclass::text FROM api_usage")
    assert homes == [(f"api_usage_{year}_12",)]


def test_a_month_that_has_rows_without_a_home_still_takes_more(engine: Engine) -> None:
    moment = datetime(2018, 5, 5, tzinfo=UTC)
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO api_usage (request_id, created_at, endpoint, status, owner, stream, latency_ms) "
                "VALUES (gen_random_uuid(), :moment, '/v1/completions', 200, 'local', false, 1)"
            ),
            {"moment": moment},
        )
    Delivery(engine).deliver([an_exchange(created_at=moment)])
    assert _rows(engine, "SELECT tableoid::regclass::text FROM api_usage") == [("api_usage_default",)] * 2


def test_what_is_older_than_the_retention_goes_and_the_rest_stays(engine: Engine) -> None:
    now = datetime.now(UTC)
    old = an_exchange("old", created_at=now - timedelta(days=31), messages=said("old"))
    new = an_exchange("new", created_at=now - timedelta(days=29), messages=said("new"))
    Delivery(engine).deliver([old, new])
    assert prune(engine, days=30) == 2
    assert _rows(engine, "SELECT session_id FROM conversations") == [("new",)]
    assert _rows(engine, "SELECT content FROM messages") == [("new",)]
    assert _rows(engine, "SELECT session_id FROM api_usage") == [("new",)]


def test_an_old_conversation_that_goes_on_stays(engine: Engine) -> None:
    now = datetime.now(UTC)
    first = an_exchange("long", created_at=now - timedelta(days=31), messages=said("1"), answers=answered("a"))
    last = an_exchange("long", created_at=now, messages=said("2"), answers=answered("b"))
    Delivery(engine).deliver([first, last])
    prune(engine, days=30)
    assert _rows(engine, "SELECT content FROM messages ORDER BY sequence") == [("1",), ("a",), ("2",), ("b",)]
