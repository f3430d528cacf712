"""Delivery from the journal to a real PostgreSQL: each exchange once, refused ones rejected."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from mistral_api.delivery import writer as writer_module
from mistral_api.delivery.batch_inserter import BatchInserter
from mistral_api.delivery.writer import writer_starter
from mistral_api.recording.exchange import Exchange
from mistral_api.recording.journal import JOURNAL_FILE, Journal
from mistral_api.recording.recorder import Recorder, RecordingPolicy
from tests.support.databases import count_rows, rows_of
from tests.support.dialogues import said
from tests.support.exchanges import (
    make_exchange,
    question,
    record_exchange,
    reply,
    undelivered_recorder,
)
from tests.support.processes import wait_for


def _recorder(folder: Path, engine: Engine) -> Recorder:
    made = Recorder(folder, RecordingPolicy(), writer_starter(engine))
    made.start()
    return made


def test_exchange_delivered_twice_is_stored_once(engine: Engine) -> None:
    exchange = make_exchange(messages=question("Hello"), answers=reply("Hi"))
    for _ in range(2):
        BatchInserter(engine).insert([exchange])
    assert count_rows(engine, "api_usage") == 1
    assert rows_of(engine, "SELECT role, content FROM messages ORDER BY sequence") == [
        ("user", "Hello"),
        ("assistant", "Hi"),
    ]
    assert rows_of(engine, "SELECT session_id, title, message_count FROM conversations") == [("one", "Hello", 2)]


def test_batch_is_delivered_as_a_whole_or_not_at_all(engine: Engine) -> None:
    good, bad = make_exchange(messages=question("Hello")), make_exchange(status=1_000_000)
    with pytest.raises(Exception, match="out of range for type smallint"):
        BatchInserter(engine).insert([good, bad])
    assert count_rows(engine, "api_usage") + count_rows(engine, "messages") == 0


def test_exchange_that_postgresql_refuses_is_rejected_and_blocks_no_other(engine: Engine, tmp_path: Path) -> None:
    recorder = _recorder(tmp_path, engine)
    exchanges = [
        make_exchange("before", messages=question("1")),
        make_exchange("poison", status=1_000_000),
        make_exchange("malformed", messages=["not a message"]),
        make_exchange("after", messages=question("2")),
    ]
    for exchange in exchanges:
        record_exchange(recorder, exchange)
    wait_for(lambda: recorder.state().pending == 0, "an empty journal")
    assert recorder.state().rejected == 2
    recorder.close()
    assert rows_of(engine, "SELECT session_id FROM conversations ORDER BY session_id") == [
        ("after",),
        ("before",),
    ]
    with closing(sqlite3.connect(tmp_path / "journal.sqlite3")) as connection:
        rejected = connection.execute("SELECT opening, outcome, reason FROM rejected ORDER BY id").fetchall()
    set_aside = {Exchange.from_parts(opening, outcome).session_id: reason for opening, outcome, reason in rejected}
    assert sorted(set_aside, key=str) == ["malformed", "poison"]
    assert "NumericValueOutOfRange" in set_aside["poison"]  # the message of PostgreSQL would quote the value


def test_exchanges_of_an_earlier_run_are_delivered_after_the_start(engine: Engine, tmp_path: Path) -> None:
    earlier = undelivered_recorder(tmp_path)
    record_exchange(earlier, make_exchange("left", messages=question("Still there?")))
    earlier.close(seconds=0)
    recorder = _recorder(tmp_path, engine)
    recorder.require_delivered("local", "left")
    recorder.close()
    assert rows_of(engine, "SELECT content FROM messages") == [("Still there?",)]


@pytest.mark.parametrize("batches", [1, 2])
def test_turn_that_continues_what_a_process_left_open_is_joined_to_it(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches: int
) -> None:
    monkeypatch.setattr(writer_module, "GATHER_SECONDS", 60.0)  # it delivers when it is asked to
    recorder = _recorder(tmp_path, engine)
    record_exchange(recorder, make_exchange("other", messages=question("Who looks at the others now?")))
    recorder.require_delivered("local", "other")
    with closing(Journal(tmp_path / JOURNAL_FILE, "dead")) as dead:
        begun = make_exchange("first", messages=said("How are you?"), is_new_session=True, model="M")
        position = dead.begin(begun)
        cut_off = replace(begun, answers=reply("I am fine, and"))
        dead.write_checkpoints([(position, cut_off.interrupted_outcome())])
    history = said("How are you?", "I am fine, and", "And?")
    for session_id in ("second", "third"):
        record_exchange(
            recorder, make_exchange(session_id, messages=history, answers=reply("You?"), is_new_session=True)
        )
        if batches == 2:
            recorder.require_delivered("local", session_id)
    recorder.require_delivered("local", "third")
    recorder.close()
    assert rows_of(engine, "SELECT session_id FROM conversations ORDER BY session_id") == [("first",), ("other",)]
    texts = rows_of(engine, "SELECT content FROM messages WHERE role = 'user' ORDER BY sequence")
    assert texts == [("Who looks at the others now?",), ("How are you?",), ("And?",)]


@pytest.mark.parametrize("year", [2019, 2031])
def test_usage_row_of_any_month_gets_its_own_partition(engine: Engine, year: int) -> None:
    BatchInserter(engine).insert([make_exchange(created_at=datetime(year, 12, 31, 23, 59, tzinfo=UTC))])
    homes = rows_of(engine, "SELECT tableoid::regclass::text FROM api_usage")
    assert homes == [(f"api_usage_{year}_12",)]


def test_month_with_rows_in_the_default_partition_still_takes_rows(engine: Engine) -> None:
    moment = datetime(2018, 5, 5, tzinfo=UTC)
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO api_usage (request_id, created_at, endpoint, status, owner, stream, latency_ms) "
                "VALUES (gen_random_uuid(), :moment, '/v1/completions', 200, 'local', false, 1)"
            ),
            {"moment": moment},
        )
    BatchInserter(engine).insert([make_exchange(created_at=moment)])
    assert rows_of(engine, "SELECT tableoid::regclass::text FROM api_usage") == [("api_usage_default",)] * 2
