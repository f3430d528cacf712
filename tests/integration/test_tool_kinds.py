"""Tools that are no functions, on the real engine: their calls come back as the items of their kind."""

from __future__ import annotations

from typing import Any

import openai
import orjson
import pytest
import requests
from openai import OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionMessageCustomToolCall
from openai.types.responses import Response, ResponseStreamEvent

from tests.support.error_shape import assert_error_shape
from tests.support.openai_schemas import validate
from tests.support.processes import Server

PLACE: Any = {"type": "object", "properties": {"at": {"enum": ["left"]}}, "required": ["at"]}
LOOK: Any = {"type": "function", "name": "look", "strict": False, "parameters": PLACE}
EYES: Any = {"type": "namespace", "name": "eyes", "description": "What eyes do.", "tools": [LOOK]}
NOTE: Any = {"type": "custom", "name": "note", "description": "Takes a note."}
# Both say "2+2" or "3+3", and one of them in lark.
SUM: Any = {
    "type": "custom",
    "name": "sum",
    "format": {"type": "grammar", "syntax": "regex", "definition": "2\\+2|3\\+3"},
}
LARK = 'start: NUMBER "+" NUMBER\nNUMBER: /[23]/'
NESTED = 'start: "(" start ")" | "x"'
# In the form of Codex's own.
PATCHES = """start: begin file+ end
begin: "*** Begin Patch" LF
end: "*** End Patch" LF?
file: "*** Add File: " /(.+)/ LF ("+" /(.*)/ LF)+ | "*** Delete File: " /(.+)/ LF
%import common.LF
"""
SHORT: dict[str, Any] = {"temperature": 0, "max_output_tokens": 60}


def _grammar(syntax: str, definition: str) -> Any:
    return SUM | {"format": {"type": "grammar", "syntax": syntax, "definition": definition}}


PATCH = _grammar("lark", PATCHES) | {"name": "apply_patch", "description": "Edits files."}


def test_call_of_a_custom_tool_is_streamed_stored_and_answered(client: OpenAI, model: str) -> None:
    stream = client.responses.create(
        model=model, input="Add.", tools=[SUM, LOOK], tool_choice={"type": "custom", "name": "sum"}, stream=True,
        **SHORT,
    )  # fmt: skip
    events = [event.to_dict() for event in stream]
    validate(list[ResponseStreamEvent], events)
    final: Any = events[-1]["response"]
    (item,) = final["output"]
    assert (item["type"], item["status"], final["status"]) == ("custom_tool_call", "completed", "completed")
    assert item["input"] in ("2+2", "3+3")
    deltas = [event["delta"] for event in events if event["type"] == "response.custom_tool_call_input.delta"]
    assert "".join(map(str, deltas)) == item["input"]
    assert client.responses.retrieve(final["id"]).output[0].to_dict() == item
    output: Any = {"type": "custom_tool_call_output", "call_id": item["call_id"], "output": "noted"}
    answered = client.responses.create(model=model, input=[output], previous_response_id=final["id"], **SHORT)
    (sent,) = client.responses.input_items.list(answered.id).data
    assert (sent.type, sent.model_dump()["output"]) == ("custom_tool_call_output", "noted")
    session = (answered.model_extra or {})["session_id"]
    items = client.conversations.items.list(session, order="asc").data
    assert [each.type for each in items] == ["message", "custom_tool_call", "custom_tool_call_output", "message"]
    assert items[1].model_dump()["input"] == item["input"]


@pytest.mark.parametrize(
    ("tool", "matches"),
    [
        (_grammar("lark", LARK), ("2+2", "2+3", "3+2", "3+3")),
        # No regular expression says it: the text itself is written within the grammar.
        (_grammar("lark", NESTED), ("x", "(x)", "((x))", "(((x)))")),
    ],
    ids=["regular", "recursive"],
)
def test_grammar_in_lark_is_kept(client: OpenAI, model: str, tool: Any, matches: tuple[str, ...]) -> None:
    response = client.responses.create(
        model=model, input="Write (x).", tools=[tool], tool_choice="required", temperature=0, max_output_tokens=40
    )
    (item,) = response.output
    assert item.type == "custom_tool_call"
    if response.status == "completed":
        depth = item.input.count("(") if tool["format"]["definition"] == NESTED else 0
        assert item.input in (*matches, "(" * depth + "x" + ")" * depth)
    else:
        assert set(item.input) <= set("(x)")


