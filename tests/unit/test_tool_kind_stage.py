"""Calls of functions become those of the tools that a client declared, and the items and events of their kind."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent

from mistral_api.conversations.item_renderer import message_to_items
from mistral_api.generation.declared_tools import chat_catalogue, response_catalogue
from mistral_api.generation.tool_catalogue import ToolCatalogue
from mistral_api.generation.tool_kind_stage import InputReader, ToolKindStage
from mistral_api.payload_types.completions import Chunk, Delta
from mistral_api.responses.response_object import new_response
from mistral_api.responses.stream_events import ResponseEvents
from mistral_api.upstream.transcript import Transcript
from tests.support.chat_chunks import OPENING, arguments_delta, call_delta, chunk
from tests.support.openai_schemas import validate

ANSWER_ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
LOOK: Any = {"type": "function", "name": "look", "parameters": {"type": "object"}}
TOOLS: Any = [
    LOOK,
    {"type": "namespace", "name": "eyes", "description": "Eyes.", "tools": [LOOK, {"type": "custom", "name": "draw"}]},
    {"type": "custom", "name": "note"},
    {"type": "shell"},
    {"type": "local_shell"},
    {"type": "apply_patch"},
    {"type": "tool_search", "execution": "client", "parameters": {"type": "object"}},
    {"type": "web_search"},
]


def _cut(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


@given(st.text(), st.integers(1, 9), st.booleans())
def test_input_is_read_however_its_json_is_written_and_cut(text: str, size: int, ascii_only: bool) -> None:
    written = json.dumps({"input": text}, ensure_ascii=ascii_only, indent=2)
    reader = InputReader()
    pieces = [reader.feed(piece) for piece in _cut(written, size)]
    assert "".join(pieces) == text
    assert reader.feed("}") == ""


def test_input_that_is_no_json_is_taken_as_it_is_and_half_an_escape_waits() -> None:
    bare = InputReader()
    assert "".join(map(bare.feed, ["{", '"cm', 'd": 1}', " more"])) == '{"cmd": 1} more'
    reader = InputReader()
    assert [reader.feed(piece) for piece in ('{"input":"a\\', "ud83d", "\\ude00", "b\\\\", "n")] == [
        *("a", "", "😀", "b\\", "n"),
    ]
    lone = InputReader()
    assert lone.feed('{"input": "\\ud83d x"}') == "\ufffd x"


def _events(catalogue: ToolCatalogue, calls: list[tuple[str, str]], reason: str = "tool_calls") -> list[Any]:
    """Return the events of a response in which the model calls these functions with these arguments."""
    stage, transcript = ToolKindStage(catalogue), Transcript()
    events = ResponseEvents(new_response({"input": "x"}, "resp_1", 1795572458, "smol"), ANSWER_ID, transcript)
    deltas: list[Delta] = [OPENING]
    for index, (name, arguments) in enumerate(calls):
        deltas += [call_delta(index, name), *(arguments_delta(index, piece) for piece in _cut(arguments, 4))]
    told: list[Any] = events.begin()
    chunks: list[Chunk] = [*map(chunk, deltas), chunk({}, reason)]
    for each in chunks:
        for changed in stage.apply(each):
            transcript.add_chunk(changed)
            told += events.chunk(changed)
    told += events.complete(completed_at=1795572459)
    validate(list[ResponseStreamEvent], told)
    return told


def _kinds(told: list[Any]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in told[2:-1]]


def test_calls_come_back_as_the_items_of_their_kind() -> None:
    catalogue = response_catalogue(TOOLS)
    names = [tool.function["name"] for tool in catalogue.tools]
    assert names == ["look", "eyes__look", "eyes__draw", "note", "shell", "local_shell", "apply_patch", "tool_search"]
    patch = {"type": "update_file", "path": "a.py", "diff": "-a\n+b"}
    told = _events(
        catalogue,
        [
            ("look", "{}"),
            ("eyes__look", '{"at": 1}'),
            ("eyes__draw", '{"input": "a line"}'),
            ("note", '{"input": "two\\nlines"}'),
            ("shell", '{"commands": ["ls", "pwd"], "timeout_ms": 5}'),
            ("local_shell", '{"command": ["ls", "-l"], "working_directory": "/"}'),
            ("apply_patch", json.dumps(patch)),
            ("tool_search", '{"query": "mail"}'),
        ],
    )
    body = told[-1]["response"]
    validate(Response, json.dumps(body).encode())
    items = [{name: value for name, value in item.items() if name not in ("id", "call_id")} for item in body["output"]]
    done = {"status": "completed"}
    shell = {"commands": ["ls", "pwd"], "timeout_ms": 5, "max_output_length": None}
    local: Any = {"type": "exec", "command": ["ls", "-l"], "env": {}, "timeout_ms": None, "working_directory": "/",
             "user": None}  # fmt: skip
    assert items == [
        {"type": "function_call", "name": "look", "arguments": "{}", **done},
        {"type": "function_call", "name": "look", "namespace": "eyes", "arguments": '{"at": 1}', **done},
        {"type": "custom_tool_call", "name": "draw", "namespace": "eyes", "input": "a line", **done},
        {"type": "custom_tool_call", "name": "note", "input": "two\nlines", **done},
        {"type": "shell_call", "action": shell, "environment": None, **done},
        {"type": "local_shell_call", "action": local, **done},
        {"type": "apply_patch_call", "operation": patch, **done},
        {"type": "tool_search_call", "execution": "client", "arguments": {"query": "mail"}, **done},
    ]
    prefixes = [item["id"].split("_")[0] for item in body["output"]]
    assert prefixes == ["fc", "fc", "ctc", "ctc", "sh", "lsh", "apc", "tsc"]
    added = [event["item"] for event in told if event["type"] == "response.output_item.added"]
    assert all(item["status"] == "in_progress" for item in added)
    assert (added[3]["input"], added[4]["action"]["commands"], added[7]["arguments"]) == ("", [], {})


def test_events_are_those_of_the_kind() -> None:
    catalogue = response_catalogue(TOOLS)
    custom = _events(catalogue, [("note", '{"input": "hello there"}')])
    deltas = [event for event in custom if event["type"] == "response.custom_tool_call_input.delta"]
    assert "".join(event["delta"] for event in deltas) == "hello there"
    assert len(deltas) > 1
    assert _kinds(custom) == [
        *("output_item.added", *["custom_tool_call_input.delta"] * len(deltas)),
        *("custom_tool_call_input.done", "output_item.done"),
    ]
    shell = _events(catalogue, [("shell", '{"commands": ["ls"]}')])
    commands = [f"shell_call_command.{step}" for step in ("added", "delta", "done")]
    assert _kinds(shell) == ["output_item.added", *commands, "output_item.done"]
    patch = _events(catalogue, [("apply_patch", '{"type": "delete_file", "path": "a", "diff": ""}')])
    assert _kinds(patch) == ["output_item.added", "output_item.done"]
    assert patch[-1]["response"]["output"][0]["operation"] == {"type": "delete_file", "path": "a"}


@pytest.mark.parametrize(
    ("name", "arguments", "field", "value"),
    [
        ("note", '{"input": "half a', "input", "half a"),
        ("shell", '{"commands": ["rm -rf /tm', "action",
         {"commands": [], "timeout_ms": None, "max_output_length": None}),
    ],
)  # fmt: skip
def test_call_that_is_cut_off_is_incomplete_and_asks_for_no_half_command(
    name: str, arguments: str, field: str, value: Any
) -> None:
    told = _events(response_catalogue(TOOLS), [(name, arguments)], "length")
    assert told[-1]["type"] == "response.incomplete"
    (item,) = told[-1]["response"]["output"]
    assert (item["status"], item[field]) == ("incomplete", value)


def test_names_are_short_distinct_and_lead_back() -> None:
    tools: Any = [
        {"type": "namespace", "name": "n" * 100, "tools": [LOOK | {"name": "a" * 100}, LOOK | {"name": "b" * 100}]},
        LOOK | {"name": "x__look"},
        {"type": "namespace", "name": "x", "tools": [LOOK, LOOK]},
        LOOK | {"name": "shell"},
        {"type": "shell"},
        {"type": "custom", "name": "look"},
        LOOK,
        LOOK | {"name": "z" * 128},
    ]
    catalogue = response_catalogue(tools)
    names = [tool.function["name"] for tool in catalogue.tools]
    assert len(set(names)) == len(names) == 9
    assert all(len(name) <= 128 for name in names)
    assert names[-1] == "z" * 128
    assert names[2:4] != ["x__look", "x__look"]
    for tool in catalogue.tools:
        assert catalogue.function_name(tool.kind, tool.namespace, tool.name) == tool.function["name"]


def test_messages_for_the_model_have_functions_only() -> None:
    catalogue = chat_catalogue({"messages": [], "tools": [{"type": "custom", "custom": {"name": "note"}}]})
    assert catalogue is not None
    call: Any = {"id": "c1", "type": "custom", "custom": {"name": "note", "input": 'a "b"'}}
    shell: Any = {"id": "c2", "type": "function", "item": "shell_call",
                  "function": {"name": "shell", "arguments": '{"commands":["ls"]}'}}  # fmt: skip
    agent: Any = {"role": "user", "content": "Hi.", "item": "agent_message", "author": "a", "recipient": "b"}
    answer: Any = {"role": "assistant", "content": None, "tool_calls": [call, shell]}
    messages = catalogue.messages_for_model([answer, agent, {"role": "user", "content": "x"}])
    assert messages == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "note", "arguments": '{"input":"a \\"b\\""}'}},
                {"id": "c2", "type": "function", "function": {"name": "shell", "arguments": '{"commands":["ls"]}'}},
            ],
        },
        {"role": "user", "content": "Message from a to b:\nHi."},
        {"role": "user", "content": "x"},
    ]
    assert chat_catalogue({"messages": [{"role": "user", "content": "x"}], "tools": []}) is None


def test_agent_message_of_several_parts_and_a_call_of_a_foreign_form_are_read() -> None:
    parts: Any = [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}]
    agent: Any = {"role": "user", "content": parts, "item": "agent_message", "author": "a", "recipient": "b"}
    (message,) = ToolCatalogue().messages_for_model([agent])
    assert message == {"role": "user", "content": "Message from a to b:\nOne.\nTwo."}
    # As a conversation may be imported.
    imported: Any = {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "namespace": 5}]}
    (answer,) = ToolCatalogue().messages_for_model([imported])
    assert (answer["tool_calls"] or [])[0]["type"] == "function"
    (item,) = message_to_items(ANSWER_ID, imported)
    assert item.get("type") == "function_call"
