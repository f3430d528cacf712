"""llama.cpp's own response form: joined by index, limited to the requested fields, sent after recording."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from mistral_api.generation.llama_cpp_endpoint import COMPLETION, INFILL, shown_props
from mistral_api.generation.llama_cpp_renderer import NativeEvents, NativeTranscript, selected

LAST = {"content": "", "tokens": [], "stop": True, "stop_type": "eos", "tokens_evaluated": 5, "tokens_predicted": 2}


def _piece(index: int, text: str, token: int) -> dict[str, Any]:
    return {"index": index, "content": text, "tokens": [token], "stop": False}


def test_interleaved_native_chunks_are_joined_by_index() -> None:
    transcript = NativeTranscript(2)
    transcript.add_chunk({"index": 0, "content": "", "tokens": [0], "stop": False, "prompt_progress": {"total": 5}})
    for index, text, token in ((0, "a", 1), (1, "x", 7), (0, "b", 2), (1, "y", 8)):
        transcript.add_chunk(_piece(index, text, token))
    for index in (1, 0):
        transcript.add_chunk(LAST | {"index": index, "timings": {"cache_n": 3}})
    assert [(each["content"], each["tokens"]) for each in transcript.answers()] == [("ab", [1, 2]), ("xy", [7, 8])]
    tokens = transcript.settle()
    assert (tokens.prompt, tokens.cached, tokens.completion) == (5, 3, 4)
    assert transcript.finish_reason == "stop"


def test_last_native_event_is_sent_after_recording() -> None:
    passed: list[str] = []

    def relay() -> Iterator[bytes]:
        yield b"data: " + orjson.dumps(_piece(0, "a", 1)) + b"\n\n"
        yield b"data: " + orjson.dumps(LAST) + b"\n\n"
        passed.append("recorded")
        yield b"data: [DONE]\n\n"

    events = iter(NativeEvents(relay(), ["stop_type"]))
    assert b'"a"' in next(events)
    assert not passed
    assert next(events) == b'data: {"stop_type":"eos"}\n\n'
    assert passed == ["recorded"]
    assert list(events) == []


def test_response_fields_are_selected_by_path() -> None:
    answer = {"content": "a", "timings": {"cache_n": 3}, "stop": True}
    assert selected(answer, ["timings/cache_n", "content/length", "gone"]) == {"timings/cache_n": 3}
    assert selected(answer, None) is answer


def test_native_prompts_are_recorded_as_user_messages() -> None:
    def content(payload: dict[str, Any]) -> Any:
        return COMPLETION.messages(payload)[0]["content"]

    assert content({"prompt": "a"}) == "a"
    assert content({"prompt": ["a", [1, 2], {"prompt_string": "b", "multimodal_data": ["x" * 99]}]}) == [
        "a",
        [1, 2],
        "b",
    ]
    gap = {"input_prefix": "f(", "input_suffix": [7, ")"], "prompt": "x", "input_extra": [{"text": "e"}]}
    (message,) = INFILL.messages(gap)
    assert [part["text"] for part in message["content"]] == ["e", "f(x", "7 )"]


def test_props_for_remote_callers_omit_prompt_and_path() -> None:
    props = {"default_generation_settings": {"prompt": "secret", "n_ctx": 9}, "model_path": "/x", "total_slots": 1}
    assert shown_props(props) == {"default_generation_settings": {"n_ctx": 9}, "total_slots": 1}