def test_custom_call_that_is_cut_off_is_incomplete(client: OpenAI, model: str) -> None:
    response = client.responses.create(
        model=model, input="x", tools=[_grammar("regex", "a{400}")], tool_choice="required", temperature=0,
        max_output_tokens=40,
    )  # fmt: skip
    (item,) = response.output
    assert item.type == "custom_tool_call"
    assert response.status == "incomplete"
    assert item.to_dict()["status"] == "incomplete"
    assert set(item.input) == {"a"}


def test_call_that_is_cut_off_at_once_is_its_item(http: requests.Session, server: Server) -> None:
    for tool, choice, limit in ((NOTE, "required", 1), (NOTE, {"type": "custom", "name": "note"}, 6),
                                ({"type": "shell", "environment": {"type": "local"}}, "required", 2)):  # fmt: skip
        body = {"input": "x", "tools": [tool], "tool_choice": choice, "temperature": 0, "max_output_tokens": limit}
        streamed = http.post(f"{server.url}/v1/responses", json=body | {"stream": True, "background": True}, timeout=60)
        events = [orjson.loads(line[6:]) for line in streamed.content.splitlines() if line.startswith(b"data: {")]
        made = events[-1]["response"]
        (item,) = made["output"]
        assert [each["item"] for each in events if each["type"] == "response.output_item.done"] == [item]
        kind = "custom_tool_call" if tool is NOTE else "shell_call"
        assert (item["type"], item["status"], made["status"]) == (kind, "incomplete", "incomplete")
        again = {"input": "Go on.", "previous_response_id": made["id"], "max_output_tokens": 1}
        continued = http.post(f"{server.url}/v1/responses", json=again, timeout=60)
        assert continued.status_code == 200, continued.text
    look = {"name": "look", "input_schema": PLACE}
    asked = {"messages": [{"role": "user", "content": "x"}], "tools": [look], "max_tokens": 1}
    forced = asked | {"tool_choice": {"type": "tool", "name": "look"}}
    told = http.post(f"{server.url}/v1/messages", json=forced, timeout=60).json()
    (block,) = told["content"]
    assert (block["type"], block["name"], block["input"], told["stop_reason"]) == (
        "tool_use", "look", {}, "max_tokens",
    )  # fmt: skip


def test_function_that_several_namespaces_have_is_named_with_one(http: requests.Session, server: Server) -> None:
    ears = EYES | {"name": "ears"}
    choice: dict[str, Any] = {"type": "function", "name": "look"}

    def ask(tools: list[Any], **more: Any) -> requests.Response:
        body = {"input": "x", "tools": tools, "tool_choice": choice | more, "max_output_tokens": 1}
        return http.post(f"{server.url}/v1/responses", json=body, timeout=60)

    refused = ask([EYES, ears])
    assert refused.status_code == 400
    assert_error_shape(refused.json(), param="tool_choice")
    (call,) = ask([EYES, ears], namespace="ears").json()["output"]
    assert (call["name"], call["namespace"]) == ("look", "ears")
    (call,) = ask([EYES, LOOK]).json()["output"]
    assert (call["name"], call.get("namespace")) == ("look", None)


def test_functions_of_a_namespace_are_called_by_their_own_names(client: OpenAI, model: str) -> None:
    response = client.responses.create(
        model=model, input="Look left.", tools=[EYES], tool_choice={"type": "function", "name": "look"}, **SHORT
    )
    (call,) = response.output
    assert call.type == "function_call"
    assert (call.name, call.namespace, orjson.loads(call.arguments)) == ("look", "eyes", {"at": "left"})


@pytest.mark.parametrize(
    ("kind", "tool"),
    [
        ("shell", {"type": "shell", "environment": {"type": "local"}}),
        ("apply_patch", {"type": "apply_patch"}),
        ("local_shell", {"type": "local_shell"}),
        ("tool_search", {"type": "tool_search", "execution": "client", "parameters": PLACE}),
    ],
)
def test_forced_calls_of_tools_without_a_name_come_as_their_items(
    http: requests.Session, server: Server, kind: str, tool: Any
) -> None:
    body = {"input": "List the files.", "tools": [tool], "tool_choice": {"type": kind}, "temperature": 0}
    made = http.post(f"{server.url}/v1/responses", json=body | {"max_output_tokens": 16}, timeout=60)
    assert made.status_code == 200, made.text
    (item,) = made.json()["output"]
    assert item["type"] == f"{kind}_call"
    if made.json()["status"] == "completed":
        assert item["arguments"] == {"at": "left"}


