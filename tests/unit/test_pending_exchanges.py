"""Readers see what waits in the journal: by session, by stored object, the newest first; and in every process."""

from __future__ import annotations

import gc
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mistral_api.recording import pending as pending_module
from mistral_api.recording.backlog import Backlog
from mistral_api.recording.exchange import Exchange
from mistral_api.recording.journal import Journal, prepare_journal
from mistral_api.recording.pending import LEAST_SWEPT, PendingExchanges
from tests.support.exchanges import make_exchange, question, record_exchange, reply, undelivered_recorder

MANY = 1 << 30


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of an empty journal."""
    return prepare_journal(tmp_path, alone=True)


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    """The journal as another process writes it."""
    made = Journal(path, "another process")
    yield made
    made.close()


@pytest.fixture
def pending(path: Path) -> Iterator[PendingExchanges]:
    """The journal as a reader sees it."""
    made = PendingExchanges(list)
    made.open(path)
    yield made
    made.close()


def _said(session_id: str, text: str, **fields: Any) -> Exchange:
    return make_exchange(session_id, messages=question(text), answers=reply(f"{text}!"), **fields)


def test_exchanges_of_a_session_come_in_the_order_in_which_they_ended(
    journal: Journal, pending: PendingExchanges
) -> None:
    first, second, other = _said("one", "a"), _said("one", "b"), _said("other", "c")
    position = journal.begin(first)
    journal.add(second)
    journal.add(other)
    assert pending.of_session("local", "one") == [second]
    journal.end(position, first)
    assert pending.of_session("local", "one") == [second, first]
    assert pending.of_session("somebody else", "one") == []


def test_only_what_becomes_part_of_a_conversation_is_pending_for_it(
    journal: Journal, pending: PendingExchanges
) -> None:
    journal.add(make_exchange("one", messages=None))
    journal.add(make_exchange("one", messages=[], answers=None))
    assert pending.of_session("local", "one") == []
    assert pending.newest("local", 10) == []


def test_delivered_exchange_is_not_pending(journal: Journal, pending: PendingExchanges, path: Path) -> None:
    exchanges = [_said("one", text) for text in "ab"]
    for exchange in exchanges:
        journal.add(exchange)
    assert pending.of_session("local", "one") == exchanges
    with closing(Backlog(path)) as backlog:
        backlog.remove(backlog.oldest_entries(1, MANY))
    assert pending.of_session("local", "one") == exchanges[1:]


def test_stored_objects_are_found_by_kind_owner_and_id(journal: Journal, pending: PendingExchanges) -> None:
    completion: dict[str, Any] = {"storing": {"object": "chat.completion"}, "stored": {"id": "chatcmpl-1"}}
    response: dict[str, Any] = {"storing": {"object": "response", "body": {}}, "stored": {"id": "resp_1"}}
    first, second = _said("one", "a", **completion), _said("two", "b", **response)
    journal.add(first)
    journal.add(second)
    journal.add(_said("three", "c"))
    assert pending.stored_object("chat.completion", "local", "chatcmpl-1") == first
    assert pending.stored_object("response", "local", "resp_1") == second
    assert pending.stored_object("response", "local", "chatcmpl-1") is None
    assert pending.stored_object("response", "loca", "resp_1") is None
    assert pending.stored_objects("chat.completion", "local") == [first]
    assert pending.stored_objects("chat.completion", "loca") == []


def test_response_of_a_killed_process_is_found(journal: Journal, pending: PendingExchanges, path: Path) -> None:
    storing: Any = {"object": "response", "body": {"id": "resp_1", "status": "in_progress"}}
    exchange = make_exchange("one", messages=question("a"), storing=storing)
    journal.begin(exchange)
    with closing(Backlog(path)) as backlog:
        backlog.end_interrupted(lambda _name: True)
    found = pending.stored_object("response", "local", "resp_1")
    assert found is not None
    assert found.id == exchange.id


def test_sessions_and_exchanges_of_an_owner_are_listed_the_last_used_first(
    journal: Journal, pending: PendingExchanges
) -> None:
    for session_id, text in (("one", "a"), ("two", "b"), ("one", "c"), ("three", "d")):
        journal.add(_said(session_id, text))
    journal.add(_said("hers", "e", owner="somebody else"))
    assert pending.sessions("local", 10) == ["three", "one", "two"]
    assert pending.sessions("local", 2) == ["three", "one"]
    assert pending.sessions("somebody else", 10) == ["hers"]
    texts = [exchange.messages[0]["content"] for exchange in pending.newest("local", 3) if exchange.messages]
    assert texts == ["d", "c", "b"]


def test_damaged_rows_are_left_out(journal: Journal, pending: PendingExchanges, path: Path) -> None:
    whole = _said("one", "a")
    damaged: list[Any] = ["not a message"]
    for exchange in (whole, make_exchange("one", messages=damaged), _said("one", "b")):
        journal.add(exchange)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE endings SET outcome = ? WHERE position = 3", (bytes(20),))
        connection.commit()
    assert pending.of_session("local", "one") == [whole]
    assert pending.sessions("local", 10) == ["one"]


def test_exchange_is_decoded_once_while_it_is_cached(
    journal: Journal, pending: PendingExchanges, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[bytes] = []
    decode = pending_module._decode

    def counted(*blobs: bytes) -> Exchange | None:
        decoded.append(blobs[0])
        return decode(*blobs)

    monkeypatch.setattr(pending_module, "_decode", counted)
    for number in range(20):
        journal.add(_said("one", f"{number}"))
    for _ in range(3):
        assert len(pending.of_session("local", "one")) == 20
    assert len(decoded) == 20
    size = len(_said("one", "1").opening()) + len(_said("one", "1").outcome())
    small = PendingExchanges(list, max_bytes=size * 5)
    small.open(path)
    for _ in range(2):
        assert len(small.of_session("local", "one")) == 20
    assert small._cache._bytes <= size * 5
    small.close()


def test_what_has_been_delivered_does_not_stay_in_memory(
    path: Path, journal: Journal, pending: PendingExchanges
) -> None:
    with closing(Backlog(path)) as backlog:
        for number in range(3 * LEAST_SWEPT):
            journal.add(_said(f"session {number}", "hello"))
            assert len(pending.of_session("local", f"session {number}")) == 1
            backlog.remove(backlog.oldest_entries(1, MANY))
    gc.collect()
    assert sum(type(each) is Exchange for each in gc.get_objects()) <= LEAST_SWEPT + 1


def test_exchange_that_the_disk_did_not_take_is_pending_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = undelivered_recorder(tmp_path / "journal")
    recorder.start()
    before, meanwhile = _said("one", "a"), _said("one", "b\0")
    record_exchange(recorder, before)

    def full(*_arguments: object) -> int:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as full_disk:
        for name in ("begin", "end", "add"):
            full_disk.setattr(Journal, name, full)
        recorder.end(None, meanwhile)
        assert [each.id for each in recorder.pending.of_session("local", "one")] == [before.id, meanwhile.id]
        assert recorder.pending.sessions("local", 5) == ["one"]
    record_exchange(recorder, _said("two", "c"))
    assert [each.id for each in recorder.pending.of_session("local", "one")] == [before.id, meanwhile.id]
    recorder.close(seconds=0)


def test_reader_without_a_journal_sees_nothing(tmp_path: Path) -> None:
    pending = PendingExchanges(list)
    assert pending.of_session("local", "one") == []
    assert pending.sessions("local", 5) == []


def test_exchanges_of_several_sessions_come_in_the_order_in_which_they_ended(
    journal: Journal, pending: PendingExchanges
) -> None:
    # The second one took no time, as one whose process has died.
    made = [_said("one", "a", latency_ms=5000.0), _said("two", "b")]
    for exchange in made:
        journal.add(exchange)
    assert pending.of_session("local", "two", "one") == made
