"""Tools that are no functions, on the real engine: their calls come back as the items of their kind."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from openai import OpenAI
from openai.types.responses import (
    Response,
    ResponseApplyPatchToolCall,
    ResponseCustomToolCall,
    ResponseFunctionShellToolCall,
    ResponseStreamEvent,
    ResponseToolSearchCall,
)
from openai.types.responses.response_output_item import LocalShellCall

from tests.support.openai_schemas import validate
from tests.support.processes import Server

LOOK: Any = {
    "type": "function", "name": "look", "strict": False,
    "parameters": {"type": "object", "properties": {"at": {"enum": ["left"]}}, "required": ["at"]},
}  # fmt: skip
NOTE: Any = {"type": "custom", "name": "note", "description": "Takes a note."}
SPACE: Any = {"type": "namespace", "name": "eyes", "description": "What eyes do.", "tools": [LOOK]}
SHORT: dict[str, Any] = {"temperature": 0, "max_output_tokens": 60}


def _forced(client: OpenAI, model: str, tool: Any, choice: Any, **fields: Any) -> Response:
    return client.responses.create(model=model, input="Do it.", tools=[tool], tool_choice=choice, **(SHORT | fields))


def test_call_of_a_custom_tool_is_streamed_stored_and_answered(
    client: OpenAI, http: requests.Session, server: Server, model: str
) -> None:
    stream = client.responses.create(
        model=model, input="Write 'hello'.", tools=[NOTE], tool_choice={"type": "custom", "name": "note"}, stream=True,
        **SHORT,
    )  # fmt: skip
    events = [event.to_dict() for event in stream]
    validate(list[ResponseStreamEvent], events)
    kinds = [event["type"] for event in events]
    assert kinds[2] == "response.output_item.added"
    deltas = [event["delta"] for event in events if event["type"] == "response.custom_tool_call_input.delta"]
    (done,) = [event for event in events if event["type"] == "response.custom_tool_call_input.done"]
    final: Any = events[-1]["response"]
    (item,) = final["output"]
    assert item["type"] == "custom_tool_call"
    assert item["input"] == done["input"] == "".join(map(str, deltas))
    found = client.responses.retrieve(final["id"])
    assert isinstance(found.output[0], ResponseCustomToolCall)
    output: Any = {"type": "custom_tool_call_output", "call_id": item["call_id"], "output": "noted"}
    answered = client.responses.create(
        model=model, input=[output], previous_response_id=final["id"], tools=[NOTE], tool_choice="none", **SHORT
    )
    (sent,) = client.responses.input_items.list(answered.id).data
    assert (sent.type, sent.model_dump()["output"]) == ("custom_tool_call_output", "noted")
    session = (answered.model_extra or {})["session_id"]
    items = client.conversations.items.list(session, order="asc").data
    assert [each.type for each in items] == ["message", "custom_tool_call", "custom_tool_call_output", "message"]


def test_cut_off_custom_call_is_incomplete(client: OpenAI, model: str) -> None:
    response = _forced(
        client, model, NOTE, {"type": "custom", "name": "note"}, max_output_tokens=16, input="Count to 100."
    ) if False else client.responses.create(
        model=model, input="Count to 100, as long as you can.", tools=[NOTE | {"description": "x " * 20}],
        tool_choice="required", temperature=0, max_output_tokens=16,
    )  # fmt: skip
    (item,) = response.output
    assert item.type == "custom_tool_call"
    assert response.status == "incomplete"
    assert item.to_dict()["status"] == "incomplete"


@pytest.mark.parametrize(
    ("tool", "kind", "item_type"),
    [
        ({"type": "shell"}, "shell", ResponseFunctionShellToolCall),
        ({"type": "local_shell"}, "local_shell", LocalShellCall),
        ({"type": "apply_patch"}, "apply_patch", ResponseApplyPatchToolCall),
        (
            {"type": "tool_search", "execution": "client", "description": "Find tools."},
            "tool_search",
            ResponseToolSearchCall,
        ),
    ],
)
def test_calls_of_tools_without_a_name_come_as_their_items(
    client: OpenAI, model: str, tool: Any, kind: str, item_type: type
) -> None:
    response = client.responses.create(
        model=model, input="List the files.", tools=[tool], tool_choice={"type": kind}, temperature=0,
        max_output_tokens=400,
    )  # fmt: skip
    (item,) = response.output
    assert isinstance(item, item_type)
    print(response.to_json())