def test_what_only_openai_can_run_is_left_out_and_said(http: requests.Session, server: Server) -> None:
    hosted: Any = [{"type": "web_search", "external_web_access": False}, {"type": "mcp", "server_label": "x"}]
    body = {"input": "Hello!", "tools": [*hosted, LOOK], "temperature": 0, "max_output_tokens": 16}
    made = http.post(f"{server.url}/v1/responses", json=body, timeout=60)
    assert made.status_code == 200
    assert made.headers["X-Ignored-Tools"] == "web_search, mcp"
    assert [tool["type"] for tool in made.json()["tools"]] == ["web_search", "mcp", "function"]
    alone = body | {"tools": hosted, "tool_choice": "required"}
    refused = http.post(f"{server.url}/v1/responses", json=alone, timeout=10)
    assert refused.status_code == 400
    assert_error_shape(refused.json(), param="tools[0].type")
    chosen = body | {"tool_choice": {"type": "web_search"}}
    refused = http.post(f"{server.url}/v1/responses", json=chosen, timeout=10)
    assert refused.status_code == 400
    assert_error_shape(refused.json(), param="tool_choice.type")


def test_history_of_a_coding_agent_is_read(client: OpenAI, http: requests.Session, server: Server) -> None:
    """What Codex, and agents like it, send: nothing stored, and the whole history with items of all kinds."""
    items: list[Any] = [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "You are an agent."}]},
        {"type": "additional_tools", "role": "developer", "tools": [LOOK]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Work."}]},
        {"type": "reasoning", "summary": [], "encrypted_content": "gAAAAA", "id": "rs_1"},
        {"type": "custom_tool_call", "call_id": "c1", "name": "apply_patch", "input": "*** Begin Patch"},
        {"type": "custom_tool_call_output", "call_id": "c1", "output": "Done"},
        {"type": "local_shell_call", "id": "ls_1", "call_id": "c2", "status": "completed",
         "action": {"type": "exec", "command": ["ls"], "env": {}}},
        {"type": "local_shell_call_output", "id": "ls_1", "output": "a.py"},
        {"type": "shell_call", "call_id": "c3", "action": {"commands": ["pwd"], "timeout_ms": None}},
        {"type": "shell_call_output", "call_id": "c3",
         "output": [{"stdout": "/", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}]},
        {"type": "apply_patch_call", "call_id": "c4", "status": "completed",
         "operation": {"type": "delete_file", "path": "a.py"}},
        {"type": "apply_patch_call_output", "call_id": "c4", "status": "failed", "output": "no such file"},
        {"type": "tool_search_call", "call_id": "c5", "execution": "client", "arguments": {"query": "eyes"}},
        {"type": "tool_search_output", "call_id": "c5", "execution": "client", "status": "completed", "tools": [EYES]},
        {"type": "function_call", "call_id": "c6", "namespace": "eyes", "name": "look", "arguments": '{"at":"right"}'},
        {"type": "function_call_output", "call_id": "c6", "output": "A wall."},
        {"type": "agent_message", "author": "/root", "recipient": "/root/a",
         "content": [{"type": "input_text", "text": "Report."}]},
    ]  # fmt: skip
    body: dict[str, Any] = {
        "input": items, "tools": [LOOK, NOTE, PATCH, {"type": "web_search"}], "tool_choice": "auto", "temperature": 0,
        "parallel_tool_calls": True, "reasoning": {"summary": "auto"}, "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "01a21b6f", "client_metadata": {"thread_id": "t"}, "max_output_tokens": 16,
    }  # fmt: skip
    unstored = http.post(f"{server.url}/v1/responses", json=body | {"store": False}, timeout=60)
    assert unstored.status_code == 200, unstored.text
    assert http.get(f"{server.url}/v1/responses/{unstored.json()['id']}", timeout=10).status_code == 404
    stored = validate(Response, http.post(f"{server.url}/v1/responses", json=body, timeout=60).content)
    kept = client.responses.input_items.list(stored.id, order="asc", limit=50).data
    expected = [item["type"] for item in items if item["type"] != "reasoning"]
    assert [item.type for item in kept] == expected
    told = {item.type: item.to_dict() for item in kept}
    assert told["shell_call_output"]["output"] == items[9]["output"]
    assert told["apply_patch_call_output"]["status"] == "failed"
    assert told["tool_search_output"]["tools"] == [EYES]
    assert told["local_shell_call_output"]["call_id"] == "c2"
    assert told["function_call"]["namespace"] == "eyes"
    # What was loaded before can be called.
    loaded = client.responses.create(
        model=stored.model, input="Look.", previous_response_id=stored.id, temperature=0, max_output_tokens=40,
        tool_choice={"type": "function", "name": "look"},
    )  # fmt: skip
    assert [item.type for item in loaded.output] == ["function_call"]


