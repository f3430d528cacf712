"""The typed events of a streamed response: their order, their schema, and the final object they add up to."""

import random
from typing import Any, cast
from uuid import UUID

import pytest
from openai.types.responses import ResponseStreamEvent

from mistral_api.errors import ModelTimeout
from mistral_api.payload_types.completions import Chunk
from mistral_api.payload_types.responses import Response, ResponseEvent, ResponsePayload
from mistral_api.responses.prepared_response import PreparedResponse
from mistral_api.responses.response_object import ResponseOutput, complete_response, new_response
from mistral_api.responses.response_renderer import ResponseRenderer
from mistral_api.responses.stored_responses import StoredContext
from mistral_api.responses.stream_events import ResponseEvents
from mistral_api.upstream.sse import event_data
from mistral_api.upstream.transcript import Transcript
from tests.support import chat_chunks
from tests.support.chat_chunks import (
    ANSWER_DELTAS,
    CALL_DELTAS,
    REASONING_DELTAS,
    TEXT_DELTAS,
    chunk,
    chunk_stream,
    split_deltas,
    take_chunks,
    token_logprob,
)
from tests.support.openai_schemas import validate

ANSWER_ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
HEX = ANSWER_ID.hex
BEGIN = ["response.created", "response.in_progress"]
REASONING = [
    "response.output_item.added", "response.content_part.added", "response.reasoning_text.delta",
    "response.reasoning_text.delta", "response.reasoning_text.done", "response.content_part.done",
    "response.output_item.done",
]  # fmt: skip
MESSAGE = [
    "response.output_item.added", "response.content_part.added", *["response.output_text.delta"] * 3,
    "response.output_text.done", "response.content_part.done", "response.output_item.done",
]  # fmt: skip
CALLS = [
    "response.output_item.added", *["response.function_call_arguments.delta"] * 2,
    "response.function_call_arguments.done", "response.output_item.done",
    "response.output_item.added", "response.function_call_arguments.delta",
    "response.function_call_arguments.done", "response.output_item.done",
]  # fmt: skip


def _new_events(**request: Any) -> ResponseEvents:
    return ResponseEvents(
        new_response(cast("ResponsePayload", {"input": "Hello", **request}), "resp_1", 1795572458, "smol"),
        ANSWER_ID,
        Transcript(),
    )


def _all_events(chunks: list[Chunk], **request: Any) -> list[Any]:
    events = _new_events(**request)
    return [*events.begin(), *take_chunks(events, chunks), *events.complete(completed_at=1795572460)]


def _types(told: list[ResponseEvent]) -> list[str]:
    return [event["type"] for event in told]


def _final_response(chunks: list[Chunk]) -> Response:
    """Return the response made of the same chunks without events."""
    transcript = Transcript()
    for each in chunks:
        transcript.add_chunk(each)
    choice = transcript.choices[0]
    answer = ResponseOutput(ANSWER_ID, choice.answer, choice.finish_reason, transcript.count_tokens())
    return complete_response(
        new_response({"input": "Hello"}, "resp_1", 1795572458, "smol"), answer, completed_at=1795572460
    )


def test_response_items_are_closed_before_the_next_one_opens() -> None:
    told = _all_events(chunk_stream(REASONING_DELTAS + TEXT_DELTAS + CALL_DELTAS, "tool_calls"))
    assert _types(told) == [*BEGIN, *REASONING, *MESSAGE, *CALLS, "response.completed"]
    indexes = [event["output_index"] for event in told if "output_index" in event]
    assert indexes == sorted(indexes)
    assert set(indexes) == {0, 1, 2, 3}
    assert {event["content_index"] for event in told if "content_index" in event} == {0}
    named = [event["item_id"] for event in told if event["type"].endswith(("text.done", "arguments.done"))]
    assert named == [f"rs_{HEX}", f"msg_{HEX}", f"fc_{HEX}_0", f"fc_{HEX}_1"]


@pytest.mark.parametrize("name", ANSWER_DELTAS)
def test_response_events_are_valid_and_numbered_without_gaps(name: str) -> None:
    told = _all_events(chunk_stream(ANSWER_DELTAS[name]))
    validate(list[ResponseStreamEvent], told)
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    assert _types(told)[:2] == BEGIN


@pytest.mark.parametrize("finish_reason", ["stop", "length"])
@pytest.mark.parametrize("name", ANSWER_DELTAS)
def test_response_deltas_and_done_items_add_up_to_the_final_response(name: str, finish_reason: str) -> None:
    chunks = chunk_stream(ANSWER_DELTAS[name], finish_reason)
    told, final = _all_events(chunks), _final_response(chunks)
    assert told[-1]["response"] == final
    assert told[-1]["type"] == f"response.{final['status']}"
    closed = {event["item"]["id"]: event["item"] for event in told if event["type"] == "response.output_item.done"}
    last = final["output"][-1]["id"]
    assert {item["id"]: item | {"status": "completed"} for item in final["output"]} == {
        item_id: item | {"status": "completed"} for item_id, item in closed.items()
    }
    if name != "coming-back":  # there the truncated item is not the last one of the answer
        assert closed[last]["status"] == final["output"][-1]["status"]
    for item in final["output"]:
        assert _item_text(item) == "".join(event["delta"] for event in told if event.get("item_id") == item["id"]
                                      and event["type"].endswith(".delta"))  # fmt: skip


