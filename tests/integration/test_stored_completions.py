"""Chat completions with ``store: true``: retrieved, listed, updated and deleted by the openai package."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import openai
import psycopg2.extensions
import pytest
import requests
from openai import OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionStoreMessage

from tests.support.error_shape import assert_error_shape
from tests.support.openai_schemas import validate
from tests.support.processes import Server, wait_for


def _create(client: OpenAI, text: str = "Hello!", **options: Any) -> ChatCompletion:
    made: ChatCompletion = client.chat.completions.create(
        model=client.models.list().data[0].id,
        messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}],
        max_tokens=4, temperature=0, store=True, **options,
    )  # fmt: skip
    return made


@pytest.fixture
def run() -> dict[str, str]:
    """Metadata that only this test's completions have."""
    return {"run": uuid4().hex}


def test_stored_completion_is_retrieved_unchanged(
    client: OpenAI, http: requests.Session, server: Server, run: dict[str, str]
) -> None:
    made = _create(client, metadata=run)
    found = client.chat.completions.retrieve(made.id)
    assert found.choices[0].message.content == made.choices[0].message.content
    assert found.usage == made.usage
    assert found.model_dump()["metadata"] == run
    assert found.model_dump()["temperature"] == 0
    body = http.get(f"{server.url}/v1/chat/completions/{made.id}", timeout=10).content
    assert validate(ChatCompletion, body).id == made.id


def test_streamed_completion_is_stored_under_the_id_of_its_chunks(client: OpenAI) -> None:
    chunks = list(_create_stream(client))
    found = client.chat.completions.retrieve(chunks[0].id)
    assert found.object == "chat.completion"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert found.choices[0].message.content == text
    assert found.usage is not None
    assert found.usage.completion_tokens > 0


def _create_stream(client: OpenAI) -> Any:
    return _create(client, stream=True)


def test_messages_of_a_stored_completion_are_paginated(client: OpenAI, http: requests.Session, server: Server) -> None:
    made = _create(client, "What is this?")
    messages = list(client.chat.completions.messages.list(made.id, limit=1))
    assert [(message.id, message.role, message.content) for message in messages] == [
        (f"{made.id}-0", "system", "Be brief."),
        (f"{made.id}-1", "user", "What is this?"),
    ]
    backwards = list(client.chat.completions.messages.list(made.id, order="desc"))
    assert [message.id for message in backwards] == [f"{made.id}-1", f"{made.id}-0"]


def test_message_of_a_stored_completion_has_its_content_parts(client: OpenAI) -> None:
    made = client.chat.completions.create(
        model=client.models.list().data[0].id, max_tokens=2, store=True,
        messages=[{"role": "user", "content": [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}]}],
    )  # fmt: skip
    (message,) = client.chat.completions.messages.list(made.id).data
    assert isinstance(message, ChatCompletionStoreMessage)
    assert [part.model_dump()["text"] for part in message.content_parts or []] == ["One.", "Two."]


def test_stored_completions_are_paginated_and_filtered_by_metadata_and_model(
    client: OpenAI, run: dict[str, str]
) -> None:
    made = [_create(client, f"Number {number}", metadata=run | {"even": str(number % 2 == 0)}) for number in range(3)]
    ids = [each.id for each in made]
    assert [each.id for each in client.chat.completions.list(metadata=run, limit=1)] == ids
    assert [each.id for each in client.chat.completions.list(metadata=run, order="desc")] == ids[::-1]
    assert [each.id for each in client.chat.completions.list(metadata=run | {"even": "True"})] == ids[::2]
    assert [each.id for each in client.chat.completions.list(metadata=run, model=made[0].model)] == ids
    assert client.chat.completions.list(metadata=run, model="another").data == []
    exact = client.chat.completions.list(metadata=run, limit=3)
    assert exact.has_more is False


