"""Conversion between conversation items and chat messages."""

from __future__ import annotations

from typing import Any, cast
from uuid import UUID

import pytest
from openai.types.conversations import ConversationItem
from openai.types.responses import ResponseItem

from mistral_api.conversations.item_parser import items_to_messages
from mistral_api.conversations.item_renderer import item_list, message_to_items
from mistral_api.payload_types.chat import ChatMessage, ContentPart, FunctionCall, ToolCall
from mistral_api.payload_types.responses import FunctionCallItem, FunctionOutputItem, Item, ItemPart, ReasoningItem
from mistral_api.recording.exchange import without_large_attachments
from mistral_api.wire.items import ITEMS
from tests.support.openai_schemas import validate

MESSAGE = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
HEX = MESSAGE.hex
IMAGE = "data:image/png;base64,AAAA"


def _call(number: int, **more: Any) -> ToolCall:
    function: FunctionCall = {"name": "add", "arguments": f'{{"a": {number}}}'}
    return cast("ToolCall", {"id": f"call_{number}", "type": "function", "function": function} | more)


def _call_item(number: int) -> FunctionCallItem:
    return {"type": "function_call", "call_id": f"call_{number}", "name": "add", "arguments": f'{{"a": {number}}}'}


def _thought(text: str) -> ReasoningItem:
    return {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": text}]}


def _output(text: str, call: int = 1) -> FunctionOutputItem:
    return {"type": "function_call_output", "call_id": f"call_{call}", "output": text}


def test_text_items_become_messages_with_string_content() -> None:
    items: list[Item] = [
        {"role": "developer", "content": "Be brief."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "Hello", "annotations": []}], "id": "msg_1"},
    ]
    assert items_to_messages(items) == [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
    ]


def test_reasoning_text_and_call_items_become_one_assistant_message() -> None:
    items: list[Item] = [
        {"role": "user", "content": "Add"},
        _thought("I need"),
        _thought("a tool."),
        {"role": "assistant", "content": "Wait."},
        _call_item(1),
        _call_item(2),
        _output("3"),
        _output("4", 2),
        _call_item(3),
    ]
    assert items_to_messages(items) == [
        {"role": "user", "content": "Add"},
        {
            "role": "assistant",
            "content": "Wait.",
            "reasoning_content": "I need\na tool.",
            "tool_calls": [_call(1), _call(2)],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "3"},
        {"role": "tool", "tool_call_id": "call_2", "content": "4"},
        {"role": "assistant", "content": None, "tool_calls": [_call(3)]},
    ]


def test_items_after_a_complete_turn_begin_another_message() -> None:
    answers: list[Item] = [{"role": "assistant", "content": text} for text in ("One", "")]
    items: list[Item] = [answers[0], answers[1], _thought("Hm"), _call_item(1), answers[0], _thought("So")]
    assert items_to_messages(items) == [
        {"role": "assistant", "content": "One"},
        {"role": "assistant", "content": ""},
        {"role": "assistant", "content": None, "reasoning_content": "Hm", "tool_calls": [_call(1)]},
        {"role": "assistant", "content": "One"},
        {"role": "assistant", "content": None, "reasoning_content": "So"},
    ]


def test_reasoning_summary_replaces_missing_text_and_encrypted_reasoning_is_dropped() -> None:
    summary: Any = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Short"}]}
    assert items_to_messages([summary]) == [{"role": "assistant", "content": None, "reasoning_content": "Short"}]
    encrypted: Any = {"type": "reasoning", "summary": [], "encrypted_content": "x"}
    assert items_to_messages([encrypted]) == []


def test_refusal_item_becomes_a_refusal_field() -> None:
    refusal: ItemPart = {"type": "refusal", "refusal": "No."}
    assert items_to_messages([{"role": "assistant", "content": [refusal]}]) == [
        {"role": "assistant", "content": None, "refusal": "No."}
    ]


def test_unresolved_item_reference_is_an_error() -> None:
    with pytest.raises(KeyError):
        items_to_messages([{"id": f"msg_{HEX}"}])


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


