"""Requests in the form of programs that are too large to run here, or that tests/clients runs only where npm is.

The form is theirs, the words are ours. Sources: Open WebUI, PyPI open-webui 0.12.4 (open_webui/utils/headers.py,
open_webui/config.py); n8n, n8n-io/n8n packages/@n8n/nodes-langchain/nodes/llms/LMChatOpenAi/LmChatOpenAi.node.ts;
Home Assistant, home-assistant/core homeassistant/components/openai_conversation/entity.py; Claude Code, npm
@anthropic-ai/claude-code 2.1.332, requests seen.
"""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import orjson
import pytest
import requests

from tests.support.processes import Server, wait_for

LAMP: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "brightness": {"type": "integer", "minimum": 0, "maximum": 100}},
    "required": ["name"],
}


def _post(server: Server, path: str, body: dict[str, Any], **headers: str) -> requests.Response:
    sent = requests.post(f"{server.url}{path}", json=body, headers=headers, timeout=60)
    assert sent.ok, sent.text
    return sent


def _said(stream: bytes) -> str:
    """Return the text of a stream of chat completion chunks."""
    lines = [line.removeprefix(b"data: ") for line in stream.splitlines() if line.startswith(b"data: {")]
    choices = [choice for line in lines for choice in orjson.loads(line)["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def test_chat_of_open_webui_is_one_conversation_without_its_tasks(server: Server) -> None:
    chat_id, path = str(uuid4()), "/v1/chat/completions"
    headers = {
        "X-OpenWebUI-Chat-Id": chat_id,
        "X-OpenWebUI-User-Name": "Ada%20Lovelace",
        "X-OpenWebUI-User-Role": "admin",
    }
    settings = {"model": "", "stream": True, "stream_options": {"include_usage": True}, "max_tokens": 8}
    settings["model"] = requests.get(f"{server.url}/v1/models", timeout=10).json()["data"][0]["id"]
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Answer briefly."},
        {"role": "user", "content": [{"type": "text", "text": "Name a fruit."}]},
    ]
    answer = _said(_post(server, path, settings | {"messages": messages}, **headers).content)
    task = (
        "### Task:\nGenerate a concise title.\n### Chat History:\n<chat_history>\nUSER: Name a fruit.\n</chat_history>"
    )
    title = {"model": settings["model"], "messages": [{"role": "user", "content": task}], "stream": False}
    _post(server, path, title | {"max_completion_tokens": 8}, **headers)
    messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": "Another one."}]
    _post(server, path, settings | {"messages": messages}, **headers)
    turns = ["system", *["user", "assistant"] * 2]
    wait_for(lambda: [each["role"] for each in server.stored_messages(chat_id)] == turns, "two turns, and no task")


def test_agent_of_n8n_gets_a_tool_call_and_goes_on_with_its_result(server: Server) -> None:
    parameters = LAMP | {"$schema": "http://json-schema.org/draft-07/schema#", "additionalProperties": False}
    tool = {
        "type": "function",
        "function": {"name": "set_lamp", "description": "Set a lamp.", "parameters": parameters},
    }
    settings = {
        "temperature": 0, "top_p": 1, "frequency_penalty": 0, "presence_penalty": 0, "n": 1, "max_tokens": 60,
        "stream": False, "tools": [tool], "tool_choice": {"type": "function", "function": {"name": "set_lamp"}},
    }  # fmt: skip
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Light in the hall, please."}]
    answer = _post(server, "/v1/chat/completions", settings | {"messages": messages}).json()["choices"][0]["message"]
    (call,) = answer["tool_calls"]
    assert call["function"]["name"] == "set_lamp"
    assert "name" in orjson.loads(call["function"]["arguments"])
    messages += [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": '[{"response":"done"}]', "tool_call_id": call["id"], "name": "set_lamp"},
    ]
    # One turn of a chain without tools asks for JSON.
    asked = {"messages": messages, "response_format": {"type": "json_object"}, "max_tokens": 20, "temperature": 0}
    assert _post(server, "/v1/chat/completions", asked).json()["choices"]


def test_conversation_of_home_assistant_streams_a_call_of_its_tool(server: Server) -> None:
    said: list[dict[str, Any]] = [
        {"type": "message", "role": "developer", "content": "You control a house."},
        {"type": "message", "role": "user", "content": "Turn on the lamp."},
        {"type": "function_call", "name": "HassTurnOn", "arguments": '{"name": "lamp"}', "call_id": "call_1"},
        {"type": "function_call_output", "call_id": "call_1", "output": '{"success": true}'},
    ]
    tool = {"type": "function", "name": "HassTurnOn", "description": "Turns on", "parameters": LAMP, "strict": False}
    settings = {
        "max_output_tokens": 60, "top_p": 1.0, "temperature": 1.0, "user": "01JQ4N2ZK6Z9Y", "store": False,
        "stream": True, "tools": [tool],
    }  # fmt: skip
    events = _post(server, "/v1/responses", settings | {"input": said}).content.decode()
    assert "event: response.completed" in events or "event: response.incomplete" in events


def test_task_of_home_assistant_is_answered_within_its_structure(server: Server) -> None:
    # Its schemas carry a word of their own at each object, and everything is required.
    structure = {
        "type": "object",
        "strict": True,
        "additionalProperties": False,
        "properties": {
            "room": {"type": "string", "enum": ["hall", "kitchen"]},
            "lamps": {"type": ["integer", "null"]},
        },
        "required": ["room", "lamps"],
    }
    body = {
        "input": [{"type": "message", "role": "user", "content": "Describe a room."}],
        "text": {"format": {"type": "json_schema", "name": "room", "schema": structure}},
        "max_output_tokens": 60, "temperature": 0, "store": False, "user": "01JQ4N2ZK6Z9Z",
    }  # fmt: skip
    message = next(each for each in _post(server, "/v1/responses", body).json()["output"] if each["type"] == "message")
    room = orjson.loads(message["content"][0]["text"])
    assert room["room"] in ("hall", "kitchen")
    assert set(room) == {"room", "lamps"}


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
def test_later_request_of_claude_code_is_taken(server: Server, path: str) -> None:
    tool = {"name": "Bash", "description": "Runs a command.", "input_schema": LAMP}
    references = [{"type": "tool_reference", "tool_name": "WebFetch"}]
    session = str(uuid4())
    mark = {"cache_control": {"type": "ephemeral"}}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "<system-reminder>\nBe brief.\n</system-reminder>\n"}]},
        {"role": "system", "content": [{"type": "text", "text": "# Environment", **mark}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "", "signature": ""},
                {"type": "tool_use", "id": "call_1", "name": "ToolSearch", "input": {"query": "fetch"}},
                {"type": "tool_use", "id": "call_2", "name": "Bash", "input": {"command": "ls"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "call_1", "content": references},
                {"tool_use_id": "call_2", "type": "tool_result", "content": "Exit code 2", "is_error": True, **mark},
                {"type": "text", "text": "Go on."},
            ],
        },
    ]
    body = {
        "messages": messages,
        "system": [
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=2;"},
            {"type": "text", "text": "Help."},
        ],
        "tools": [
            tool,
            tool | {"name": "DeferredToolPlaceholder", "defer_loading": True},
            tool | {"name": "WebFetch", "defer_loading": True, **mark},
            {"type": "web_search_20250305", "name": "web_search", "max_uses": 8},
        ],
        "metadata": {"user_id": orjson.dumps({"device_id": "d", "account_uuid": "", "session_id": session}).decode()},
        "max_tokens": 4,
        "thinking": {"type": "adaptive", "display": "omitted"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "high"},
    }
    betas = {"anthropic-beta": "claude-code-20250219,context-management-2025-06-27", "anthropic-version": "2023-06-01"}
    answer = _post(server, f"{path}?beta=true", body, **betas)
    if path == "/v1/messages":
        assert answer.headers["X-Session-Id"] == session
        assert answer.headers["X-Ignored-Tools"] == "web_search_20250305"
        assert answer.json()["type"] == "message"
    else:
        assert answer.json()["input_tokens"] > 20
