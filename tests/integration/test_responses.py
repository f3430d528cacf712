"""The Responses API on the running stack: creation, storage and refusals."""

from __future__ import annotations

from typing import Any

import openai
import orjson
import psycopg2.extensions
import pytest
import requests
from openai import OpenAI
from openai.types.responses import Response, ResponseFunctionToolCall, ResponseInputMessageItem

from tests.support.error_shape import assert_error_shape
from tests.support.openai_schemas import validate
from tests.support.processes import Server

SHORT: dict[str, Any] = {"temperature": 0, "max_output_tokens": 16}
WEATHER: Any = {
    "type": "function", "name": "weather", "strict": True,
    "parameters": {"type": "object", "properties": {"city": {"enum": ["Paris"]}}, "required": ["city"],
                   "additionalProperties": False},
}  # fmt: skip


def _stored_messages(http: requests.Session, server: Server, session_id: str) -> list[tuple[str, Any]]:
    body = http.get(f"{server.url}/v1/conversations/{session_id}", timeout=10).json()
    return [(message["role"], message["content"]) for message in body["messages"]]


def _session_of(response: Response) -> str:
    return str((response.model_extra or {})["session_id"])


def test_response_is_valid_and_retrieved_unchanged(
    client: OpenAI, http: requests.Session, server: Server, model: str
) -> None:
    body = {"model": model, "input": "Hello!", "instructions": "Be brief.", "metadata": {"a": "b"}, **SHORT}
    made = http.post(f"{server.url}/v1/responses", json=body, timeout=60)
    response = validate(Response, made.content)
    assert response.output_text
    assert response.usage is not None
    assert response.usage.output_tokens <= 16
    found = http.get(f"{server.url}/v1/responses/{response.id}", timeout=10)
    assert found.json() == made.json()
    assert made.headers["X-Session-Id"] == made.json()["session_id"]
    (item,) = client.responses.input_items.list(response.id).data
    assert validate(ResponseInputMessageItem, item.to_dict())
    assert item.model_dump()["content"][0]["text"] == "Hello!"


def test_response_chain_is_sent_to_the_model_and_stored_as_one_conversation(
    client: OpenAI, http: requests.Session, server: Server, model: str
) -> None:
    before = None
    for number in range(4):
        before = client.responses.create(
            model=model,
            input=f"Turn {number}",
            instructions="Be brief.",
            previous_response_id=before and before.id,
            **SHORT,
        )
    assert before is not None
    assert before.usage is not None
    # The prompt contains all earlier turns, and all but the new one was in the model server's cache.
    assert before.usage.input_tokens > 60
    assert before.usage.input_tokens - before.usage.input_tokens_details.cached_tokens < 30
    said = _stored_messages(http, server, _session_of(before))
    assert [text for role, text in said if role == "user"] == [f"Turn {number}" for number in range(4)]
    assert len(said) == 8


def test_response_may_be_continued_by_several_responses(client: OpenAI, model: str) -> None:
    parent = client.responses.create(model=model, input="Name a colour.", **SHORT)
    tokens = []
    for text in ("Another one.", "Another one."):
        child = client.responses.create(model=model, input=text, previous_response_id=parent.id, **SHORT)
        assert child.usage is not None
        tokens.append(child.usage.input_tokens)
    assert tokens[0] == tokens[1]


def test_response_instructions_are_not_inherited(client: OpenAI, model: str) -> None:
    parent = client.responses.create(model=model, input="Hi.", instructions="word " * 100, **SHORT)
    child = client.responses.create(model=model, input="Hi.", previous_response_id=parent.id, **SHORT)
    assert parent.usage is not None
    assert child.usage is not None
    assert parent.usage.input_tokens > 100 > child.usage.input_tokens