PARTS = [
    ({"type": "input_text", "text": "Look"}, {"type": "text", "text": "Look"}),
    (
        {"type": "input_image", "image_url": IMAGE, "detail": "low"},
        {"type": "image_url", "image_url": {"url": IMAGE, "detail": "low"}},
    ),
    (
        {"type": "input_file", "file_data": "data:application/pdf;base64,AA", "filename": "a.pdf"},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA", "filename": "a.pdf"}},
    ),
    (
        {"type": "input_file", "file_data": "data:audio/wav;base64,AA", "filename": "audio.wav"},
        {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
    ),
    (
        {"type": "input_file", "file_data": "data:video/mp4;base64,AA"},
        {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AA"}},
    ),
]


def test_content_parts_are_converted_both_ways() -> None:
    item_parts: list[Any]
    chat_parts: list[Any]
    item_parts, chat_parts = [list(parts) for parts in zip(*PARTS, strict=True)]
    assert items_to_messages([{"role": "user", "content": item_parts}]) == [{"role": "user", "content": chat_parts}]
    shown: Any
    (shown,) = message_to_items(MESSAGE, {"role": "user", "content": chat_parts})
    assert shown["content"] == item_parts
    validate(ConversationItem, shown)  # type: ignore[arg-type]  # a union of models is no type to mypy


def test_input_audio_part_is_unchanged() -> None:
    audio: ItemPart = {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}
    assert items_to_messages([{"role": "user", "content": [audio]}])[0]["content"] == [audio]


def test_assistant_message_becomes_reasoning_text_and_call_items() -> None:
    message: ChatMessage = {
        "role": "assistant",
        "content": "Wait.",
        "reasoning_content": "I need a tool.",
        "tool_calls": [_call(1), _call(2, id=None)],
    }
    assert message_to_items(MESSAGE, message, "incomplete") == [
        {"id": f"rs_{HEX}", "status": "incomplete"} | _thought("I need a tool."),
        {
            "id": f"msg_{HEX}",
            "type": "message",
            "status": "incomplete",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Wait.", "annotations": [], "logprobs": []}],
        },
        {"id": f"fc_{HEX}_0", "status": "incomplete"} | _call_item(1),
        {"id": f"fc_{HEX}_1", "status": "incomplete"} | _call_item(2) | {"call_id": f"call_{HEX}_1"},
    ]


STORED: dict[str, Any] = {
    "user": {"role": "user", "content": "Hi", "name": "Ann"},
    "system": {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
    "silent": {"role": "assistant", "content": ""},
    "parts": {"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "b"}]},
    "refusal": {"role": "assistant", "content": None, "refusal": "No."},
    "thinking": {"role": "assistant", "content": "", "reasoning_content": "Hm"},
    "calls": {"role": "assistant", "content": None, "tool_calls": [_call(1), _call(2)]},
    "old call": {"role": "assistant", "content": None, "function_call": {"name": "add", "arguments": "{}"}},
    "old output": {"role": "function", "name": "add", "content": "3"},
    "output": {"role": "tool", "tool_call_id": "call_1", "content": "3"},
    "output parts": {"role": "tool", "tool_call_id": "call_1", "content": [_text("3"), _text("4")]},
    "image": {"role": "user", "content": [{"type": "image_url", "image_url": {"url": IMAGE}}]},
    "sound": {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "A", "format": "mp3"}}]},
    "video": {"role": "user", "content": [{"type": "input_video", "input_video": {"data": "AA"}}]},
    "film": {"role": "user", "content": [{"type": "video_url", "video_url": {"url": "https://example.com/v"}}]},
    "file": {"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1", "filename": 3}}]},
}


@pytest.mark.parametrize("message", STORED.values(), ids=STORED.keys())
def test_stored_message_becomes_valid_items_that_can_be_sent_again(message: ChatMessage) -> None:
    items = message_to_items(MESSAGE, message)
    assert items
    for item in items:
        validate(ConversationItem, item)  # type: ignore[arg-type]
        validate(ResponseItem, item)  # type: ignore[arg-type]
    if message["content"] != STORED["file"]["content"]:
        ITEMS.check(items)
        again = message_to_items(MESSAGE, items_to_messages(items)[0])
        assert again == items


def test_omitted_attachment_becomes_a_text_part() -> None:
    parts: list[ContentPart] = [
        {"type": "image_url", "image_url": {"url": IMAGE + "A" * 100, "detail": "auto"}},
        {"type": "input_audio", "input_audio": {"data": "A" * 100, "format": "wav"}},
        {"type": "file", "file": {"file_data": "A" * 100, "filename": "a.pdf"}},
    ]
    (stored,) = without_large_attachments([{"role": "user", "content": parts}], 10)
    item: Any
    (item,) = message_to_items(MESSAGE, stored)
    validate(ConversationItem, item)  # type: ignore[arg-type]
    assert [part["type"] for part in item["content"]] == ["input_text"] * 3
    assert item["content"][0]["text"].startswith("[data:image/png;omitted;length=126;sha256=")


def test_call_items_keep_their_ids_when_an_earlier_call_is_deleted() -> None:
    message: ChatMessage = {"role": "assistant", "content": None, "tool_calls": [_call(2, index=1), _call(3, index=2)]}
    assert [item["id"] for item in message_to_items(MESSAGE, message)] == [f"fc_{HEX}_1", f"fc_{HEX}_2"]


@pytest.mark.parametrize("indexes", [(0, 0), (1, None), ("a", "b"), (True, 0), (-1, 0)])
def test_invalid_call_indexes_from_a_client_are_ignored(indexes: tuple[Any, Any]) -> None:
    calls = [_call(number, index=index) for number, index in enumerate(indexes)]
    items = message_to_items(MESSAGE, {"role": "assistant", "content": None, "tool_calls": calls})
    assert [item["id"] for item in items] == [f"fc_{HEX}_0", f"fc_{HEX}_1"]


def test_item_list_names_its_first_and_last_id() -> None:
    page = item_list([{"id": "a"}, {"id": "b"}], has_more=True)
    assert (page["object"], page["first_id"], page["last_id"], page["has_more"]) == ("list", "a", "b", True)
    assert item_list([], has_more=False) == {
        "object": "list",
        "data": [],
        "first_id": "",
        "last_id": "",
        "has_more": False,
    }
