"""The journal keeps its entries safe and in order until they are delivered or rejected with a reason."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mistral_api.recording.backlog import Backlog
from mistral_api.recording.exchange import UNKNOWN_OUTCOME, Exchange, belongs_to_conversation
from mistral_api.recording.journal import JOURNAL_FILE, Journal, prepare_journal
from mistral_api.recording.stored_object import object_key
from mistral_api.system.identifiers import new_id
from tests.support.exchanges import make_exchange, question, reply

MANY = 1 << 30


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of an empty journal."""
    return prepare_journal(tmp_path, alone=True)


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    """The journal as the process ``me`` writes it."""
    made = Journal(path, "me")
    yield made
    made.close()


@pytest.fixture
def backlog(path: Path) -> Iterator[Backlog]:
    """The journal as the writer reads it."""
    made = Backlog(path)
    yield made
    made.close()


def test_journal_entries_are_read_back_complete_and_oldest_first(journal: Journal, backlog: Backlog) -> None:
    exchanges = [make_exchange(messages=question(f"{number} \U0001f600")) for number in range(3)]
    for exchange in exchanges:
        journal.add(exchange)
    assert [entry.exchange() for entry in backlog.oldest_entries(10, MANY)] == exchanges
    assert len(backlog.oldest_entries(2, MANY)) == 2


def test_backlog_batch_is_limited_by_bytes_but_never_empty(journal: Journal, backlog: Backlog) -> None:
    for _ in range(3):
        journal.add(make_exchange(messages=question("x" * 1000)))
    assert len(backlog.oldest_entries(10, 2500)) == 1
    assert len(backlog.oldest_entries(10, 1)) == 1
    assert len(backlog.oldest_entries(10, 3500)) == 2


def test_only_ended_exchanges_are_pending(journal: Journal, backlog: Backlog) -> None:
    exchange = make_exchange(messages=question("Hello"))
    position = journal.begin(exchange)
    assert (backlog.oldest_entries(10, MANY), journal.pending(), journal.has_pending_session("local", "one")) == (
        [],
        (0, None),
        False,
    )
    ended = replace(exchange, answers=reply("Hi"), completion_tokens=1, model="m")
    journal.end(position, ended)
    assert [entry.exchange() for entry in backlog.oldest_entries(10, MANY)] == [ended]
    assert journal.pending()[0] == 1
    assert journal.has_pending_session("local", "one")


def test_only_delivered_entries_are_removed(journal: Journal, backlog: Backlog) -> None:
    for _ in range(3):
        journal.add(make_exchange())
    first, *rest = backlog.oldest_entries(10, MANY)
    backlog.remove([first])
    assert backlog.oldest_entries(10, MANY) == rest
    assert journal.pending()[0] == 2


def test_pending_session_is_visible_only_to_its_owner(journal: Journal, backlog: Backlog) -> None:
    journal.add(make_exchange("mine", messages=question("Hello")))
    journal.add(make_exchange(None))
    assert journal.has_pending_session("local", "mine")
    assert not journal.has_pending_session("local", "other")
    assert not journal.has_pending_session("somebody else", "mine")
    backlog.remove(backlog.oldest_entries(10, MANY))
    assert not journal.has_pending_session("local", "mine")
    assert journal.pending() == (0, None)


def test_rejected_entry_is_stored_with_its_reason(journal: Journal, backlog: Backlog, path: Path) -> None:
    journal.add(make_exchange())
    (entry,) = backlog.oldest_entries(1, MANY)
    backlog.reject(entry, "no such type")
    assert (journal.pending(), journal.rejected()) == ((0, None), 1)
    with closing(sqlite3.connect(path)) as connection:
        rejected = connection.execute("SELECT reason, opening, outcome FROM rejected").fetchall()
    assert rejected == [("no such type", entry.opening, entry.outcome)]


def test_open_exchange_of_a_dead_process_is_interrupted_with_its_last_checkpoint(
    path: Path, journal: Journal, backlog: Backlog
) -> None:
    with closing(Journal(path, "dead")) as dead:
        silent, speaking = (
            make_exchange("silent", messages=question("1")),
            make_exchange("speaking", messages=question("2")),
        )
        dead.begin(silent)
        position = dead.begin(speaking)
        for text in ("One", "One two"):
            spoken = replace(speaking, answers=reply(text), completion_tokens=len(text.split()))
            dead.write_checkpoints([(position, spoken.interrupted_outcome())])
    journal.begin(make_exchange("alive"))
    assert backlog.end_interrupted(lambda name: name == "dead") == 2
    first, second = (entry.exchange() for entry in backlog.oldest_entries(10, MANY))
    for exchange in (first, second):
        assert (exchange.status, exchange.error_code, exchange.answer_status) == (500, "interrupted", "interrupted")
    assert (first.id, first.answers) == (silent.id, None)
    assert (second.id, second.answers, second.completion_tokens) == (speaking.id, reply("One two"), 2)
    assert backlog.end_interrupted(lambda name: name == "dead") == 0
    backlog.remove(backlog.oldest_entries(10, MANY))
    with closing(sqlite3.connect(path)) as connection:
        left = [
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("exchanges", "checkpoints")
        ]
    assert left == [1, 0]