def test_forced_function_call_is_made_and_its_output_continues_the_response(client: OpenAI, model: str) -> None:
    asked = client.responses.create(
        model=model, input="Weather?", tools=[WEATHER], tool_choice={"type": "function", "name": "weather"},
        temperature=0, max_output_tokens=64,
    )  # fmt: skip
    (call,) = asked.output
    assert isinstance(call, ResponseFunctionToolCall)
    assert orjson.loads(call.arguments) == {"city": "Paris"}
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    answered = client.responses.create(model=model, input=[output], previous_response_id=asked.id, **SHORT)
    assert answered.output_text
    items = client.responses.input_items.list(answered.id).data
    assert [item.type for item in items] == ["function_call_output"]


def test_function_call_output_without_a_call_is_refused(client: OpenAI, model: str) -> None:
    output: Any = {"type": "function_call_output", "call_id": "call_none", "output": "rain"}
    with pytest.raises(openai.BadRequestError, match="No tool call found for function call output"):
        client.responses.create(model=model, input=[output], **SHORT)


def test_response_in_a_conversation_reads_and_extends_it(client: OpenAI, model: str) -> None:
    conversation = client.conversations.create(items=[{"type": "message", "role": "user", "content": "I like tea."}])
    first = client.responses.create(model=model, input="What do I like?", conversation=conversation.id, **SHORT)
    assert first.conversation is not None
    assert first.conversation.id == conversation.id
    assert first.usage is not None
    assert first.usage.input_tokens > 20
    items = list(client.conversations.items.list(conversation.id, order="asc"))
    assert [item.type for item in items] == ["message"] * 3
    assert items[-1].id == first.output[0].id
    client.responses.create(model=model, input="Why?", conversation={"id": conversation.id}, **SHORT)
    assert len(list(client.conversations.items.list(conversation.id))) == 5


def test_refused_response_appends_nothing_to_its_conversation(client: OpenAI, model: str) -> None:
    conversation = client.conversations.create(items=[{"type": "message", "role": "user", "content": "Hi."}])
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model=model, input="word " * 3000, conversation=conversation.id, **SHORT)
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "input")
    assert len(list(client.conversations.items.list(conversation.id))) == 1


def test_response_truncation_omits_the_oldest_turns(client: OpenAI, model: str) -> None:
    conversation = client.conversations.create(
        items=[{"type": "message", "role": "user", "content": "word " * 1800} for _ in range(2)]
    )
    # Both turns together are too long, and each alone leaves no room for the new turn and an answer.
    options: Any = {"conversation": conversation.id, "truncation": "auto", "max_output_tokens": 400}
    fitted = client.responses.create(model=model, input="Hi.", extra_body={"grammar": 'root ::= "Yes"'}, **options)
    assert fitted.usage is not None
    assert fitted.usage.input_tokens < 100
    assert fitted.truncation == "auto"


def test_response_session_id_creates_or_continues_a_session(
    client: OpenAI, http: requests.Session, server: Server, model: str, session_id: str
) -> None:
    for _ in range(2):
        made = client.responses.create(model=model, input="Hi.", extra_body={"session_id": session_id}, **SHORT)
    assert len(_stored_messages(http, server, session_id)) == 4
    assert made.usage is not None
    assert made.usage.input_tokens > 40


def test_response_with_store_false_cannot_be_retrieved_or_continued(client: OpenAI, model: str) -> None:
    made = client.responses.create(model=model, input="Hi.", store=False, **SHORT)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)
    with pytest.raises(openai.BadRequestError) as unknown:
        client.responses.create(model=model, input="Hi.", previous_response_id=made.id, **SHORT)
    assert (unknown.value.code, unknown.value.param) == ("previous_response_not_found", "previous_response_id")


def test_deleted_response_is_not_found_and_its_children_keep_its_context(
    client: OpenAI, http: requests.Session, server: Server, model: str
) -> None:
    parent = client.responses.create(model=model, input="One.", **SHORT)
    child = client.responses.create(model=model, input="Two.", previous_response_id=parent.id, **SHORT)
    client.responses.delete(parent.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(parent.id)
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model=model, input="Hi.", previous_response_id=parent.id, **SHORT)
    grandchild = client.responses.create(model=model, input="Three.", previous_response_id=child.id, **SHORT)
    said = _stored_messages(http, server, _session_of(grandchild))
    assert [text for role, text in said if role == "user"] == ["One.", "Two.", "Three."]
    client.responses.delete(child.id)
    client.responses.delete(grandchild.id)
    # Deleting the last response deletes its unnamed conversation.
    gone = http.get(f"{server.url}/v1/conversations/{_session_of(grandchild)}", timeout=10)
    assert gone.status_code == 404


