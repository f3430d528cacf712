"""Conversations and items of the openai package, sync and async, against the running server."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
import requests
from openai import OpenAI
from openai.types.conversations import (
    Conversation,
    ConversationDeletedResource,
    ConversationItem,
    ConversationItemList,
    Message,
)

from tests.support.error_shape import assert_error_shape
from tests.support.openai_clients import async_openai_client
from tests.support.openai_schemas import validate
from tests.support.processes import Server

TURN: list[Any] = [
    {"role": "system", "content": "Add numbers."},
    {"role": "user", "content": [{"type": "input_text", "text": "1 + 2?"}]},
    {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "A tool."}]},
    {"type": "function_call", "call_id": "call_1", "name": "add", "arguments": '{"a": 1, "b": 2}'},
    {"type": "function_call_output", "call_id": "call_1", "output": "3"},
    {"role": "assistant", "content": "It is 3."},
]
TYPES = ["message", "message", "reasoning", "function_call", "function_call_output", "message"]


def _chat(client: OpenAI, session_id: str, text: str) -> None:
    client.chat.completions.create(
        model=client.models.list().data[0].id,
        messages=[{"role": "user", "content": text}],
        max_tokens=1,
        extra_body={"session_id": session_id},
    )


def _text(item: ConversationItem) -> str:
    assert isinstance(item, Message)
    (part,) = item.content
    return str(getattr(part, "text", None))


def test_openai_client_creates_updates_and_deletes_a_conversation(client: OpenAI) -> None:
    made = client.conversations.create(metadata={"topic": "sums"})
    assert made.id.startswith("conv_")
    assert client.conversations.retrieve(made.id) == client.conversations.retrieve(made.id)
    assert client.conversations.retrieve(made.id).metadata == {"topic": "sums"}
    assert client.conversations.update(made.id, metadata={"topic": "tea"}).metadata == {"topic": "tea"}
    assert client.conversations.update(made.id, metadata=None).metadata == {}
    assert list(client.conversations.items.list(made.id)) == []
    deleted = client.conversations.delete(made.id)
    assert (deleted.id, deleted.deleted) == (made.id, True)
    with pytest.raises(openai.NotFoundError, match=f"Conversation with id '{made.id}' not found"):
        client.conversations.retrieve(made.id)


def test_openai_client_creates_lists_retrieves_and_deletes_items(client: OpenAI) -> None:
    made = client.conversations.create(items=TURN[:2])
    created = client.conversations.items.create(made.id, items=TURN[2:])
    assert [item.type for item in created.data] == TYPES[2:]
    listed = list(
        client.conversations.items.list(made.id, order="asc", limit=2, include=["reasoning.encrypted_content"])
    )
    assert [item.type for item in listed] == TYPES
    assert listed[2:] == created.data
    assert [item.id for item in client.conversations.items.list(made.id, limit=3)] == [
        item.id for item in reversed(listed)
    ]
    assert all(client.conversations.items.retrieve(str(item.id), conversation_id=made.id) == item for item in listed)
    for left, item in zip(range(len(listed) - 1, -1, -1), listed, strict=True):
        assert client.conversations.items.delete(str(item.id), conversation_id=made.id).id == made.id
        assert len(client.conversations.items.list(made.id).data) == left
    with pytest.raises(openai.NotFoundError, match="Item with id"):
        client.conversations.items.retrieve(str(listed[0].id), conversation_id=made.id)


def test_conversation_items_and_session_messages_are_the_same_conversation(
    client: OpenAI, http: requests.Session, server: Server
) -> None:
    made = client.conversations.create(items=TURN)
    _chat(client, made.id, "And 3 + 4?")
    client.conversations.items.create(made.id, items=[{"role": "user", "content": "And 5 + 6?"}])
    _chat(client, made.id, "Well?")
    session = http.get(f"{server.url}/v1/conversations/{made.id}", timeout=10).json()
    roles = ["system", "user", "assistant", "tool", "assistant", "user", "assistant", "user", "user", "assistant"]
    assert [message["role"] for message in session["messages"]] == roles
    assert session["messages"][2]["tool_calls"][0]["function"]["name"] == "add"
    items = list(client.conversations.items.list(made.id, order="asc"))
    assert [_text(item) for item in items if isinstance(item, Message)] == [
        message["content"]
        for message in session["messages"]
        if message["role"] != "tool" and message["content"] is not None
    ]
    assert {str(item.id).split("_")[1] for item in items} == {
        message["id"].replace("-", "") for message in session["messages"]
    }


def test_session_created_by_chat_is_a_conversation(client: OpenAI, session_id: str) -> None:
    _chat(client, session_id, "Hello!")
    items = client.conversations.items.list(session_id, order="asc").data
    assert [getattr(item, "role", None) for item in items] == ["user", "assistant"]
    assert client.conversations.retrieve(session_id).id == session_id
    again = client.conversations.create(items=[item.to_dict() for item in items])  # type: ignore[misc]
    assert [_text(item) for item in client.conversations.items.list(again.id, order="asc")] == [
        _text(item) for item in items
    ]
    referred = client.conversations.create(items=[{"type": "item_reference", "id": str(items[0].id)}])
    assert _text(client.conversations.items.list(referred.id).data[0]) == "Hello!"


def test_async_openai_client_uses_conversations_and_items(server: Server) -> None:
    async def use() -> list[str]:
        async with async_openai_client(server) as client:
            made = await client.conversations.create(items=TURN[:1])
            await client.conversations.items.create(made.id, items=TURN[1:])
            await client.conversations.update(made.id, metadata={"topic": "sums"})
            types: list[str] = [
                item.type async for item in client.conversations.items.list(made.id, limit=4, order="asc")
            ]
            newest = (await client.conversations.items.list(made.id, limit=1)).data[0]
            found = await client.conversations.items.retrieve(str(newest.id), conversation_id=made.id)
            assert found == newest
            left = await client.conversations.items.delete(str(newest.id), conversation_id=made.id)
            assert left.metadata == {"topic": "sums"}
            assert (await client.conversations.delete(made.id)).deleted
            return types

    assert asyncio.run(use()) == TYPES


def test_conversation_bodies_match_the_published_types(server: Server, http: requests.Session) -> None:
    url = f"{server.url}/v1/conversations"
    made = http.post(url, timeout=10)
    validate(Conversation, made.content)
    url = f"{url}/{made.json()['id']}"
    validate(ConversationItemList, http.get(f"{url}/items", timeout=10).content)
    validate(ConversationItemList, http.post(f"{url}/items", json={"items": TURN}, timeout=10).content)
    page = http.get(f"{url}/items?limit=1&include[]=reasoning.encrypted_content", timeout=10)
    validate(ConversationItemList, page.content)
    item = f"{url}/items/{page.json()['last_id']}"
    validate(ConversationItem, http.get(item, timeout=10).content)  # type: ignore[arg-type]  # a union of models
    validate(Conversation, http.delete(item, timeout=10).content)
    validate(Conversation, http.get(url, timeout=10).content)
    validate(Conversation, http.post(url, json={"metadata": {}}, timeout=10).content)
    validate(ConversationDeletedResource, http.delete(url, timeout=10).content)


HEX = "0" * 32


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code", "param"),
    [
        ("POST", "", {"items": [{}] * 21}, 400, "array_above_max_length", "items"),
        ("POST", "", {"items": [{"role": "user"}]}, 400, "missing_required_parameter", "items[0].content"),
        ("POST", "", {"items": [{"type": "mcp_call"}]}, 400, "unsupported_value", "items[0].type"),
        ("POST", "", {"items": [{"id": f"msg_{HEX}"}]}, 404, "not_found", "items[0].id"),
        ("POST", "", {"metadata": {"a": "\0"}}, 400, "invalid_value", "metadata"),
        ("POST", "", [], 400, "invalid_type", None),
        ("POST", "/{id}", {}, 400, "missing_required_parameter", "metadata"),
        ("POST", "/{id}", {"metadata": 3}, 400, "invalid_type", "metadata"),
        ("POST", "/{id}/items", {}, 400, "missing_required_parameter", "items"),
        ("POST", "/{id}/items", {"items": "Hi"}, 400, "invalid_type", "items"),
        ("GET", "/{id}/items?limit=0", None, 400, "integer_below_min_value", "limit"),
        ("GET", "/{id}/items?limit=101", None, 400, "integer_above_max_value", "limit"),
        ("GET", "/{id}/items?order=newest", None, 400, "invalid_value", "order"),
        ("GET", "/{id}/items?after=msg_1", None, 400, "invalid_value", "after"),
        ("GET", f"/{{id}}/items?after=msg_{HEX}", None, 404, "not_found", "after"),
        ("GET", "/{id}/items/msg_1", None, 400, "invalid_value", "item_id"),
        ("GET", f"/{{id}}/items/msg_{HEX}", None, 404, "not_found", "item_id"),
        ("DELETE", f"/{{id}}/items/msg_{HEX}", None, 404, "not_found", "item_id"),
        ("POST", "/conv_nowhere", {"metadata": {}}, 404, "not_found", "session_id"),
        ("POST", "/conv_nowhere/items", {"items": []}, 404, "not_found", "session_id"),
        ("GET", "/conv_nowhere/items", None, 404, "not_found", "session_id"),
        ("GET", f"/conv_nowhere/items/msg_{HEX}", None, 404, "not_found", "session_id"),
        ("DELETE", f"/conv_nowhere/items/msg_{HEX}", None, 404, "not_found", "session_id"),
    ],
)  # fmt: skip
def test_bad_conversation_request_is_refused_by_field(
    server: Server,
    http: requests.Session,
    client: OpenAI,
    method: str,
    path: str,
    body: Any,
    status: int,
    code: str,
    param: str | None,
) -> None:
    made = client.conversations.create(items=TURN[:1])
    url = f"{server.url}/v1/conversations{path.replace('{id}', made.id)}"
    answer = http.request(method, url, json=body, timeout=10)
    assert answer.status_code == status, answer.text
    assert_error_shape(answer.json(), code=code, param=param)
    assert len(client.conversations.items.list(made.id).data) == 1


def test_item_of_a_response_can_be_referenced_at_once(client: OpenAI) -> None:
    short: dict[str, Any] = {"model": client.models.list().data[0].id, "temperature": 0, "max_output_tokens": 16}
    made = client.responses.create(input="Hi.", **short)
    reference: Any = {"type": "item_reference", "id": made.output[0].id}
    named = client.responses.create(input=[reference, {"role": "user", "content": "Why?"}], **short)
    assert len(client.responses.input_items.list(named.id).data) == 2
    reference["id"] = named.output[0].id
    conversation = client.conversations.create(items=[reference])
    assert len(client.conversations.items.list(conversation.id).data) == 1
