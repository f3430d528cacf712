"""The response stream reader of the openai package, fed with our events over a socket."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from uuid import UUID

import orjson
import pytest
from openai import OpenAI
from openai.lib.streaming.responses import ResponseStreamEvent
from openai.types.responses import ParsedResponse
from pydantic import BaseModel

from mistral_api.errors import ModelTimeout
from mistral_api.payload_types.completions import Delta
from mistral_api.payload_types.responses import ResponseEvent, ResponsePayload
from mistral_api.responses.response_object import new_response
from mistral_api.responses.stream_events import ResponseEvents
from mistral_api.upstream.transcript import Transcript
from tests.support.chat_chunks import (
    ANSWER_DELTAS,
    CALL_DELTAS,
    REASONING_DELTAS,
    TEXT_DELTAS,
    chunk_stream,
    take_chunks,
    text_delta,
)

ANSWER_ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")


class Person(BaseModel):
    """The type that the answer is parsed into."""

    name: str
    age: int


@contextmanager
def _client_of(told: list[ResponseEvent]) -> Iterator[OpenAI]:
    """Yield a client of a server that responds to every request with these events."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            for event in told:
                self.wfile.write(b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps(event)))

        def log_message(self, *_arguments: Any) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}/v1"
    with OpenAI(base_url=address, api_key="unused", max_retries=0, timeout=10) as client:
        yield client
    server.shutdown()
    thread.join(timeout=10)
    server.server_close()


def _events(deltas: list[Delta], finish_reason: str = "stop", **request: Any) -> list[ResponseEvent]:
    events = ResponseEvents(
        new_response(cast("ResponsePayload", {"input": "Hello", **request}), "resp_1", 1795572458, "smol"),
        ANSWER_ID,
        Transcript(),
    )
    return events.begin() + take_chunks(events, chunk_stream(deltas, finish_reason)) + events.complete()


def _read_stream(
    told: list[ResponseEvent], **options: Any
) -> tuple[list[ResponseStreamEvent[Any]], ParsedResponse[Any]]:
    """Return the events as the package gives them to a program, and the response it has assembled."""
    with _client_of(told) as client, client.responses.stream(model="smol", input="Hello", **options) as reading:
        return list(reading), reading.get_final_response()


@pytest.mark.parametrize("name", ANSWER_DELTAS)
def test_openai_client_assembles_the_streamed_response(name: str) -> None:
    told = _events(ANSWER_DELTAS[name])
    read, final = _read_stream(told)
    assert [event.type for event in read] == [event["type"] for event in told]
    shown = final.to_dict()
    assert shown["id"] == "resp_1"
    assert [_without_parsed_fields(item) for item in shown["output"]] == told[-1]["response"]["output"]  # type: ignore[attr-defined]


def _without_parsed_fields(item: dict[str, Any]) -> dict[str, Any]:
    """Return an item without the fields that the package adds."""
    content = item.get("content")
    kept = {name: value for name, value in item.items() if name != "parsed_arguments"}
    if not isinstance(content, list):
        return kept
    return kept | {"content": [{name: part[name] for name in part if name != "parsed"} for part in content]}


def test_openai_client_text_snapshot_grows_with_every_delta() -> None:
    read, final = _read_stream(_events(REASONING_DELTAS + TEXT_DELTAS))
    snapshots = [event.snapshot for event in read if event.type == "response.output_text.delta"]
    assert snapshots == ["Hello", "Hello, wörld", "Hello, wörld!"]
    assert final.output_text == "Hello, wörld!"


def test_openai_client_keeps_arguments_of_parallel_calls_apart() -> None:
    read, final = _read_stream(_events(CALL_DELTAS, "tool_calls"))
    grown = {event.output_index: event.snapshot for event in read
             if event.type == "response.function_call_arguments.delta"}  # fmt: skip
    assert grown == {0: '{"city": "Paris"}', 1: '{"city": "Rome"}'}
    assert [item.call_id for item in final.output if item.type == "function_call"] == ["call_0", "call_1"]


def test_openai_client_parses_a_json_answer() -> None:
    told = _events([text_delta('{"name": "Ada", '), text_delta('"age": 36}')])
    _, final = _read_stream(told, text_format=Person)
    assert final.output_parsed == Person(name="Ada", age=36)


def test_openai_client_gets_a_truncated_answer_as_an_incomplete_response() -> None:
    with _client_of(_events(TEXT_DELTAS, "length")) as client:
        last = list(client.responses.create(model="smol", input="Hello", stream=True))[-1]
    assert last.type == "response.incomplete"
    assert last.response.incomplete_details is not None
    assert last.response.incomplete_details.reason == "max_output_tokens"
    assert last.response.output_text == "Hello, wörld!"


def test_openai_client_gets_a_failure_as_an_error_event_and_a_failed_response() -> None:
    events = ResponseEvents(new_response({"input": "Hello"}, "resp_1", 1795572458, "smol"), ANSWER_ID, Transcript())
    told = events.begin() + events.fail(ModelTimeout("Too slow."))
    with _client_of(told) as client:
        error, last = list(client.responses.create(model="smol", input="Hello", stream=True))[-2:]
    assert error.type == "error"
    assert (error.code, error.message) == ("model_timeout", "Too slow.")
    assert last.type == "response.failed"
    assert last.response.status == "failed"
