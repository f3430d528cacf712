"""Forced tool calls, on an engine that leaves tool calls to the model."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest
import requests
from openai import OpenAI
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.support.openai_clients import async_openai_client
from tests.support.openai_schemas import validate
from tests.support.processes import Server, running_api
from tests.support.stream_events import read_chunks

CITY = {"type": "string", "maxLength": 12}
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": CITY}, "required": ["city"]},
    },
}
# The schema of a nested model as pydantic writes it, with values that look like the end of an object.
PLACE: Any = {
    "type": "function",
    "function": {
        "name": "place",
        "parameters": {
            "$defs": {"Mark": {"type": "object", "properties": {"kind": {"enum": ["a}", "{b"]}}, "required": ["kind"]}},
            "type": "object",
            "properties": {"mark": {"$ref": "#/$defs/Mark"}},
            "required": ["mark"],
        },
    },
}
CLOCK: Any = {"type": "function", "function": {"name": "clock"}}
BODY: dict[str, Any] = {
    "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
    "tools": [WEATHER, PLACE, CLOCK],
    "temperature": 0,
    "max_tokens": 90,
}


def _named(name: str) -> Any:
    return {"type": "function", "function": {"name": name}}


def _allowed(mode: str, *names: str) -> Any:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [_named(name) for name in names]}}


@pytest.mark.parametrize(
    ("choice", "names", "reason", "stream"),
    [
        ("required", ("weather", "place", "clock"), "tool_calls", False),
        (_allowed("required", "place", "clock"), ("place", "clock"), "tool_calls", True),
        (_allowed("required", "weather"), ("weather",), "tool_calls", False),
        (_named("place"), ("place",), "stop", True),
        (_named("clock"), ("clock",), "stop", False),
    ],
    ids=["required", "some allowed", "one allowed", "named", "named without parameters"],
)
def test_forced_tool_call_is_made(
    server: Server,
    http: requests.Session,
    session_id: str,
    choice: Any,
    names: tuple[str, ...],
    reason: str,
    stream: bool,
) -> None:
    body = BODY | {"tool_choice": choice, "session_id": session_id, "stream": stream, "parallel_tool_calls": not stream}
    answer = http.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
    if stream:
        call, ended = _streamed_call([validate(ChatCompletionChunk, chunk) for chunk in read_chunks(answer)])
    else:
        (whole,) = validate(ChatCompletion, answer.content).choices
        assert whole.message.content is None
        assert whole.message.tool_calls is not None
        (call,) = (each.model_dump() for each in whole.message.tool_calls)
        ended = whole.finish_reason
    assert ended == reason
    assert call["function"]["name"] in names
    _check_arguments(call["function"])
    recorded = server.stored_messages(session_id)[-1]
    assert (recorded["content"], recorded["tool_calls"]) == (None, [call])


def _streamed_call(chunks: list[ChatCompletionChunk]) -> tuple[dict[str, Any], str | None]:
    """Return the one call of a stream: id and name come first, then the arguments in pieces."""
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert not any(delta.content for delta in deltas)
    first, *rest = [call for delta in deltas for call in delta.tool_calls or ()]
    assert first.id
    assert first.function
    assert first.function.arguments == ""
    pieces = [call.function.arguments or "" for call in rest if call.function and not call.id]
    assert len(pieces) == len(rest) > 1
    function = {"name": first.function.name, "arguments": "".join(pieces)}
    return {"id": first.id, "type": "function", "function": function}, chunks[-1].choices[0].finish_reason


def _check_arguments(function: dict[str, Any]) -> None:
    arguments = orjson.loads(function["arguments"])
    if function["name"] == "weather":
        assert len(arguments["city"]) <= 12
    elif function["name"] == "place":
        assert arguments["mark"]["kind"] in ("a}", "{b")
    else:
        assert arguments == {}


def test_forced_tool_call_is_made_in_every_choice(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=client.models.list().data[0].id, n=2, tool_choice=_named("clock"), logprobs=True, **BODY
    )
    for choice in answer.choices:
        assert choice.message.tool_calls
        assert choice.message.tool_calls[0].type == "function"
    assert len({choice.message.tool_calls[0].id for choice in answer.choices if choice.message.tool_calls}) == 2


def test_async_openai_client_collects_a_streamed_tool_call(server: Server) -> None:
    async def gathered() -> Any:
        async with (
            async_openai_client(server) as client,
            client.chat.completions.stream(model="SmolLM2-135M-Instruct.Q4_1", tool_choice="required", **BODY) as made,
        ):
            return await made.get_final_completion()

    message = asyncio.run(gathered()).choices[0].message
    _check_arguments(message.tool_calls[0].function.model_dump())


@pytest.mark.parametrize("choice", ["auto", "none", _allowed("auto", "clock"), None])
def test_unforced_tool_choice_leaves_the_decision_to_the_model(
    server: Server, http: requests.Session, choice: Any
) -> None:
    body = BODY | {"tool_choice": choice, "max_tokens": 3, "logprobs": True}
    answer = http.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
    assert validate(ChatCompletion, answer.content).choices[0].finish_reason == "length"


def test_forced_tool_call_is_made_on_an_external_llama_cpp(
    server: Server, http: requests.Session, data_dir: Path
) -> None:
    """Legacy completions get OpenAI's form, too, while the database is down."""
    # Without the database nobody can say whether there are API keys.
    engine = {"MODEL_SERVER_URL": server.model_url, "LOOPBACK_TRUST": "true", **server.model_settings}
    with running_api(data_dir, DATABASE_URL="postgresql://nobody@127.0.0.1:9/none", **engine) as alone:
        body = BODY | {"tool_choice": "required"}
        answer = http.post(f"{alone.url}/v1/chat/completions", json=body, timeout=60)
        assert validate(ChatCompletion, answer.content).choices[0].finish_reason == "tool_calls"
        body = {"prompt": ["One", "Two"], "echo": True, "max_tokens": 2}
        answer = http.post(f"{alone.url}/v1/completions", json=body, timeout=60)
        texts = [choice.text for choice in validate(Completion, answer.content).choices]
        assert [text[:3] for text in texts] == ["One", "Two"]