def test_custom_tool_of_a_chat_is_called_streamed_and_answered(client: OpenAI, model: str) -> None:
    form: Any = {"type": "grammar", "grammar": {"syntax": "regex", "definition": "2\\+2|3\\+3"}}
    tool: Any = {"type": "custom", "custom": {"name": "sum", "description": "Adds.", "format": form}}
    function: Any = {"type": "function", "function": {"name": "look", "parameters": PLACE}}
    messages: list[Any] = [{"role": "user", "content": "Add."}]
    asked: dict[str, Any] = {"model": model, "tools": [function, tool], "temperature": 0, "max_tokens": 40}
    choice: Any = {"type": "custom", "custom": {"name": "sum"}}
    made = client.chat.completions.create(messages=messages, tool_choice=choice, store=True, **asked)
    validate(ChatCompletion, made.to_json().encode())
    (call,) = made.choices[0].message.tool_calls or []
    assert isinstance(call, ChatCompletionMessageCustomToolCall)
    assert call.custom.input in ("2+2", "3+3")
    assert made.choices[0].finish_reason == "stop"
    chunks = list(client.chat.completions.create(messages=messages, tool_choice=choice, stream=True, **asked))
    pieces = [chunk.choices[0].delta.tool_calls[0].to_dict() for chunk in chunks
              if chunk.choices and chunk.choices[0].delta.tool_calls]  # fmt: skip
    assert (pieces[0]["type"], pieces[0]["custom"]["name"]) == ("custom", "sum")
    assert "".join(piece["custom"]["input"] for piece in pieces) == call.custom.input
    allowed: Any = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [choice]}}
    again = client.chat.completions.create(messages=messages, tool_choice=allowed, **asked)
    assert [each.type for each in again.choices[0].message.tool_calls or []] == ["custom"]
    messages += [made.choices[0].message.to_dict(), {"role": "tool", "tool_call_id": call.id, "content": "four"}]
    answered = client.chat.completions.create(messages=messages, tool_choice="none", **(asked | {"max_tokens": 8}))
    assert answered.choices[0].message.tool_calls is None
    kept = client.chat.completions.retrieve(made.id)
    assert kept.choices[0].message.tool_calls == made.choices[0].message.tool_calls
    missing: Any = {"type": "custom", "custom": {"name": "look"}}
    with pytest.raises(openai.BadRequestError, match="not in 'tools'"):
        client.chat.completions.create(messages=messages, tool_choice=missing, **asked)


def test_strict_tool_that_the_conversation_has_stored_is_refused_by_its_part(
    client: OpenAI, http: requests.Session, server: Server
) -> None:
    contains = {"type": "object", "properties": {"a": {"type": "array", "contains": {"const": 1}}}}
    strict = LOOK | {"strict": True, "parameters": contains}
    loaded: Any = {"type": "additional_tools", "role": "developer", "tools": [NOTE, strict]}
    conversation = client.conversations.create(items=[loaded])
    body = {"input": "Look.", "conversation": conversation.id, "max_output_tokens": 4}
    for path in ("/v1/responses", "/v1/responses/input_tokens"):
        refused = http.post(server.url + path, json=body, timeout=30)
        assert refused.status_code == 400, refused.text
        param = "conversation.tools[1].parameters.properties.a.contains"
        assert_error_shape(refused.json(), code="invalid_json_schema", param=param)