def test_what_was_interrupted_stands_where_it_was_begun(path: Path, journal: Journal, backlog: Backlog) -> None:
    exchanges = {name: make_exchange(name) for name in ("before", "first", "between", "second", "after", "third")}
    with closing(Journal(path, "z-dead")) as dead, closing(Journal(path, "a-dead")) as dead_too:
        journal.add(exchanges["before"])
        dead.begin(exchanges["first"])
        running = journal.begin(exchanges["between"])
        dead_too.begin(exchanges["second"])
        journal.add(exchanges["after"])
        journal.end(running, exchanges["between"])
        dead.begin(exchanges["third"])
    assert backlog.end_interrupted(lambda name: name.endswith("dead")) == 3
    found = [entry.exchange().session_id for entry in backlog.oldest_entries(10, MANY)]
    assert found == ["before", "first", "second", "after", "between", "third"]


def test_late_checkpoint_is_dropped(journal: Journal, backlog: Backlog, path: Path) -> None:
    late = make_exchange("late", messages=question("mine"), answers=reply("my secret"))
    position = journal.begin(late)
    journal.end(position, late)
    journal.write_checkpoints([(position, late.interrupted_outcome())])
    backlog.remove(backlog.oldest_entries(10, MANY))
    journal.write_checkpoints([(position, late.interrupted_outcome())])
    assert journal.begin(make_exchange("other")) != position
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM checkpoints").fetchone() == (0,)


def test_surrogates_and_nul_characters_are_replaced_in_the_journal(journal: Journal, backlog: Backlog) -> None:
    journal.add(make_exchange(messages=question("half \ud83d of it"), answers=reply("nul \0")))
    (entry,) = backlog.oldest_entries(1, MANY)
    exchange = entry.exchange()
    assert exchange.messages == question("half ? of it")
    assert exchange.answers == reply("nul \ufffd")