def test_metadata_of_a_stored_completion_can_be_replaced(client: OpenAI, run: dict[str, str]) -> None:
    made = _create(client, metadata={"a": "b"})
    changed = client.chat.completions.update(made.id, metadata=run)
    assert changed.model_dump()["metadata"] == run
    assert [each.id for each in client.chat.completions.list(metadata=run)] == [made.id]
    assert client.chat.completions.update(made.id, metadata=None).model_dump()["metadata"] == {}


def test_deleting_a_stored_completion_keeps_its_conversation(
    client: OpenAI, http: requests.Session, server: Server, session_id: str
) -> None:
    made = _create(client, extra_body={"session_id": session_id})
    deleted = client.chat.completions.delete(made.id)
    assert (deleted.id, deleted.deleted, deleted.object) == (made.id, True, "chat.completion.deleted")
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.retrieve(made.id)
    assert unknown.value.code == "not_found"
    assert http.get(f"{server.url}/v1/conversations/{session_id}", timeout=10).status_code == 200


def test_deleting_a_conversation_deletes_its_stored_completions(
    client: OpenAI, http: requests.Session, server: Server, session_id: str
) -> None:
    made = _create(client, extra_body={"session_id": session_id})
    client.chat.completions.retrieve(made.id)
    assert http.delete(f"{server.url}/v1/conversations/{session_id}", timeout=10).status_code == 200
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.retrieve(made.id)


def _hand_over(database: psycopg2.extensions.cursor, completion_id: str) -> bool:
    """Give a completion to somebody else, once PostgreSQL has it."""
    database.execute("UPDATE stored_completions SET owner = 'somebody' WHERE id = %s", (completion_id,))
    return database.rowcount == 1


def test_unstored_or_foreign_completion_is_not_found(client: OpenAI, database: psycopg2.extensions.cursor) -> None:
    for store in (False, None):
        made = client.chat.completions.create(
            model=client.models.list().data[0].id,
            messages=[{"role": "user", "content": "x"}],
            max_tokens=1,
            store=store,
        )
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.retrieve(made.id)
    other = _create(client)
    client.chat.completions.retrieve(other.id)
    wait_for(lambda: _hand_over(database, other.id), "the delivery of the completion")
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.retrieve(other.id)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.delete(other.id)


@pytest.mark.parametrize(
    ("query", "param", "code"),
    [
        ("limit=0", "limit", "integer_below_min_value"),
        ("order=up", "order", "invalid_value"),
        ("after=chatcmpl-none", "after", "not_found"),
        ("metadata[a]=%00", "metadata", "invalid_value"),
        ("model=%00", "model", "invalid_value"),
    ],
)
def test_bad_stored_completions_query_is_refused_by_field(
    http: requests.Session, server: Server, query: str, param: str, code: str
) -> None:
    answer = http.get(f"{server.url}/v1/chat/completions?{query}", timeout=10)
    assert answer.status_code in (400, 404)
    assert_error_shape(answer.json(), param=param, code=code)


@pytest.mark.parametrize("body", [{}, {"metadata": {"a": 1}}, {"metadata": {"a": "\0"}}, []], ids=str)
def test_bad_stored_completion_update_is_refused(http: requests.Session, server: Server, body: Any) -> None:
    answer = http.post(f"{server.url}/v1/chat/completions/chatcmpl-x", json=body, timeout=10)
    assert answer.status_code == 400
    assert_error_shape(answer.json())


@pytest.mark.parametrize("completion_id", ["chatcmpl-none", "%01", "x" * 300])
def test_unknown_stored_completion_is_not_found(http: requests.Session, server: Server, completion_id: str) -> None:
    url = f"{server.url}/v1/chat/completions/{completion_id}"
    for method, address in (("GET", url), ("POST", url), ("DELETE", url), ("GET", f"{url}/messages")):
        answer = http.request(method, address, json={"metadata": {}}, timeout=10)
        assert answer.status_code == 404
        assert_error_shape(answer.json(), code="not_found", param="completion_id")
