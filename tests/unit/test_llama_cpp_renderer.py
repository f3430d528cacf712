"""llama.cpp's own response form: joined by index, limited to the requested fields, sent after recording."""

from __future__ import annotations

from typing import Any, cast

from mistral_api.generation.llama_cpp_endpoint import INFILL, LLAMA_CPP_COMPLETION, public_props
from mistral_api.generation.llama_cpp_renderer import LlamaCppRenderer, LlamaCppTranscript, select_fields
from mistral_api.payload_types.chat import ChatPayload
from mistral_api.payload_types.completions import Chunk, LlamaCppEvent
from mistral_api.upstream.sse import EventBatch, StreamEvent, encode_event

LAST: LlamaCppEvent = {
    "content": "",
    "tokens": [],
    "stop": True,
    "stop_type": "eos",
    "tokens_evaluated": 5,
    "tokens_predicted": 2,
}


def _piece(index: int, text: str, token: int) -> LlamaCppEvent:
    return {"index": index, "content": text, "tokens": [token], "stop": False}


def _add(transcript: LlamaCppTranscript, event: LlamaCppEvent) -> None:
    transcript.add_chunk(cast("Chunk", event))


def test_interleaved_native_chunks_are_joined_by_index() -> None:
    transcript = LlamaCppTranscript(2)
    _add(transcript, {"index": 0, "content": "", "tokens": [0], "stop": False, "prompt_progress": {"total": 5}})
    for index, text, token in ((0, "a", 1), (1, "x", 7), (0, "b", 2), (1, "y", 8)):
        _add(transcript, _piece(index, text, token))
    for index in (1, 0):
        _add(transcript, LAST | {"index": index, "timings": {"cache_n": 3}})
    assert [(each["content"], each["tokens"]) for each in transcript.bodies()] == [
        ("ab", [1, 2]),
        ("xy", [7, 8]),
    ]
    tokens = transcript.count_tokens()
    assert (tokens.prompt, tokens.cached, tokens.completion) == (5, 3, 4)
    assert transcript.finish_reason == "stop"


def test_last_native_event_is_sent_after_recording() -> None:
    renderer = LlamaCppRenderer(LlamaCppTranscript(), {"response_fields": ["stop_type"]}, "sess_1")
    first, last = (StreamEvent(encode_event(each)) for each in (_piece(0, "a", 1), LAST))
    assert renderer.relay(EventBatch(first.raw)) == first.raw
    assert renderer.relay(EventBatch(last.raw)) is None
    assert renderer.event(last) == b""
    # The pipeline asks for the closing events once the exchange is recorded.
    assert renderer.closing() == b'data: {"stop_type":"eos"}\n\n'


def test_response_fields_are_selected_by_path() -> None:
    answer: LlamaCppEvent = {"content": "a", "timings": {"cache_n": 3}, "stop": True}
    assert select_fields(answer, ["timings/cache_n", "content/length", "gone"]) == {"timings/cache_n": 3}
    assert select_fields(answer, None) is answer


def test_native_prompts_are_recorded_as_user_messages() -> None:
    def content(payload: Any) -> Any:
        return LLAMA_CPP_COMPLETION.messages(payload)[0]["content"]

    assert content({"prompt": "a"}) == "a"
    assert content({"prompt": ["a", [1, 2], {"prompt_string": "b", "multimodal_data": ["x" * 99]}]}) == [
        "a",
        [1, 2],
        "b",
    ]
    gap: ChatPayload = {"input_prefix": "f(", "input_suffix": [7, ")"], "prompt": "x", "input_extra": [{"text": "e"}]}
    (message,) = INFILL.messages(gap)
    parts: Any = message["content"]
    assert [part["text"] for part in parts] == ["e", "f(x", "7 )"]


def test_props_for_remote_callers_omit_prompt_and_path() -> None:
    props = {"default_generation_settings": {"prompt": "secret", "n_ctx": 9}, "model_path": "/x", "total_slots": 1}
    assert public_props(props) == {"default_generation_settings": {"n_ctx": 9}, "total_slots": 1}
