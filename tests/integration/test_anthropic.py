"""The ``anthropic`` package against ``/v1/messages``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import psycopg2.extensions
import pytest
import requests
from anthropic import Anthropic, BadRequestError, NotFoundError
from anthropic.types import Message, MessageTokensCount, RawMessageStreamEvent
from anthropic.types.shared import ErrorResponse

from tests.support.openai_schemas import validate
from tests.support.processes import Server, wait_for

FRANCE: dict[str, Any] = {
    "model": "SmolLM2-135M-Instruct.Q4_1",
    "max_tokens": 24,
    # The package has no parameters for sampling.
    "extra_body": {"temperature": 0},
    "system": "Answer in one sentence.",
    "messages": [{"role": "user", "content": [{"type": "text", "text": "What is the capital of France?"}]}],
}
WEATHER = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
WEB_SEARCH: Any = {"type": "web_search_20250305", "name": "web_search"}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}


@pytest.fixture
def claude(server: Server) -> Iterator[Anthropic]:
    """The anthropic package pointed at the server, without retries."""
    with Anthropic(base_url=server.url, api_key="unused", max_retries=0, timeout=60) as made:
        yield made


def _model_id(server: Server) -> str:
    name: str = requests.get(f"{server.url}/v1/models", timeout=10).json()["data"][0]["id"]
    return name


def _with_session(session_id: str) -> dict[str, dict[str, Any]]:
    return {"extra_body": FRANCE["extra_body"] | {"session_id": session_id}}


def _request_body(body: dict[str, Any]) -> dict[str, Any]:
    """Return the body as the package sends it."""
    more: dict[str, Any] = body["extra_body"]
    return {name: value for name, value in body.items() if name != "extra_body"} | more


def test_anthropic_message_is_answered_and_recorded(
    server: Server, claude: Anthropic, session_id: str, database: psycopg2.extensions.cursor
) -> None:
    body = FRANCE | {"model": _model_id(server)} | _with_session(session_id)
    raw = claude.messages.with_raw_response.create(**body)
    message = validate(Message, raw.http_response.content)
    (block,) = message.content
    assert block.type == "text"
    assert "Paris" in block.text
    assert (message.model, message.role) == (body["model"], "assistant")
    assert message.stop_reason in ("end_turn", "max_tokens")
    assert raw.headers["X-Session-Id"] == session_id
    assert raw.headers["request-id"] == raw.headers["X-Request-Id"]

    stored = server.stored_messages(session_id)
    assert [(each["role"], each["content"]) for each in stored] == [
        ("system", "Answer in one sentence."),
        ("user", "What is the capital of France?"),
        ("assistant", block.text),
    ]

    def usage() -> Any:
        database.execute("SELECT * FROM api_usage WHERE session_id = %s", (session_id,))
        return database.fetchone()

    row = wait_for(usage, "the row of the request")
    assert (row["endpoint"], row["status"], row["stream"]) == ("/v1/messages", 200, False)
    used = message.usage
    assert row["prompt_tokens"] == used.input_tokens + (used.cache_read_input_tokens or 0)
    assert row["completion_tokens"] == used.output_tokens
    assert row["finish_reason"] in ("stop", "length")
    assert row["time_to_first_token_ms"] > 0


def test_anthropic_history_sent_again_continues_its_conversation(
    server: Server, claude: Anthropic, session_id: str
) -> None:
    body = FRANCE | {"model": _model_id(server)} | _with_session(session_id)
    first = claude.messages.create(**body)
    turns = [*FRANCE["messages"], {"role": "assistant", "content": first.content}, {"role": "user", "content": "Why?"}]
    second = claude.messages.create(**body | {"messages": turns})
    assert (second.usage.cache_read_input_tokens or 0) > 0
    stored = server.stored_messages(session_id)
    assert [each["role"] for each in stored] == ["system", "user", "assistant", "user", "assistant"]


def test_anthropic_message_of_no_tokens_warms_the_cache(
    server: Server, claude: Anthropic, session_id: str, database: psycopg2.extensions.cursor
) -> None:
    system = f"You know all about {session_id}. " + "Answer in one sentence. " * 20
    body = FRANCE | {"model": _model_id(server), "system": system}
    silent = body | _with_session(session_id) | {"max_tokens": 0}
    message = validate(Message, claude.messages.with_raw_response.create(**silent).http_response.content)
    assert (message.content, message.stop_reason, message.usage.output_tokens) == ([], "max_tokens", 0)
    assert (claude.messages.create(**body).usage.cache_read_input_tokens or 0) > 50

    def usage() -> Any:
        database.execute("SELECT * FROM api_usage WHERE session_id = %s", (session_id,))
        return database.fetchone()

    row = wait_for(usage, "the row of the request")
    assert (row["status"], row["completion_tokens"], row["finish_reason"]) == (200, 0, "length")
    with claude.messages.stream(**silent) as stream:
        events = [event.type for event in stream]
        final = stream.get_final_message()
    assert events == ["message_start", "message_delta", "message_stop"]
    assert (final.content, final.stop_reason, final.usage.output_tokens) == ([], "max_tokens", 0)


def test_anthropic_stream_has_its_events_in_order(server: Server, claude: Anthropic) -> None:
    body = FRANCE | {"model": _model_id(server)}
    whole = claude.messages.create(**body)
    raw = requests.post(f"{server.url}/v1/messages", json=_request_body(body) | {"stream": True}, timeout=60).content
    events: list[Any] = []
    for event in raw.decode().strip().split("\n\n"):
        name, data = event.split("\n")
        events.append(validate(RawMessageStreamEvent, data.removeprefix("data: ").encode()))  # type: ignore[arg-type]
        assert name == f"event: {events[-1].type}"
    kinds = [event.type for event in events]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[2:-3]) == {"content_block_delta"}

    with claude.messages.stream(**body) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert [text] == [block.text for block in whole.content if block.type == "text"]
    counted = [each.input_tokens + (each.cache_read_input_tokens or 0) for each in (whole.usage, final.usage)]
    assert counted[0] == counted[1]
    assert final.usage.output_tokens == whole.usage.output_tokens
    start = events[0]
    assert start.type == "message_start"
    assert start.message.usage.input_tokens + (start.message.usage.cache_read_input_tokens or 0) == counted[0]


def test_anthropic_message_names_the_stop_sequence_that_was_met(server: Server, claude: Anthropic) -> None:
    stopped = FRANCE | {"model": _model_id(server), "stop_sequences": ["Never", "Paris"]}
    message = claude.messages.create(**stopped)
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "Paris")
    with claude.messages.stream(**stopped) as stream:
        final = stream.get_final_message()
    assert (final.stop_reason, final.stop_sequence) == ("stop_sequence", "Paris")
    assert "Paris" not in str(message.content) + str(final.content)


def test_anthropic_assistant_prefill_is_continued(server: Server, claude: Anthropic) -> None:
    begun = [*FRANCE["messages"], {"role": "assistant", "content": "The capital of France is"}]
    message = claude.messages.create(**FRANCE | {"model": _model_id(server), "messages": begun, "max_tokens": 4})
    assert message.content[0].type == "text"
    assert message.content[0].text.startswith(" Paris")


def test_anthropic_token_count_equals_the_usage_and_is_recorded(
    server: Server, claude: Anthropic, database: psycopg2.extensions.cursor
) -> None:
    body = FRANCE | {"model": _model_id(server), "max_tokens": 1}
    used = claude.messages.create(**body).usage
    asked = {name: body[name] for name in ("model", "system", "messages")}
    raw = claude.messages.with_raw_response.count_tokens(**asked, extra_headers={"X-Request-Id": "counted"})
    counted = validate(MessageTokensCount, raw.http_response.content)
    assert counted.input_tokens == used.input_tokens + (used.cache_read_input_tokens or 0)
    with_tools = claude.messages.count_tokens(**asked, tools=[WEATHER])  # type: ignore[list-item]
    assert with_tools.input_tokens >= counted.input_tokens

    def row() -> Any:
        database.execute("SELECT * FROM api_usage WHERE client_request_id = 'counted'")
        return database.fetchone()

    found = wait_for(row, "the row of the question")
    assert (found["endpoint"], found["status"], found["session_id"]) == ("/v1/messages/count_tokens", 200, None)
    assert found["latency_ms"] > 0


def test_anthropic_tool_results_are_stored_as_tool_messages(server: Server, claude: Anthropic, session_id: str) -> None:
    call = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Paris"}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "Rain."}]}
    turns: list[Any] = [
        {"role": "user", "content": "How is the weather in Paris?"},
        {"role": "assistant", "content": [{"type": "text", "text": "I ask."}, call]},
        {"role": "user", "content": [result, {"type": "text", "text": "Well?"}]},
    ]
    body = FRANCE | {"model": _model_id(server), "messages": turns, "tools": [WEATHER], "max_tokens": 4}
    claude.messages.create(**body | _with_session(session_id))
    stored = server.stored_messages(session_id)
    assert [each["role"] for each in stored[1:5]] == ["user", "assistant", "tool", "user"]
    assert stored[2]["tool_calls"][0]["function"] == {"name": "get_weather", "arguments": '{"city":"Paris"}'}
    assert (stored[3]["content"], stored[4]["content"]) == ("Rain.", "Well?")


def test_anthropic_client_raises_its_own_exceptions_for_bad_requests(server: Server, claude: Anthropic) -> None:
    with pytest.raises(NotFoundError) as missing:
        claude.messages.create(**FRANCE | {"model": "claude-opus-4"})
    assert missing.value.type == "not_found_error"
    assert "claude-opus-4" in str(missing.value.api_message)
    body = validate(ErrorResponse, missing.value.body)
    assert body.request_id == missing.value.request_id == missing.value.response.headers["X-Request-Id"]

    body_with_search = FRANCE | {"model": _model_id(server), "tools": [WEB_SEARCH]}
    with pytest.raises(BadRequestError) as refused:
        claude.messages.create(**body_with_search, tool_choice={"type": "any"})
    body_of = orjson.loads(refused.value.response.content)
    assert sorted(body_of["error"]) == ["code", "message", "param", "type"]
    assert (body_of["error"]["code"], body_of["error"]["param"]) == ("not_supported", "tools[0].type")
    with pytest.raises(BadRequestError, match="maximum context length"):
        claude.messages.create(
            **FRANCE | {"model": _model_id(server), "messages": [{"role": "user", "content": "a b " * 3000}]}
        )


def test_tools_that_only_anthropic_could_run_are_left_out_and_the_client_is_told(
    server: Server, claude: Anthropic
) -> None:
    body = FRANCE | {"model": _model_id(server), "max_tokens": 4}
    raw = claude.messages.with_raw_response.create(**body, tools=[WEB_SEARCH])
    assert raw.headers["X-Ignored-Tools"] == "web_search_20250305"
    assert validate(Message, raw.http_response.content).content[0].type == "text"
    assert "X-Ignored-Tools" not in claude.messages.with_raw_response.create(**body).headers
    assert "web_search_20250305" in server.log()


def test_tool_with_a_name_of_128_characters_is_called(server: Server, claude: Anthropic) -> None:
    name = "mcp__" + "a" * 123
    body = FRANCE | {"model": _model_id(server), "max_tokens": 60, "tools": [WEATHER | {"name": name}]}
    message = claude.messages.create(**body, tool_choice={"type": "tool", "name": name})
    assert [block.name for block in message.content if block.type == "tool_use"] == [name]


SCHEMA_FIELD = "output_config.format.schema.$ref"


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, IMAGE]}]}, "messages[0].content[1]"),
        ({"output_config": {"format": {"type": "json_schema", "schema": {"$ref": "#/no"}}}}, SCHEMA_FIELD),
    ],
)  # fmt: skip
def test_anthropic_error_names_the_field_as_the_client_sent_it(
    server: Server, fields: dict[str, Any], place: str
) -> None:
    body = _request_body(FRANCE | {"model": _model_id(server)}) | fields
    refused = requests.post(f"{server.url}/v1/messages", json=body, timeout=60)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, place)
