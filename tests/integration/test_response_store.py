"""Stored responses: the same chain from memory and from PostgreSQL, in one query however long it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from mistral_api.delivery.writer import BatchInserter, writer_starter
from mistral_api.errors import InvalidRequest, NotFound
from mistral_api.recording.exchange import RESPONSE_OBJECT, Exchange
from mistral_api.recording.recorder import Recorder, RecordingPolicy
from mistral_api.responses.response_store import ResponseStore
from mistral_api.responses.stored_responses import CachedResponse
from mistral_api.system.identifiers import new_id, new_session_id
from tests.support.databases import count_of
from tests.support.exchanges import an_exchange, answered, said


@pytest.fixture
def store(engine: Engine, tmp_path: Path) -> Iterator[ResponseStore]:
    """A store that remembers nothing, over a recorder that has nothing."""
    recorder = Recorder(tmp_path / "journal", RecordingPolicy(), writer_starter(engine))
    yield ResponseStore(engine, recorder)
    recorder.close(0)


def _response(text: str, before: Exchange | None = None, **fields: Any) -> Exchange:
    """The exchange of a response that was completed."""
    opened = {"id": f"resp_{new_id().hex}", "object": "response", "status": "completed",
              "previous_response_id": before.stored["id"] if before and before.stored else None}  # fmt: skip
    common: dict[str, Any] = {
        "session_id": before.session_id if before else new_session_id(),
        "messages": said(text),
        "answers": answered(f"re {text}"),
        "message_ids": [new_id()],
        "answer_id": new_id(),
        "continues": before.answer_id if before else None,
        "storing": {"object": RESPONSE_OBJECT, "body": opened, "only_answered": False},
        "stored": opened,
    }
    return an_exchange(**common | fields)


def _chain(length: int) -> list[Exchange]:
    chain: list[Exchange] = []
    for number in range(length):
        chain.append(_response(str(number), chain[-1] if chain else None))
    return chain


def _id(exchange: Exchange) -> str:
    assert exchange.storing is not None
    return str(exchange.storing["body"]["id"])


def _kept(exchange: Exchange) -> CachedResponse:
    assert exchange.stored
    assert exchange.answers
    return CachedResponse(
        "local", exchange.session_id or "", dict(exchange.stored), exchange.message_ids or [], exchange.messages or [],
        exchange.answer_id, exchange.answers[0], in_chain=True,
    )  # fmt: skip


def _texts(store: ResponseStore, exchange: Exchange) -> list[Any]:
    return [message["content"] for message in store.context("local", _id(exchange)).messages]


def test_a_chain_is_one_query_however_long(engine: Engine, store: ResponseStore) -> None:
    chain = _chain(60)
    BatchInserter(engine).insert(chain)
    statements: list[str] = []

    def listen(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        statements.append(statement)

    event.listen(engine, "before_cursor_execute", listen)
    context = store.context("local", _id(chain[-1]))
    event.remove(engine, "before_cursor_execute", listen)
    assert len(statements) == 1
    assert len(context.messages) == 120
    assert (context.session_id, context.continues) == (chain[0].session_id, chain[-1].answer_id)


@pytest.mark.parametrize("remembered", [0, 1, 2, 3])
def test_it_is_the_same_from_memory_and_from_the_database(
    engine: Engine, store: ResponseStore, remembered: int
) -> None:
    chain = _chain(3)
    BatchInserter(engine).insert(chain)
    for exchange in chain[3 - remembered :]:
        store.cache.add(_kept(exchange))
    context = store.context("local", _id(chain[-1]))
    assert [message["content"] for message in context.messages] == ["0", "re 0", "1", "re 1", "2", "re 2"]
    assert (context.session_id, context.continues) == (chain[0].session_id, chain[-1].answer_id)


@pytest.mark.parametrize("remembered", [0, 1])
def test_a_deleted_response_is_gone_and_still_part_of_what_follows(
    engine: Engine, store: ResponseStore, remembered: int
) -> None:
    chain = _chain(2)
    BatchInserter(engine).insert(chain)
    for exchange in chain if remembered else []:
        store.cache.add(_kept(exchange))
    assert store.delete("local", _id(chain[0])) is None
    with pytest.raises(NotFound):
        store.find("local", _id(chain[0]))
    with pytest.raises(InvalidRequest):
        store.context("local", _id(chain[0]))
    assert _texts(store, chain[1]) == ["0", "re 0", "1", "re 1"]


def test_with_the_last_response_goes_the_session_that_nobody_named(engine: Engine, store: ResponseStore) -> None:
    chain = _chain(2)
    BatchInserter(engine).insert(chain)
    assert store.delete("local", _id(chain[0])) is None
    assert store.delete("local", _id(chain[1])) == chain[0].session_id
    assert [count_of(engine, table) for table in ("conversations", "messages", "responses")] == [0, 0, 0]


def test_a_session_that_holds_more_than_responses_stays(engine: Engine, store: ResponseStore) -> None:
    response = _response("a")
    chat = an_exchange(response.session_id, messages=said("chat"), answers=answered("yes"))
    BatchInserter(engine).insert([response, chat])
    assert store.delete("local", _id(response)) is None
    assert count_of(engine, "messages") == 4


def test_nobody_finds_what_is_not_theirs(engine: Engine, store: ResponseStore) -> None:
    response = _response("a")
    BatchInserter(engine).insert([response])
    store.cache.add(_kept(response))
    for ask in (store.find, store.input_messages, store.delete):
        with pytest.raises(NotFound):
            ask("somebody", _id(response))
    with pytest.raises(InvalidRequest):
        store.context("somebody", _id(response))
    assert store.find("local", _id(response)) == response.stored


def test_a_response_whose_process_died_has_failed(engine: Engine, store: ResponseStore) -> None:
    response = _response("a", stored=None, answers=None).as_interrupted()
    BatchInserter(engine).insert([response])
    assert store.find("local", _id(response))["status"] == "failed"
    with pytest.raises(InvalidRequest, match="no answer to go on from"):
        store.context("local", _id(response))


def test_memory_is_bounded_and_the_oldest_go_first(store: ResponseStore) -> None:
    store.cache._max_bytes = 2000
    chain = _chain(30)
    for exchange in chain:
        store.cache.add(_kept(exchange))
    assert store.cache.get("local", _id(chain[-1])) is not None
    assert store.cache.get("local", _id(chain[0])) is None
    store.cache.remove_session("local", chain[0].session_id or "")
    assert store.cache.get("local", _id(chain[-1])) is None
