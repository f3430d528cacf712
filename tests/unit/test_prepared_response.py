"""The messages that the model reads for a response."""

from __future__ import annotations

from typing import Any

import pytest

from mistral_api.payload_types.chat import ChatMessage
from mistral_api.payload_types.responses import ResponsePayload
from mistral_api.responses.prepared_response import parse_input_items, prepare_response
from mistral_api.responses.stored_responses import StoredContext
from mistral_api.system.identifiers import new_id

QUESTION: ChatMessage = {"role": "user", "content": "Weather?"}
UNFINISHED_CALL: ChatMessage = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city'}}],
}
RESULT: ChatMessage = {"role": "tool", "tool_call_id": "call_1", "content": "rain"}


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("And now?", [QUESTION, {"role": "user", "content": "And now?"}]),
        ([], [QUESTION]),
        (
            [{"type": "function_call_output", "call_id": "call_1", "output": "rain"}],
            [QUESTION, UNFINISHED_CALL, RESULT],
        ),
    ],
    ids=["left open", "nothing new", "answered"],
)
def test_unfinished_call_of_an_incomplete_response_is_omitted_from_the_prompt(
    given: Any, read: list[ChatMessage]
) -> None:
    request: ResponsePayload = {"input": given, "instructions": "Be brief."}
    ready = prepare_response(
        request,
        parse_input_items(request),
        StoredContext("sess_1", new_id(), [QUESTION, UNFINISHED_CALL], "incomplete"),
        "m",
    )
    assert ready.messages == [{"role": "system", "content": "Be brief."}, *read]
