"""The journal: what is in it is safe, in order, and leaves only by delivery or with a reason."""

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
from mistral_api.system.identifiers import new_id
from tests.support.exchanges import an_exchange, answered, said

MANY = 1 << 30


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An empty journal's path."""
    return prepare_journal(tmp_path, alone=True)


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    """The journal for requests of the process ``me``."""
    made = Journal(path, "me")
    yield made
    made.close()


@pytest.fixture
def backlog(path: Path) -> Iterator[Backlog]:
    """The journal for the writer."""
    made = Backlog(path)
    yield made
    made.close()


def test_entries_come_back_whole_and_oldest_first(journal: Journal, backlog: Backlog) -> None:
    exchanges = [an_exchange(messages=said(f"{number} \U0001f600")) for number in range(3)]
    for exchange in exchanges:
        journal.add(exchange)
    assert [entry.exchange() for entry in backlog.oldest_entries(10, MANY)] == exchanges
    assert len(backlog.oldest_entries(2, MANY)) == 2


def test_a_batch_is_bounded_by_its_bytes_but_never_empty(journal: Journal, backlog: Backlog) -> None:
    for _ in range(3):
        journal.add(an_exchange(messages=said("x" * 1000)))
    assert len(backlog.oldest_entries(10, 2500)) == 1
    assert len(backlog.oldest_entries(10, 1)) == 1
    assert len(backlog.oldest_entries(10, 3500)) == 2


def test_only_what_has_ended_waits(journal: Journal, backlog: Backlog) -> None:
    exchange = an_exchange(messages=said("Hello"))
    position = journal.begin(exchange)
    assert (backlog.oldest_entries(10, MANY), journal.pending(), journal.has_pending_session("local", "one")) == (
        [],
        (0, None),
        False,
    )
    ended = replace(exchange, answers=answered("Hi"), completion_tokens=1, model="m")
    journal.end(position, ended)
    assert [entry.exchange() for entry in backlog.oldest_entries(10, MANY)] == [ended]
    assert journal.pending()[0] == 1
    assert journal.has_pending_session("local", "one")


def test_only_what_was_delivered_leaves(journal: Journal, backlog: Backlog) -> None:
    for _ in range(3):
        journal.add(an_exchange())
    first, *rest = backlog.oldest_entries(10, MANY)
    backlog.remove([first])
    assert backlog.oldest_entries(10, MANY) == rest
    assert journal.pending()[0] == 2


def test_a_session_waits_for_its_owner_alone(journal: Journal, backlog: Backlog) -> None:
    journal.add(an_exchange("mine"))
    journal.add(an_exchange(None))
    assert journal.has_pending_session("local", "mine")
    assert not journal.has_pending_session("local", "other")
    assert not journal.has_pending_session("somebody else", "mine")
    backlog.remove(backlog.oldest_entries(10, MANY))
    assert not journal.has_pending_session("local", "mine")
    assert journal.pending() == (0, None)


def test_what_is_refused_is_set_aside_with_its_reason(journal: Journal, backlog: Backlog, path: Path) -> None:
    journal.add(an_exchange())
    (entry,) = backlog.oldest_entries(1, MANY)
    backlog.reject(entry, "no such type")
    assert (journal.pending(), journal.rejected()) == ((0, None), 1)
    with closing(sqlite3.connect(path)) as connection:
        rejected = connection.execute("SELECT reason, opening, outcome FROM rejected").fetchall()
    assert rejected == [("no such type", entry.opening, entry.outcome)]