def _item_text(item: Any) -> str:
    return str(item.get("arguments") or "".join(part.get("text") or part.get("refusal") or ""
                                                for part in item.get("content", ())))  # fmt: skip


@pytest.mark.parametrize("name", ANSWER_DELTAS)
def test_final_response_does_not_depend_on_how_chunks_are_split(name: str) -> None:
    dice, final = random.Random(name), _final_response(chunk_stream(ANSWER_DELTAS[name]))
    for _ in range(30):
        told = _all_events(chunk_stream(split_deltas(ANSWER_DELTAS[name], dice)))
        assert told[-1]["response"] == final
        added = [event["item"]["id"] for event in told if event["type"] == "response.output_item.added"]
        assert sorted(added) == sorted(item["id"] for item in final["output"])


def test_added_items_are_empty_and_keep_their_call_id() -> None:
    told = _all_events(chunk_stream(REASONING_DELTAS + TEXT_DELTAS + CALL_DELTAS))
    added = [event["item"] for event in told if event["type"] == "response.output_item.added"]
    assert [item["status"] for item in added] == ["in_progress"] * 4
    assert [item["content"] for item in added[:2]] == [[], []]
    assert [(item["call_id"], item["name"], item["arguments"]) for item in added[2:]] == [
        ("call_0", "weather", ""),
        ("call_1", "weather", ""),
    ]


def test_empty_response_stream_still_has_a_message_item() -> None:
    told = _all_events(chunk_stream([]))
    expected = [kind for kind in MESSAGE if not kind.endswith(".delta")]
    assert _types(told) == [*BEGIN, *expected, "response.completed"]


def test_reopened_response_item_continues_and_is_closed_again() -> None:
    told = _all_events(chunk_stream([*TEXT_DELTAS, *CALL_DELTAS, {"content": " Done."}]))
    added = [event for event in told if event["type"] in ("response.output_item.added", "response.content_part.added")]
    assert len(added) == 4
    texts = [event["text"] for event in told if event["type"] == "response.output_text.done"]
    assert texts == ["Hello, wörld!", "Hello, wörld! Done."]


def test_log_probabilities_are_sent_only_with_text_deltas() -> None:
    chunks = chunk_stream([])
    chunks[2:2] = [
        chunk(chat_chunks.reasoning_delta("Hm"), logprobs=[token_logprob("Hm", 20)]),
        chunk(chat_chunks.text_delta("Hi"), logprobs=[token_logprob("Hi", 20)]),
    ]
    told = _all_events(chunks, top_logprobs=1, include=["message.output_text.logprobs"])
    validate(list[ResponseStreamEvent], told)
    plain = {"token": "Hi", "bytes": [72, 105], "logprob": -0.5}
    shown = [plain | {"top_logprobs": [plain]}]
    assert [event["logprobs"] for event in told if "logprobs" in event] == [shown, shown]
    assert told[-1]["response"]["output"][1]["content"][0]["logprobs"] == shown


def test_background_response_stream_is_queued_until_it_starts() -> None:
    events = _new_events(background=True)
    told = events.begin() + events.start()
    assert _types(told) == ["response.created", "response.queued", "response.in_progress"]
    assert [event["response"]["status"] for event in told] == ["queued", "queued", "in_progress"]
    validate(list[ResponseStreamEvent], told)


def test_failed_response_stream_has_an_error_event_and_then_response_failed() -> None:
    events = _new_events()
    told = [*events.begin(), *events.chunk(chunk({"content": "Hel"})), *events.fail(ModelTimeout("Too slow."))]
    error, last = told[-2:]
    assert error == {
        "type": "error", "code": "model_timeout", "message": "Too slow.", "param": None,
        "sequence_number": len(told) - 2,
    }  # fmt: skip
    assert (last["type"], last["sequence_number"]) == ("response.failed", len(told) - 1)
    assert last["response"] == events.response
    validate(list[ResponseStreamEvent], told)


def test_cancelled_response_stream_ends_with_the_status_cancelled() -> None:
    events = _new_events(background=True)
    told = [*events.begin(), *events.start(), *events.cancel()]
    validate(list[ResponseStreamEvent], told)
    assert (told[-1]["type"], told[-1]["response"]["status"]) == ("response.incomplete", "cancelled")
    assert events.response["status"] == "cancelled"


def test_response_event_is_encoded_under_its_type() -> None:
    response = new_response({"input": "Hello"}, "resp_1", 1795572458, "smol")
    prepared = PreparedResponse({}, StoredContext("sess_1"), [], response, [], ANSWER_ID)
    created, _ = ResponseRenderer(Transcript(), prepared).first_events().removesuffix(b"\n\n").split(b"\n\n")
    head, data = created.split(b"\n")
    assert head == b"event: response.created"
    assert event_data(data) == _new_events().begin()[0]