def test_journal_survives_a_killed_process(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from mistral_api.recording.journal import Journal; from tests.support.exchanges import make_exchange\n"
        "from mistral_api.recording.journal import prepare_journal\n"
        "Journal(prepare_journal(Path(sys.argv[1]), alone=True), 'dead').add(make_exchange('killed'))\n"
        "os.kill(os.getpid(), signal.SIGKILL if hasattr(signal, 'SIGKILL') else signal.SIGTERM)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, timeout=30)
    assert killed.returncode != 0
    with closing(Backlog(prepare_journal(tmp_path, alone=True))) as backlog:
        assert [entry.exchange().session_id for entry in backlog.oldest_entries(10, MANY)] == ["killed"]


def test_journal_of_the_first_version_is_migrated(tmp_path: Path) -> None:
    exchange = make_exchange("old", messages=question("Still here?"))
    opening, outcome = exchange.opening(), exchange.outcome()
    payload = opening[:-1] + b"," + outcome[1:].replace(b'"model":null,', b"", 1)
    with closing(sqlite3.connect(tmp_path / JOURNAL_FILE)) as connection:
        connection.executescript(
            "CREATE TABLE exchanges (position INTEGER PRIMARY KEY AUTOINCREMENT, session TEXT,"
            " written_at REAL NOT NULL, payload BLOB NOT NULL);"
            "CREATE INDEX exchanges_session ON exchanges (session);"
            "CREATE TABLE rejected (position INTEGER PRIMARY KEY, reason TEXT NOT NULL, rejected_at REAL NOT NULL,"
            " payload BLOB NOT NULL);"
        )
        connection.execute("INSERT INTO exchanges VALUES (7, ?, 1.5, ?)", ("local\nold", payload))
        connection.execute("INSERT INTO rejected VALUES (3, 'why', 1.0, ?)", (payload,))
        connection.commit()
    path = prepare_journal(tmp_path, alone=True)
    with closing(Backlog(path)) as backlog, closing(Journal(path, "me")) as journal:
        assert [entry.exchange() for entry in backlog.oldest_entries(10, MANY)] == [exchange]
        assert journal.has_pending_session("local", "old")
        assert journal.rejected() == 1


def test_journal_of_the_second_version_gets_the_keys_of_its_stored_objects(tmp_path: Path) -> None:
    stored: dict[str, Any] = {"storing": {"object": "chat.completion"}, "stored": {"id": "chatcmpl-1"}}
    exchanges = [make_exchange("old", messages=question("Here?"), **stored), make_exchange("plain")]
    with closing(sqlite3.connect(tmp_path / JOURNAL_FILE)) as connection:
        connection.executescript(
            "CREATE TABLE exchanges (position INTEGER PRIMARY KEY AUTOINCREMENT, process TEXT NOT NULL, session TEXT,"
            " opening BLOB NOT NULL);"
            "CREATE INDEX exchanges_session ON exchanges (session) WHERE session IS NOT NULL;"
            "CREATE TABLE checkpoints (position INTEGER PRIMARY KEY, outcome BLOB NOT NULL);"
            "CREATE TABLE endings (position INTEGER PRIMARY KEY, ended_at REAL NOT NULL, outcome BLOB NOT NULL);"
            "CREATE INDEX endings_ended_at ON endings (ended_at);"
            "CREATE TABLE rejected (id INTEGER PRIMARY KEY, reason TEXT NOT NULL, rejected_at REAL NOT NULL,"
            " opening BLOB NOT NULL, outcome BLOB NOT NULL);"
            "PRAGMA user_version = 2;"
        )
        for position, exchange in enumerate(exchanges):
            row = (position, "dead", f"local\n{exchange.session_id}", exchange.opening())
            connection.execute("INSERT INTO exchanges VALUES (?, ?, ?, ?)", row)
            connection.execute("INSERT INTO endings VALUES (?, ?, ?)", (position, 1.5, exchange.outcome()))
        connection.commit()
    path = prepare_journal(tmp_path, alone=True)
    with closing(Backlog(path)) as backlog, closing(Journal(path, "me")) as journal:
        assert [entry.exchange() for entry in backlog.oldest_entries(10, MANY)] == exchanges
        assert journal.has_pending_object(object_key("chat.completion", "local", "chatcmpl-1"))


def test_entries_are_in_the_order_of_their_ends_whatever_the_clock_says(
    journal: Journal, backlog: Backlog, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchanges = [make_exchange(f"{number}") for number in range(4)]
    positions = [journal.begin(exchange) for exchange in exchanges]
    order = [2, 0, 3, 1]
    for number in order:
        monkeypatch.setattr("time.time", lambda number=number: 1_800_000_000.0 - number * 60)
        journal.end(positions[number], exchanges[number])
    entries = [entry.exchange().session_id for entry in backlog.oldest_entries(10, MANY)]
    assert entries == [f"{number}" for number in order]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")
def test_journal_files_are_readable_only_by_their_owner(journal: Journal, tmp_path: Path) -> None:
    journal.add(make_exchange())
    assert {path.stat().st_mode & 0o077 for path in tmp_path.iterdir()} == {0}


def test_exchange_is_restored_from_its_opening_and_outcome() -> None:
    ids: dict[str, Any] = {"continues": new_id(), "message_ids": [new_id()], "answer_id": new_id()}
    kept: dict[str, Any] = {"storing": {"id": "resp_1"}, "stored": {"id": "resp_1", "status": "completed"}}
    exchange = make_exchange(
        messages=question("x"), answers=reply("y"), status=499, model="m", stream=True, **ids, **kept
    )
    assert Exchange.from_parts(exchange.opening(), exchange.outcome()) == exchange


def test_exchange_journaled_by_an_older_version_is_read() -> None:
    # As commit 0fed00d wrote it: without the fields for continued messages and stored objects.
    opening = (
        b'{"id":"00000000-0000-0000-0000-000000000007","created_at":"2026-01-02T00:00:00+00:00",'
        b'"endpoint":"/v1/chat/completions","owner":"local","client_address":null,"client_request_id":null,'
        b'"session_id":"old","stream":false,"messages":[{"role":"user","content":"Still here?"}],"model":"m"}'
    )
    outcome = (
        b'{"model":"m","status":200,"error_code":null,"prompt_tokens":3,"cached_tokens":null,"completion_tokens":null,'
        b'"latency_ms":0.0,"time_to_first_token_ms":null,"tokens_per_second":null,"finish_reason":null,'
        b'"answers":[{"content":"Yes."}],"answer_status":"complete"}'
    )
    ended, killed = Exchange.from_parts(opening, outcome), Exchange.from_parts(opening, UNKNOWN_OUTCOME)
    assert (ended.messages, ended.answers) == (question("Still here?"), reply("Yes."))
    assert (killed.status, killed.answers, killed.answer_status) == (500, None, "interrupted")
    for exchange in (ended, killed):
        assert belongs_to_conversation(exchange)
        new = (exchange.continues, exchange.message_ids, exchange.answer_id, exchange.storing, exchange.stored)
        assert new == (None,) * 5