def test_response_of_another_owner_cannot_be_read_deleted_or_continued(
    client: OpenAI, server: Server, database: psycopg2.extensions.cursor, http: requests.Session, model: str
) -> None:
    made = client.responses.create(model=model, input="Hi.", **SHORT)
    session_id = _session_of(made)
    assert _stored_messages(http, server, session_id)
    # As if another owner had created it; the new id is not in this process's cache.
    database.execute("UPDATE responses SET owner = 'somebody', id = %s WHERE id = %s", ("resp_" + "0" * 32, made.id))
    for ask in (client.responses.retrieve, client.responses.delete, client.responses.input_items.list):
        with pytest.raises(openai.NotFoundError):
            ask("resp_" + "0" * 32)
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model=model, input="Hi.", previous_response_id="resp_" + "0" * 32, **SHORT)


def test_streamed_response_is_stored_when_its_last_event_arrives(client: OpenAI, model: str) -> None:
    events = list(client.responses.create(model=model, input="Hi.", stream=True, **SHORT))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    last = events[-1]
    assert last.type in ("response.completed", "response.incomplete")
    assert client.responses.retrieve(last.response.id).to_dict() == last.response.to_dict()


def test_input_token_count_equals_the_usage_of_the_response(client: OpenAI, model: str) -> None:
    counted = client.responses.input_tokens.count(model=model, input="Hello there!", instructions="Be brief.")
    made = client.responses.create(model=model, input="Hello there!", instructions="Be brief.", **SHORT)
    assert made.usage is not None
    assert counted.input_tokens == made.usage.input_tokens
    more = client.responses.input_tokens.count(model=model, input="And?", previous_response_id=made.id)
    child = client.responses.create(model=model, input="And?", previous_response_id=made.id, **SHORT)
    assert child.usage is not None
    assert more.input_tokens == child.usage.input_tokens


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({}, 400, "missing_required_parameter", "input"),
        ({"input": "x", "model": "gpt-9"}, 404, "model_not_found", "model"),
        ({"input": "x", "previous_response_id": "resp_1"}, 400, "previous_response_not_found", "previous_response_id"),
        ({"input": "x", "conversation": "conv_1"}, 404, "not_found", "conversation"),
        ({"input": "x", "tools": [{"type": "mcp"}], "tool_choice": "required"}, 400, "unsupported_value",
         "tools[0].type"),
        ({"input": [{"type": "item_reference", "id": "msg_" + "0" * 32}]}, 404, "not_found", "input[0].id"),
        ({"input": "word " * 3000}, 400, "context_length_exceeded", "input"),
        ({"input": "x", "background": True, "store": False}, 400, "invalid_value", "background"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_bad_responses_request_is_refused_by_field(
    http: requests.Session, server: Server, body: dict[str, Any], status: int, code: str, param: str, stream: bool
) -> None:
    answer = http.post(f"{server.url}/v1/responses", json=body | {"stream": stream}, timeout=60)
    assert answer.status_code == status
    assert_error_shape(answer.json(), code=code, param=param)


@pytest.mark.parametrize("response_id", ["resp_1", "resp_%01", "x" * 300])
def test_unknown_response_is_not_found(http: requests.Session, server: Server, response_id: str) -> None:
    url = f"{server.url}/v1/responses/{response_id}"
    for answer in (http.get(url, timeout=10), http.delete(url, timeout=10), http.post(f"{url}/cancel", timeout=10)):
        assert answer.status_code == 404
        assert_error_shape(answer.json(), code="not_found")
