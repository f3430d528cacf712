"""Recognise messages that a client sends again."""

from __future__ import annotations

from typing import Any

import pytest

from mistral_api.conversations.message_matching import (
    message_chains,
    message_digest,
    repeated_system_length,
    shared_prefix_length,
)
from mistral_api.payload_types.chat import ChatMessage, ToolCall

USER: ChatMessage = {"role": "user", "content": "Hello"}
CALL: ToolCall = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": "{}"}}


@pytest.mark.parametrize(
    "same",
    [
        USER,
        {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
        {"role": "user", "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]},
        {"role": "user", "content": "Hello", "name": "Ann"},
    ],
)
def test_equal_content_in_other_forms_has_the_same_digest(same: ChatMessage) -> None:
    assert message_digest(same) == message_digest(USER)


@pytest.mark.parametrize(
    "other",
    [
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "hello"},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}, {"type": "image_url", "image_url": {}}]},
        {"role": "tool", "content": "Hello", "tool_call_id": "call_1"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
    ],
)
def test_different_message_has_another_digest(other: ChatMessage) -> None:
    assert message_digest(other) != message_digest(USER)


def test_null_and_empty_assistant_content_have_the_same_digest() -> None:
    assert message_digest({"role": "assistant", "content": None}) == message_digest(
        {"role": "assistant", "content": ""}
    )


@pytest.mark.parametrize(
    "other",
    ['{"b":[2],"a":1}', '{"a": 1, "b": [3]}', '{"a": 1, "b": [2]', "[" * 500 + "]" * 500, 5],
    ids=["other order", "other value", "cut off", "deep", "no text"],
)
def test_reordered_tool_arguments_have_the_same_digest(other: Any) -> None:
    def with_arguments(arguments: Any) -> ChatMessage:
        call: ToolCall = {"type": "function", "function": {"name": "add", "arguments": arguments}}
        return {"role": "assistant", "content": None, "tool_calls": [call]}

    same = message_digest(with_arguments(other)) == message_digest(with_arguments('{"a": 1, "b": [2]}'))
    assert same is (other == '{"b":[2],"a":1}')


def test_tool_calls_match_by_name_and_arguments() -> None:
    stored: ChatMessage = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    resent: ChatMessage = {"role": "assistant", "content": "", "tool_calls": [CALL | {"id": "renamed", "index": 0}]}
    changed: ChatMessage = {
        "role": "assistant",
        "content": "",
        "tool_calls": [CALL | {"function": {"name": "sub", "arguments": "{}"}}],
    }
    assert message_digest(stored) == message_digest(resent)
    assert message_digest(stored) != message_digest(changed)


@pytest.mark.parametrize(
    ("stored", "sent", "shared"),
    [
        (["uHi"], ["uHi"], 0),
        (["uHi", "aYes"], ["uHi", "aYes", "uOk"], 2),
        (["uHi", "aYes", "uOk", "aWell"], ["uHi", "aYes", "uNo"], 2),
        (["uHi", "aYes"], ["uHo", "aYes", "uOk"], 0),
        (["uHi", "aYes", "uOk", "aWell"], ["uHi", "aYes", "uOk", "aWell", "uEnd"], 4),
        (["uHi", "aYes"], ["uHi", "uOk"], 0),  # a repeated question alone is no history
        (["sBe", "uHi", "aYes"], ["sBe", "uHi"], 0),
    ],
)
def test_shared_prefix_requires_a_repeated_answer(stored: list[str], sent: list[str], shared: int) -> None:
    known = set(message_chains(_messages(stored)))
    roles = [message["role"] for message in _messages(sent)]
    assert shared_prefix_length(message_chains(_messages(sent)), roles, known) == shared


def _messages(written: list[str]) -> list[ChatMessage]:
    roles = {"u": "user", "a": "assistant", "s": "system"}
    return [{"role": roles[each[0]], "content": each[1:]} for each in written]


def test_same_message_after_another_history_has_another_chain() -> None:
    first, second = message_chains(_messages(["uHi", "aYes"])), message_chains(_messages(["uHo", "aYes"]))
    assert first[1] != second[1]
    assert len({*first, *second}) == 4


@pytest.mark.parametrize(("sent", "repeated"), [(["sBe", "uNew"], 1), (["sDo", "uNew"], 0), (["uHi", "uNew"], 0)])
def test_repeated_system_message_is_recognised(sent: list[str], repeated: int) -> None:
    known = set(message_chains(_messages(["sBe", "uHi", "aYes"]))) | set(message_chains(_messages(["uHi"])))
    roles = [message["role"] for message in _messages(sent)]
    assert repeated_system_length(message_chains(_messages(sent)), roles, known) == repeated