def test_what_a_dead_process_left_open_ends_as_interrupted_with_its_last_checkpoint(
    path: Path, journal: Journal, backlog: Backlog
) -> None:
    with closing(Journal(path, "dead")) as dead:
        silent, speaking = an_exchange("silent", messages=said("1")), an_exchange("speaking", messages=said("2"))
        dead.begin(silent)
        position = dead.begin(speaking)
        for text in ("One", "One two"):
            spoken = replace(speaking, answers=answered(text), completion_tokens=len(text.split()))
            dead.write_checkpoints([(position, spoken.as_interrupted().outcome())])
    journal.begin(an_exchange("alive"))
    assert backlog.end_interrupted(lambda name: name == "dead") == 2
    first, second = (entry.exchange() for entry in backlog.oldest_entries(10, MANY))
    for exchange in (first, second):
        assert (exchange.status, exchange.error_code, exchange.answer_status) == (500, "interrupted", "interrupted")
    assert (first.id, first.answers) == (silent.id, None)
    assert (second.id, second.answers, second.completion_tokens) == (speaking.id, answered("One two"), 2)
    assert backlog.end_interrupted(lambda name: name == "dead") == 0
    backlog.remove(backlog.oldest_entries(10, MANY))
    with closing(sqlite3.connect(path)) as connection:
        left = [
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("exchanges", "checkpoints")
        ]
    assert left == [1, 0]


def test_a_checkpoint_that_comes_too_late_gets_to_nobody(journal: Journal, backlog: Backlog, path: Path) -> None:
    late = an_exchange("late", messages=said("mine"), answers=answered("my secret"))
    position = journal.begin(late)
    journal.end(position, late)
    journal.write_checkpoints([(position, late.as_interrupted().outcome())])
    backlog.remove(backlog.oldest_entries(10, MANY))
    journal.write_checkpoints([(position, late.as_interrupted().outcome())])
    assert journal.begin(an_exchange("other")) != position
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM checkpoints").fetchone() == (0,)


def test_text_that_utf8_cannot_hold_is_kept_as_far_as_it_can_be(journal: Journal, backlog: Backlog) -> None:
    journal.add(an_exchange(messages=said("half \ud83d of it"), answers=answered("nul \0")))
    (entry,) = backlog.oldest_entries(1, MANY)
    exchange = entry.exchange()
    assert exchange.messages == said("half ? of it")
    assert exchange.answers == answered("nul \ufffd")


def test_it_survives_its_process_being_killed(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from mistral_api.recording.journal import Journal; from tests.support.exchanges import an_exchange\n"
        "from mistral_api.recording.journal import prepare_journal\n"
        "Journal(prepare_journal(Path(sys.argv[1]), alone=True), 'dead').add(an_exchange('killed'))\n"
        "os.kill(os.getpid(), signal.SIGKILL if hasattr(signal, 'SIGKILL') else signal.SIGTERM)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, timeout=30)
    assert killed.returncode != 0
    with closing(Backlog(prepare_journal(tmp_path, alone=True))) as backlog:
        assert [entry.exchange().session_id for entry in backlog.oldest_entries(10, MANY)] == ["killed"]


def test_the_journal_of_the_first_version_is_taken_over(tmp_path: Path) -> None:
    exchange = an_exchange("old", messages=said("Still here?"))
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


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")
def test_nobody_else_can_read_it(journal: Journal, tmp_path: Path) -> None:
    journal.add(an_exchange())
    assert {path.stat().st_mode & 0o077 for path in tmp_path.iterdir()} == {0}


def test_exchanges_know_themselves_in_both_parts() -> None:
    ids: dict[str, Any] = {"continues": new_id(), "message_ids": [new_id()], "answer_id": new_id()}
    kept: dict[str, Any] = {"storing": {"id": "resp_1"}, "stored": {"id": "resp_1", "status": "completed"}}
    exchange = an_exchange(messages=said("x"), answers=answered("y"), status=499, model="m", stream=True, **ids, **kept)
    assert Exchange.from_parts(exchange.opening(), exchange.outcome()) == exchange


def test_what_the_version_before_has_journaled_is_read() -> None:
    # As 0fed00d wrote it: no word of what an exchange continues, and is stored as.
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
    assert (ended.messages, ended.answers) == (said("Still here?"), answered("Yes."))
    assert (killed.status, killed.answers, killed.answer_status) == (500, None, "interrupted")
    for exchange in (ended, killed):
        assert belongs_to_conversation(exchange)
        new = (exchange.continues, exchange.message_ids, exchange.answer_id, exchange.storing, exchange.stored)
        assert new == (None,) * 5
