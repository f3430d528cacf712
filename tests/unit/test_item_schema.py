"""Which input items pass, and the error of every other one."""

from __future__ import annotations

from typing import Any

import pytest

from mistral_api.errors import InvalidRequest
from mistral_api.wire import load
from mistral_api.wire.container_shapes import Array
from mistral_api.wire.items import ITEM
from mistral_api.wire.request_schema import Field, RequestSchema

CALL = {"type": "function_call", "call_id": "call_1", "name": "add", "arguments": "{}"}
TEXT = {"type": "input_text", "text": "a"}
OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "3"}


class _Request(RequestSchema[Any]):
    input = Field(Array(ITEM, 1, 20))


REQUEST = _Request()


def _message(*parts: Any, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": list(parts)}


@pytest.mark.parametrize(
    "item",
    [
        {"role": "user", "content": "Hi"},
        {"role": "user", "content": ""},
        {"role": "assistant", "content": "Hi", "type": None, "id": None, "status": None},
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]},
        _message({"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "original"}),
        _message({"type": "input_image", "image_url": "https://example.com/a.png", "file_id": None}),
        _message({"type": "input_file", "file_data": "data:application/pdf;base64,AA", "filename": "a.pdf"}),
        _message({"type": "input_file", "file_url": "https://example.com/a.pdf"}),
        _message({"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}),
        _message({"type": "output_text", "text": "Hi", "annotations": [], "logprobs": []}, role="assistant"),
        _message({"type": "refusal", "refusal": "No."}, role="assistant"),
        _message(role="assistant"),
        CALL | {"id": "fc_1", "status": "completed", "unknown": 1},
        OUTPUT,
        OUTPUT | {"output": [{"type": "input_text", "text": "3"}]},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": "Short"}],
            "content": [{"type": "reasoning_text", "text": "Long"}],
            "encrypted_content": "x",
        },
        {"type": "item_reference", "id": "msg_1"},
        {"id": "msg_1"},
    ],
)
def test_input_item_of_every_type_passes_unchanged(item: dict[str, Any]) -> None:
    assert load(REQUEST, {"input": [item]}) == {"input": [item]}


@pytest.mark.parametrize(
    ("item", "code", "path"),
    [
        ("Hi", "invalid_type", "[0]"),
        ({}, "missing_required_parameter", "[0].role"),
        ({"type": 3}, "invalid_type", "[0].type"),
        ({"type": "poem"}, "invalid_value", "[0].type"),
        ({"type": "web_search_call"}, "unsupported_value", "[0].type"),
        ({"type": "custom_tool_call_output"}, "missing_required_parameter", "[0].call_id"),
        ({"type": "shell_call", "call_id": "c", "action": {}}, "missing_required_parameter", "[0].action.commands"),
        ({"type": "local_shell_call_output", "output": "x"}, "missing_required_parameter", "[0].call_id"),
        ({"type": "apply_patch_call", "call_id": "c", "operation": {"type": "x", "path": "a"}}, "invalid_value",
         "[0].operation.type"),
        ({"type": "tool_search_output", "tools": [{"type": "function"}]}, "missing_required_parameter",
         "[0].tools[0].name"),
        ({"type": "agent_message", "author": "a", "recipient": "b", "content": []}, "empty_array", "[0].content"),
        ({"role": "user"}, "missing_required_parameter", "[0].content"),
        ({"role": "tool", "content": "3"}, "invalid_value", "[0].role"),
        ({"role": "user", "content": 3}, "invalid_type", "[0].content"),
        ({"role": "user", "content": "Hi", "status": "done"}, "invalid_value", "[0].status"),
        ({"role": "user", "content": "Hi", "id": 3}, "invalid_type", "[0].id"),
        (_message(), "empty_array", "[0].content"),
        (_message("Hi"), "invalid_type", "[0].content[0]"),
        (_message({"text": "Hi"}), "missing_required_parameter", "[0].content[0].type"),
        (_message({"type": "words", "text": "Hi"}), "invalid_value", "[0].content[0].type"),
        (_message(TEXT, {"type": "output_text"}), "missing_required_parameter", "[0].content[1].text"),
        (_message({"type": "input_text", "text": None}), "missing_required_parameter", "[0].content[0].text"),
        (_message({"type": "input_text", "text": 1}), "invalid_type", "[0].content[0].text"),
        (_message({"type": "input_image"}), "missing_required_parameter", "[0].content[0].image_url"),
        (_message({"type": "input_image", "image_url": {"url": "x"}}), "invalid_type", "[0].content[0].image_url"),
        (_message({"type": "input_image", "file_id": "file-1"}), "unsupported_value", "[0].content[0].file_id"),
        (_message({"type": "input_file", "filename": "a"}), "missing_required_parameter", "[0].content[0].file_data"),
        (_message({"type": "input_file", "file_id": "file-1"}), "unsupported_value", "[0].content[0].file_id"),
        (
            _message({"type": "input_audio", "input_audio": {"data": "AA"}}),
            "missing_required_parameter",
            "[0].content[0].input_audio.format",
        ),
        (CALL | {"call_id": ""}, "invalid_value", "[0].call_id"),
        (CALL | {"arguments": {}}, "invalid_type", "[0].arguments"),
        ({"type": "function_call", "call_id": "c"}, "missing_required_parameter", "[0].name"),
        ({"type": "function_call_output", "output": "3"}, "missing_required_parameter", "[0].call_id"),
        (OUTPUT | {"output": {"sum": 3}}, "invalid_type", "[0].output"),
        (OUTPUT | {"output": [{"type": "refusal", "refusal": "3"}]}, "invalid_value", "[0].output[0].type"),
        ({"type": "reasoning", "summary": "Short"}, "invalid_type", "[0].summary"),
        ({"type": "reasoning", "content": [TEXT]}, "invalid_value", "[0].content[0].type"),
        ({"type": "item_reference"}, "missing_required_parameter", "[0].id"),
    ],
)  # fmt: skip
def test_first_bad_field_of_an_input_item_is_named(item: Any, code: str, path: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        load(REQUEST, {"input": [item]})
    assert (refused.value.code, refused.value.param) == (code, f"input{path}")


def test_hosted_tool_item_is_refused_with_an_explanation() -> None:
    with pytest.raises(InvalidRequest, match="runs no hosted tools and takes no items of type 'file_search_call'"):
        load(REQUEST, {"input": [{"type": "file_search_call"}]})


@pytest.mark.parametrize(("count", "code"), [(0, "empty_array"), (21, "array_above_max_length")])
def test_number_of_input_items_is_limited(count: int, code: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        load(REQUEST, {"input": [OUTPUT] * count})
    assert refused.value.code == code
