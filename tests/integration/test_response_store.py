"""Stored responses: the same chain from memory and from PostgreSQL, in one query of any length."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import Engine, event

from mistral_api.delivery.batch_inserter import BatchInserter
from mistral_api.delivery.writer import writer_starter
from mistral_api.errors import InvalidRequest, NotFound
from mistral_api.payload_types.responses import Response
from mistral_api.recording.exchange import RESPONSE_OBJECT, Exchange
from mistral_api.recording.recorder import Recorder, RecordingPolicy
from mistral_api.responses.response_cache import CachedResponse, EncodedResponse
from mistral_api.responses.response_store import ResponseStore
from mistral_api.system.identifiers import new_id, new_session_id
from tests.support.conversations import response_store
from tests.support.databases import count_rows
from tests.support.exchanges import make_exchange, question, reply


@pytest.fixture
def store(engine: Engine, tmp_path: Path) -> Iterator[ResponseStore]:
    """A store with an empty cache, over a recorder without records."""
    recorder = Recorder(tmp_path / "journal", RecordingPolicy(), writer_starter(engine))
    yield response_store(engine, recorder)
    recorder.close(0)


def _response(text: str, before: Exchange | None = None, **fields: Any) -> Exchange:
    """Return the exchange of a completed response."""
    opened = {"id": f"resp_{new_id().hex}", "object": "response", "status": "completed",
              "previous_response_id": before.stored["id"] if before and before.stored else None}  # fmt: skip
    common: dict[str, Any] = {
        "session_id": before.session_id if before else new_session_id(),
        "messages": question(text),
        "answers": reply(f"re {text}"),
        "message_ids": [new_id()],
        "answer_id": new_id(),
        "continues": before.answer_id if before else None,
        "storing": {"object": RESPONSE_OBJECT, "body": opened, "only_answered": False},
        "stored": opened,
    }
    return make_exchange(**common | fields)


def _chain(length: int) -> list[Exchange]:
    chain: list[Exchange] = []
    for number in range(length):
        chain.append(_response(str(number), chain[-1] if chain else None))
    return chain


def _response_id(exchange: Exchange) -> str:
    assert exchange.storing is not None
    return str(exchange.storing["body"]["id"])


def _cached_response(exchange: Exchange) -> CachedResponse:
    assert exchange.stored
    assert exchange.answers
    body = EncodedResponse.of(cast("Response", {"created_at": 1, **exchange.stored}))
    return CachedResponse(
        "local", exchange.session_id or "", body, exchange.message_ids or [], exchange.messages or [],
        exchange.answer_id, exchange.answers[0], in_chain=True,
    )  # fmt: skip


def _texts(store: ResponseStore, exchange: Exchange) -> list[Any]:
    return [message["content"] for message in store.context("local", _response_id(exchange)).messages]


def test_response_chain_of_any_length_is_read_in_one_query(engine: Engine, store: ResponseStore) -> None:
    chain = _chain(60)
    BatchInserter(engine).insert(chain)
    statements: list[str] = []

    def listen(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        statements.append(statement)

    event.listen(engine, "before_cursor_execute", listen)
    context = store.context("local", _response_id(chain[-1]))
    event.remove(engine, "before_cursor_execute", listen)
    assert len(statements) == 1
    assert len(context.messages) == 120
    assert (context.session_id, context.continues) == (chain[0].session_id, chain[-1].answer_id)


@pytest.mark.parametrize("remembered", [0, 1, 2, 3])
def test_response_context_is_the_same_from_cache_and_database(
    engine: Engine, store: ResponseStore, remembered: int
) -> None:
    chain = _chain(3)
    BatchInserter(engine).insert(chain)
    for exchange in chain[3 - remembered :]:
        store.cache.add(_cached_response(exchange))
    context = store.context("local", _response_id(chain[-1]))
    assert [message["content"] for message in context.messages] == ["0", "re 0", "1", "re 1", "2", "re 2"]
    assert (context.session_id, context.continues) == (chain[0].session_id, chain[-1].answer_id)


@pytest.mark.parametrize("remembered", [0, 1])
def test_deleted_response_is_not_found_and_remains_in_the_context_of_later_ones(
    engine: Engine, store: ResponseStore, remembered: int
) -> None:
    chain = _chain(2)
    BatchInserter(engine).insert(chain)
    for exchange in chain if remembered else []:
        store.cache.add(_cached_response(exchange))
    assert store.delete("local", _response_id(chain[0])) == []
    with pytest.raises(NotFound):
        store.find("local", _response_id(chain[0]))
    with pytest.raises(InvalidRequest):
        store.context("local", _response_id(chain[0]))
    assert _texts(store, chain[1]) == ["0", "re 0", "1", "re 1"]


def test_deleting_the_last_response_deletes_its_unnamed_session(engine: Engine, store: ResponseStore) -> None:
    chain = _chain(2)
    BatchInserter(engine).insert(chain)
    assert store.delete("local", _response_id(chain[0])) == []
    assert store.delete("local", _response_id(chain[1])) == [chain[0].session_id]
    assert [count_rows(engine, table) for table in ("conversations", "messages", "responses")] == [0, 0, 0]


def test_deleting_a_response_keeps_a_session_with_other_messages(engine: Engine, store: ResponseStore) -> None:
    response = _response("a")
    chat = make_exchange(response.session_id, messages=question("chat"), answers=reply("yes"))
    BatchInserter(engine).insert([response, chat])
    assert store.delete("local", _response_id(response)) == []
    assert count_rows(engine, "messages") == 4


def test_response_of_another_owner_is_not_found(engine: Engine, store: ResponseStore) -> None:
    response = _response("a")
    BatchInserter(engine).insert([response])
    store.cache.add(_cached_response(response))
    for ask in (store.find, store.input_messages, store.delete):
        with pytest.raises(NotFound):
            ask("somebody", _response_id(response))
    with pytest.raises(InvalidRequest):
        store.context("somebody", _response_id(response))
    assert store.find("local", _response_id(response)) == {"created_at": 1, **(response.stored or {})}


def test_response_of_a_dead_process_is_failed(engine: Engine, store: ResponseStore) -> None:
    begun = _response("a", stored=None, answers=None)
    response = Exchange.from_parts(begun.opening(), begun.interrupted_outcome())
    BatchInserter(engine).insert([response])
    assert store.find("local", _response_id(response))["status"] == "failed"
    with pytest.raises(InvalidRequest, match="no answer to go on from"):
        store.context("local", _response_id(response))


def test_response_cache_evicts_the_oldest_responses_first(store: ResponseStore) -> None:
    store.cache._max_bytes = 2000
    chain = _chain(30)
    for exchange in chain:
        store.cache.add(_cached_response(exchange))
    assert store.cache.get("local", _response_id(chain[-1])) is not None
    assert store.cache.get("local", _response_id(chain[0])) is None
    store.cache.remove_session("local", chain[0].session_id or "")
    assert store.cache.get("local", _response_id(chain[-1])) is None
