"""The openai package's own reader of response streams, fed with our events over a socket."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import UUID

import orjson
import pytest
from openai import OpenAI
from openai.lib.streaming.responses import ResponseStreamEvent
from openai.types.responses import ParsedResponse
from pydantic import BaseModel

from mistral_api.errors import ModelTimeout
from mistral_api.responses.response_object import new_response
from mistral_api.responses.stream_events import Event, ResponseEvents
from mistral_api.upstream.transcript import Transcript
from tests.support.chat_chunks import ANSWERS, CALLING, TALKING, THINKING, stream, take_chunks, text

ANSWER_ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")


class Person(BaseModel):
    """What the model is asked for."""

    name: str
    age: int


@contextmanager
def _serving(told: list[Event]) -> Iterator[OpenAI]:
    """A client of a server that answers every request with these events."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            for event in told:
                self.wfile.write(b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps(event)))

        def log_message(self, *_arguments: Any) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}/v1"
    with OpenAI(base_url=address, api_key="unused", max_retries=0, timeout=10) as client:
        yield client
    server.shutdown()
    thread.join(timeout=10)
    server.server_close()


def _events(deltas: list[dict[str, Any]], finish_reason: str = "stop", **request: Any) -> list[Event]:
    events = ResponseEvents(
        new_response({"input": "Hello", **request}, "resp_1", 1795572458, "smol"), ANSWER_ID, Transcript()
    )
    return events.begin() + take_chunks(events, stream(deltas, finish_reason)) + events.complete()


def _read(told: list[Event], **options: Any) -> tuple[list[ResponseStreamEvent[Any]], ParsedResponse[Any]]:
    """All the events as the package gives them to a program, and the response it has put together."""
    with _serving(told) as client, client.responses.stream(model="smol", input="Hello", **options) as reading:
        return list(reading), reading.get_final_response()


@pytest.mark.parametrize("name", ANSWERS)
def test_the_package_puts_the_response_together(name: str) -> None:
    told = _events(ANSWERS[name])
    read, final = _read(told)
    assert [event.type for event in read] == [event["type"] for event in told]
    shown = final.to_dict()
    assert shown["id"] == "resp_1"
    assert [_plain(item) for item in shown["output"]] == told[-1]["response"]["output"]  # type: ignore[attr-defined]


def _plain(item: dict[str, Any]) -> dict[str, Any]:
    """An item without what the package adds to it."""
    content = item.get("content")
    kept = {name: value for name, value in item.items() if name != "parsed_arguments"}
    if not isinstance(content, list):
        return kept
    return kept | {"content": [{name: part[name] for name in part if name != "parsed"} for part in content]}


def test_text_grows_with_every_delta() -> None:
    read, final = _read(_events(THINKING + TALKING))
    snapshots = [event.snapshot for event in read if event.type == "response.output_text.delta"]
    assert snapshots == ["Hello", "Hello, wörld", "Hello, wörld!"]
    assert final.output_text == "Hello, wörld!"


def test_arguments_of_parallel_calls_grow_apart() -> None:
    read, final = _read(_events(CALLING, "tool_calls"))
    grown = {event.output_index: event.snapshot for event in read
             if event.type == "response.function_call_arguments.delta"}  # fmt: skip
    assert grown == {0: '{"city": "Paris"}', 1: '{"city": "Rome"}'}
    assert [item.call_id for item in final.output if item.type == "function_call"] == ["call_0", "call_1"]


def test_an_answer_in_json_is_parsed() -> None:
    told = _events([text('{"name": "Ada", '), text('"age": 36}')])
    _, final = _read(told, text_format=Person)
    assert final.output_parsed == Person(name="Ada", age=36)


def test_an_answer_that_was_cut_off_comes_as_an_incomplete_response() -> None:
    with _serving(_events(TALKING, "length")) as client:
        last = list(client.responses.create(model="smol", input="Hello", stream=True))[-1]
    assert last.type == "response.incomplete"
    assert last.response.incomplete_details is not None
    assert last.response.incomplete_details.reason == "max_output_tokens"
    assert last.response.output_text == "Hello, wörld!"


def test_a_failure_comes_as_an_error_and_a_failed_response() -> None:
    events = ResponseEvents(new_response({"input": "Hello"}, "resp_1", 1795572458, "smol"), ANSWER_ID, Transcript())
    told = events.begin() + events.fail(ModelTimeout("Too slow."))
    with _serving(told) as client:
        error, last = list(client.responses.create(model="smol", input="Hello", stream=True))[-2:]
    assert error.type == "error"
    assert (error.code, error.message) == ("model_timeout", "Too slow.")
    assert last.type == "response.failed"
    assert last.response.status == "failed"
