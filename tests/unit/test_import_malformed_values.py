"""Whatever stands in a field of an export, its conversation is imported or skipped, and never ends the import."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from mistral_api.conversations.importing.imported import ImportedConversation
from mistral_api.conversations.message_matching import message_digest
from mistral_api.conversations.search_text import searchable_text
from mistral_api.conversations.stored_message import StoredMessage, prompt_message
from mistral_api.recording.exchange import replace_nul
from tests.support.chat_exports import (
    chatgpt_conversation,
    chatgpt_node,
    librechat_conversation,
    librechat_message,
    read_all,
    webui_chat,
    webui_message,
    write_json,
    write_lines,
)
from tests.unit.test_export_file import FINE_TUNING, LINE

_ABSENT = object()
_VALUES: list[Any] = [
    _ABSENT, None, True, -1, 3.5, 1e308, 10**30, "", "x", "\0", "\ud800", "0001-01-01T00:00:00+14:00",
    [], {}, [None], [{}], {"a": [1]}, [[1]],
]  # fmt: skip
_DETAILS = '<details type="reasoning" done="true"><summary>x</summary>&gt; y</details>z'
_OUTPUT = [
    {"type": "reasoning", "content": [{"text": "a"}]},
    {"type": "function_call", "call_id": "c", "name": "n", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c", "output": [{"text": "r"}]},
    {"type": "open_webui:code_interpreter", "code": "1", "output": {"result": 1}},
]
_PARTS = [
    {"type": "think", "think": "x"},
    {"type": "text", "text": {"value": "y"}},
    {"type": "tool_call", "tool_call": {"id": "1", "name": "n", "args": {"a": 1}, "output": "o"}},
    {"type": "image_url", "image_url": {"url": "data:x"}},
]
_PICTURE = {"content_type": "image_asset_pointer", "asset_pointer": "sediment://file_1"}
_ATTACHED = {"attachments": [{"id": "a", "name": "b"}], "model_slug": "m", "finish_details": {"type": "stop"}}
_EXPORTS: dict[str, Any] = {
    "jsonl": LINE,
    "openai-finetune": {"messages": FINE_TUNING},
    "chatgpt": chatgpt_conversation(
        chatgpt_node("s0", "root", "system", "Be brief."),
        chatgpt_node("u1", "s0", "user", "Why?", metadata=_ATTACHED),
        chatgpt_node("t2", "u1", "assistant", content={"content_type": "thoughts", "thoughts": [{"content": "x"}]}),
        chatgpt_node("c3", "t2", "assistant", content={"content_type": "code", "text": "{}"}, recipient="python"),
        chatgpt_node("t4", "c3", "tool", content={"content_type": "execution_output", "text": "1"}),
        chatgpt_node("a5", "t4", "assistant", _PICTURE, "x"),
    ),
    "open-webui": webui_chat(
        webui_message("u1", None, "user", "q", files=[{"type": "image", "url": "data:x", "name": "n"}]),
        webui_message("a2", "u1", "assistant", _DETAILS, usage={"prompt_tokens": 1}, error={"content": "e"}),
        webui_message("a3", "u1", "assistant", "", output=_OUTPUT),
        chat={"params": {"system": "s"}},
    ),
    "librechat": librechat_conversation(
        librechat_message("u1", None, True, "q", files=[{"filename": "f", "type": "image/png"}]),
        librechat_message("a2", "u1", False, "", content=_PARTS, children=[]),
        options={"promptPrefix": "s"},
    ),
}


def _places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in pairs:
        yield (*above, key)
        yield from _places(each, (*above, key))


def _changed(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    changed = container = copy.deepcopy(value)
    for key in place[:-1]:
        container = container[key]
    if new is _ABSENT:
        del container[place[-1]]
    else:
        container[place[-1]] = new
    return changed


@pytest.mark.parametrize("format_name", list(_EXPORTS))
def test_no_value_in_any_field_ends_the_import(tmp_path: Path, format_name: str) -> None:
    export = _EXPORTS[format_name]
    changed = [_changed(export, place, new) for place in _places(export) for new in _VALUES]
    write = write_lines if format_name in ("jsonl", "openai-finetune") else write_json
    read = read_all(write(tmp_path / "export.json", changed), format_name)
    assert len(read) == len(changed)
    imported = [each for each in read if isinstance(each, ImportedConversation)]
    assert len(imported) > len(changed) / 4
    for conversation in imported:
        _assert_whole(conversation)


def _assert_whole(conversation: ImportedConversation) -> None:
    """Check that the messages are a tree, and that everything that reads stored messages can read them."""
    known: set[UUID | None] = {None}
    for each in conversation.messages:
        assert each.parent_id in known
        known.add(each.id)
        if conversation.metadata.get("source") in ("chatgpt", "open-webui", "librechat"):
            message_digest(each.message)
            searchable_text(each.message.get("content"))
            prompt_message(each.message)
            assert StoredMessage(each.id, each.message).items is not None
            assert replace_nul(each.message) == each.message
    assert conversation.head_id in known
