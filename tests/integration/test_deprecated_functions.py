"""The deprecated ``functions`` field, for programs that never moved to tools."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
import requests
from openai import OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.support.openai_schemas import validate
from tests.support.processes import Server
from tests.support.stream_events import read_chunks

CLOCK = {
    "name": "clock",
    "parameters": {"type": "object", "properties": {"zone": {"enum": ["utc"]}}, "required": ["zone"]},
}
CALLED = {"role": "assistant", "content": None, "function_call": {"name": "clock", "arguments": "{}"}}
BODY: dict[str, Any] = {
    "messages": [
        {"role": "user", "content": "What time is it?"},
        CALLED,
        {"role": "function", "name": "clock", "content": "noon"},
        {"role": "user", "content": "And now?"},
    ],
    "functions": [CLOCK],
    "max_tokens": 40,
    "temperature": 0,
}


@pytest.mark.parametrize("stream", [False, True])
def test_named_function_call_has_the_deprecated_form(
    server: Server, http: requests.Session, session_id: str, stream: bool
) -> None:
    body = BODY | {"function_call": {"name": "clock"}, "stream": stream, "session_id": session_id}
    answer = http.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
    if stream:
        chunks = [validate(ChatCompletionChunk, chunk) for chunk in read_chunks(answer)]
        calls = [chunk.choices[0].delta.function_call for chunk in chunks]
        made = {"name": "".join(call.name or "" for call in calls if call),
                "arguments": "".join(call.arguments or "" for call in calls if call)}  # fmt: skip
    else:
        (choice,) = validate(ChatCompletion, answer.content).choices
        assert choice.message.function_call
        assert (choice.message.content, choice.message.tool_calls, choice.finish_reason) == (None, None, "stop")
        made = choice.message.function_call.model_dump()
    assert (made["name"], orjson.loads(made["arguments"])) == ("clock", {"zone": "utc"})
    recorded = server.stored_messages(session_id)
    assert (recorded[1]["function_call"], recorded[-1]["function_call"]) == (CALLED["function_call"], made)


def test_functions_without_a_forced_call_leave_a_plain_completion(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="SmolLM2-135M-Instruct.Q4_1", **BODY | {"max_tokens": 2})
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "length"
