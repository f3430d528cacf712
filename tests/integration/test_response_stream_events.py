"""Response events made from chunks of the real model server."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
import requests
from openai.types.responses import ResponseStreamEvent

from mistral_api.generation.plan import upstream_payload
from mistral_api.responses.prepared_response import chat_payload
from mistral_api.responses.response_object import new_response
from mistral_api.responses.stream_events import ResponseEvents
from mistral_api.system.identifiers import new_id
from mistral_api.upstream.sse import event_data, split_events
from mistral_api.upstream.transcript import Transcript
from mistral_api.wire import load
from mistral_api.wire.responses import ResponseRequest
from tests.support.chat_chunks import take_chunks
from tests.support.openai_schemas import validate
from tests.support.processes import Server

Event = dict[str, Any]
SCHEMA = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}


def _response_events(server: Server, http: requests.Session, **asked: Any) -> list[Event]:
    """Return all events of a response to this request."""
    request = load(ResponseRequest(), {"temperature": 0, "max_output_tokens": 16, "input": "Say hi."} | asked)
    payload = chat_payload(request, [{"role": "user", "content": str(request["input"])}])
    address = f"{server.model_url}/v1/chat/completions"
    body = upstream_payload(payload, llama_cpp=True)
    answer = http.post(address, json=body, headers=server.model_key, timeout=60)
    assert answer.status_code == 200, answer.text
    events = ResponseEvents(new_response(request, "resp_1", 1795572458, "smol"), new_id(), Transcript())
    chunks = filter(None, map(event_data, split_events(answer.content)))
    told: list[Any] = [*events.begin(), *take_chunks(events, chunks), *events.complete()]
    validate(list[ResponseStreamEvent], told)
    return told


def test_response_events_carry_text_and_log_probabilities(server: Server, http: requests.Session) -> None:
    told = _response_events(server, http, top_logprobs=2, include=["message.output_text.logprobs"])
    final = told[-1]["response"]
    deltas = [event for event in told if event["type"] == "response.output_text.delta"]
    part = final["output"][0]["content"][0]
    assert part["text"] == "".join(event["delta"] for event in deltas) != ""
    assert part["logprobs"] == [each for event in deltas for each in event["logprobs"]]
    assert {len(each["top_logprobs"]) for each in part["logprobs"]} == {2}
    assert final["usage"]["output_tokens"] == 16
    assert final["usage"]["input_tokens"] > 0
    assert (told[-1]["type"], final["output"][0]["status"]) == ("response.incomplete", "incomplete")


@pytest.mark.parametrize("strict", [True, None])
def test_response_text_format_constrains_the_output(
    server: Server, http: requests.Session, strict: bool | None
) -> None:
    text = {"format": {"type": "json_schema", "name": "number", "schema": SCHEMA, "strict": strict}}
    told = _response_events(server, http, text=text, max_output_tokens=40)
    assert told[-1]["type"] == "response.completed"
    assert orjson.loads(told[-1]["response"]["output"][0]["content"][0]["text"])["n"] in (1, 2)
