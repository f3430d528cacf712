"""Tools of all kinds through the openai package, before an engine that calls what a test wants."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests
from openai import OpenAI
from openai.types.responses import (
    ResponseApplyPatchToolCall,
    ResponseFunctionShellToolCall,
    ResponseFunctionToolCall,
    ResponseStreamEvent,
    ResponseToolSearchCall,
)
from openai.types.responses.response_output_item import LocalShellCall

from tests.support.openai_clients import openai_client
from tests.support.openai_schemas import validate
from tests.support.processes import Server, wait_for
from tests.support.scripted_engine import MODEL, ScriptedEngine, call_tool, say, tool_results

pytestmark = pytest.mark.clients

SEARCH: Any = {"type": "tool_search", "execution": "client", "parameters": {"type": "object"}}
LOOK: Any = {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": False}
EXITED: Any = {"type": "exit", "exit_code": 0}


@pytest.mark.parametrize(
    ("tool", "name", "arguments", "item_type", "output"),
    [
        ({"type": "shell"}, "shell", {"commands": ["ls", "pwd"]}, ResponseFunctionShellToolCall,
         {"type": "shell_call_output", "output": [{"stdout": "a.py", "stderr": "", "outcome": EXITED}]}),
        ({"type": "local_shell"}, "local_shell", {"command": ["ls"]}, LocalShellCall,
         {"type": "local_shell_call_output", "output": "a.py"}),
        ({"type": "apply_patch"}, "apply_patch", {"type": "create_file", "path": "a.py", "diff": "+1"},
         ResponseApplyPatchToolCall, {"type": "apply_patch_call_output", "status": "completed", "output": "a.py"}),
        (SEARCH, "tool_search", {"query": "eyes"}, ResponseToolSearchCall,
         {"type": "tool_search_output", "execution": "client", "status": "completed",
          "tools": [{"type": "namespace", "name": "eyes", "description": "a.py", "tools": [LOOK]}]}),
        ({"type": "namespace", "name": "eyes", "description": "Eyes.", "tools": [LOOK]}, "eyes__look", {"at": 1},
         ResponseFunctionToolCall, {"type": "function_call_output", "output": "a.py"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_call_comes_as_its_item_and_its_output_reaches_the_model(
    scripted: tuple[Server, ScriptedEngine], tool: Any, name: str, arguments: Any, item_type: type, output: Any
) -> None:
    server, engine = scripted
    engine.script = lambda body: say("Done.") if tool_results(body) else call_tool(name, arguments)
    with openai_client(server) as client:
        stream = client.responses.create(model=MODEL, input=f"Call {name}.", tools=[tool], stream=True)
        events = [event.to_dict() for event in stream]
        validate(list[ResponseStreamEvent], events)
        final: Any = events[-1]["response"]
        found = client.responses.retrieve(final["id"])
        (item,) = found.output
        assert isinstance(item, item_type)
        assert item.to_dict() == final["output"][0]
        result = output | {"call_id": final["output"][0]["call_id"]}
        answered = client.responses.create(
            model=MODEL, input=[result], previous_response_id=found.id, tools=[tool], background=True
        )
        done = wait_for(lambda: _completed(client, answered.id), "the end of the response")
        assert done.output_text.strip() == "Done."
        session = (done.model_extra or {})["session_id"]
        kinds = [each.type for each in client.conversations.items.list(session, order="asc").data]
        assert kinds == ["message", item.type, output["type"], "message"]
    (text,) = tool_results(engine.bodies[-1])
    assert ("eyes__look" if tool is SEARCH else "a.py") in text
    assert name in [each["function"]["name"] for each in engine.bodies[-1]["tools"]]
    (call,) = [each for message in engine.bodies[-1]["messages"] for each in message.get("tool_calls") or []]
    assert call["function"]["name"] == name
    assert json.loads(call["function"]["arguments"]) == arguments


def _completed(client: OpenAI, response_id: str) -> Any:
    response = client.responses.retrieve(response_id)
    return response if response.status == "completed" else None


def test_conversation_of_a_client_that_stores_nothing_is_kept_where_the_owner_wants_it(
    scripted: tuple[Server, ScriptedEngine],
) -> None:
    server, engine = scripted
    engine.script = lambda _body: say("Hello.")
    body = {"input": "Hello!", "store": False}
    made = requests.post(f"{server.url}/v1/responses", json=body, timeout=30).json()
    assert [message["role"] for message in server.stored_messages(made["session_id"])] == ["user", "assistant"]
    assert requests.get(f"{server.url}/v1/responses/{made['id']}", timeout=10).status_code == 404
    follow = {"input": "And?", "previous_response_id": made["id"]}
    assert requests.post(f"{server.url}/v1/responses", json=follow, timeout=30).status_code == 400
    chat = {"messages": [{"role": "user", "content": "Hi."}], "store": False}
    answered = requests.post(f"{server.url}/v1/chat/completions", json=chat, timeout=30).json()
    assert len(server.stored_messages(answered["session_id"])) == 2
    assert requests.get(f"{server.url}/v1/chat/completions/{answered['id']}", timeout=10).status_code == 404
