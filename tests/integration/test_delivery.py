"""From the journal into a real PostgreSQL: each exchange once, what it refuses set aside, what is old forgotten."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from flask_migrate import upgrade
from sqlalchemy import Engine, text

from mistral_api import create_app
from mistral_api.embedded.postgres import start_embedded_postgres
from mistral_api.exchange import Exchange
from mistral_api.recording.delivery import Delivery
from mistral_api.recording.recorder import Policy, Recorder
from mistral_api.services import services_of
from mistral_api.settings import Settings
from tests.exchanges import an_exchange, answered, engine_that_is_away, said
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
        connection.execute(
            text("TRUNCATE api_usage, conversations, usage_rollups, usage_series, usage_sessions, usage_pruned CASCADE")
        )


def _rows(engine: Engine, query: str, **parameters: Any) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query), parameters)]


def _recorder(folder: Path, engine: Engine) -> Recorder:
    made = Recorder(folder, engine, Policy())
    made.start()
    return made


def _record(recorder: Recorder, exchange: Exchange) -> None:
    recorder.end(recorder.begin(exchange, lambda: None), exchange)


def _count(engine: Engine, table: str) -> int:
    return int(_rows(engine, f"SELECT count(*) FROM {table}")[0][0])


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
    with pytest.raises(Exception, match="out of range for type smallint"):
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
        _record(recorder, exchange)
    wait_for(lambda: recorder.state().pending == 0, "an empty journal")
    assert recorder.state().rejected == 2
    recorder.close()
    assert _rows(engine, "SELECT session_id FROM conversations ORDER BY session_id") == [("after",), ("before",)]
    with closing(sqlite3.connect(tmp_path / "journal.sqlite3")) as connection:
        rejected = connection.execute("SELECT opening, outcome, reason FROM rejected ORDER BY id").fetchall()
    set_aside = {Exchange.from_parts(opening, outcome).session_id: reason for opening, outcome, reason in rejected}
    assert sorted(set_aside, key=str) == ["malformed", "poison"]
    assert "out of range for type smallint" in set_aside["poison"]


def test_what_an_earlier_life_left_is_delivered_after_the_start(engine: Engine, tmp_path: Path) -> None:
    earlier = Recorder(tmp_path, engine_that_is_away(), Policy())
    _record(earlier, an_exchange("left", messages=said("Still there?")))
    earlier.close(seconds=0)
    recorder = _recorder(tmp_path, engine)
    assert recorder.wait_for_session("local", "left", seconds=10)
    recorder.close()
    assert _rows(engine, "SELECT content FROM messages") == [("Still there?",)]


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
