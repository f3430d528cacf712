"""Recognise a message that a client sends again, by its digest."""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

import pytest

from mistral_api.conversations.item_parser import items_to_messages
from mistral_api.conversations.item_renderer import message_to_items
from mistral_api.conversations.message_matching import NO_DIGEST, message_digest
from mistral_api.payload_types.chat import ChatMessage, ToolCall
from mistral_api.recording.exchange import without_large_attachments

USER: ChatMessage = {"role": "user", "content": "Hello"}
CALL: ToolCall = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
IMAGE: Any = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 99}}


def _user(content: Any) -> ChatMessage:
    return {"role": "user", "content": content}


def _answer(content: Any, **fields: Any) -> ChatMessage:
    message: ChatMessage = {"role": "assistant", "content": content}
    return message | fields  # type: ignore[return-value]


def _calling(arguments: Any, **fields: Any) -> ChatMessage:
    return _answer(
        None, tool_calls=[{"id": "c", "type": "function"} | fields | {"function": {"name": "f"} | arguments}]
    )


@pytest.mark.parametrize(
    "same",
    [
        USER,
        _user([{"type": "text", "text": "Hello"}]),
        _user([{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]),
        _user("  Hello\n"),
        _user([{"type": "text", "text": "Hello "}, {"type": "text", "text": ""}]),
        {"role": "user", "content": "Hello", "name": "Ann"},
    ],
)
def test_equal_content_in_other_forms_has_the_same_digest(same: ChatMessage) -> None:
    assert message_digest(same) == message_digest(USER)


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("one\r\ntwo\rthree", "one\ntwo\nthree"),
        ("cafe\u0301 \uac00", "caf\u00e9 \u1100\u1161"),
        ("half \ud83d", "half ?"),
        ("a\0b", "a\ufffdb"),
    ],
    ids=["line ends", "Unicode form", "half a surrogate pair", "NUL character"],
)
def test_texts_that_read_the_same_have_the_same_digest(sent: str, stored: str) -> None:
    assert message_digest(_user(sent)) == message_digest(_user(stored))


@pytest.mark.parametrize(
    "stored",
    [
        "<think>Let me see.\n</think>\n\nFour.",
        "<thinking>hm</thinking>Four.",
        "[THINK]hm[/THINK]Four.",
        "hm, two and two\n</think>\n\nFour.",  # the template has written the opening tag
        '<details type="reasoning" done="true">\n<summary>Thought</summary>\n> hm\n</details>\nFour.',
    ],
)
def test_answer_matches_without_its_reasoning(stored: str) -> None:
    assert message_digest(_answer(stored)) == message_digest(_answer("Four."))
    assert message_digest(_answer("Four.", reasoning_content="hm")) == message_digest(_answer("Four."))


@pytest.mark.parametrize("text", ["Use <think> to think.", "I <think>so</think>, yes", "<details>a</details>b"])
def test_tags_within_an_answer_are_part_of_it(text: str) -> None:
    assert message_digest(_answer(text)) != message_digest(_answer(text.partition(">")[2]))


def test_reasoning_that_was_cut_off_is_an_empty_answer() -> None:
    assert message_digest(_answer("<think>Let me")) == message_digest(_answer("")) == message_digest(_answer(None))


def test_what_a_user_writes_in_tags_is_text() -> None:
    assert message_digest(_user("<think>a</think>b")) != message_digest(_user("b"))


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


@pytest.mark.parametrize("role", ["system", "developer"])
def test_system_messages_have_no_digest(role: str) -> None:
    assert message_digest({"role": role, "content": "Be brief."}) == NO_DIGEST


@pytest.mark.parametrize("content", [None, "", " \n", []])
def test_empty_answers_have_the_same_digest(content: Any) -> None:
    assert message_digest(_answer(content)) == message_digest({"role": "assistant"})


def test_refusal_matches_as_text_and_as_field() -> None:
    assert message_digest(_answer(None, refusal="No.")) == message_digest(_answer("No."))
    assert message_digest(_answer([{"type": "refusal", "refusal": "No."}])) == message_digest(_answer("No."))


@pytest.mark.parametrize(
    "other",
    ['{"b":[2],"a":1}', {"b": [2], "a": 1}, '{"a": 1, "b": [3]}', '{"a": 1, "b": [2]', "[" * 500 + "]" * 500, 5],
    ids=["other order", "object", "other value", "cut off", "deep", "number"],
)
def test_reordered_tool_arguments_have_the_same_digest(other: Any) -> None:
    same = message_digest(_calling({"arguments": other})) == message_digest(
        _calling({"arguments": '{"a": 1, "b": [2]}'})
    )
    assert same is (other in ('{"b":[2],"a":1}', {"b": [2], "a": 1}))


@pytest.mark.parametrize(
    "arguments", [{}, {"arguments": None}, {"arguments": ""}, {"arguments": " "}, {"arguments": {}}]
)
def test_no_arguments_are_an_empty_object(arguments: Any) -> None:
    assert message_digest(_calling(arguments)) == message_digest(_calling({"arguments": "{}"}))


def test_tool_calls_match_by_name_and_arguments() -> None:
    stored: ChatMessage = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    resent: ChatMessage = {"role": "assistant", "content": "", "tool_calls": [CALL | {"id": "renamed", "index": 0}]}
    changed: ChatMessage = _answer("", tool_calls=[CALL | {"function": {"name": "sub", "arguments": "{}"}}])
    deprecated = _answer("", function_call={"name": "add", "arguments": "{}"})
    assert message_digest(stored) == message_digest(resent) == message_digest(deprecated) != message_digest(changed)


def test_tool_result_matches_under_another_id_and_under_its_old_role() -> None:
    result: ChatMessage = {"role": "tool", "tool_call_id": "call_1", "content": "3"}
    assert message_digest(result) == message_digest(result | {"tool_call_id": "renamed"})
    assert message_digest(result) == message_digest({"role": "function", "name": "add", "content": "3"})


def test_attachment_matches_by_its_data() -> None:
    message = _user([{"type": "text", "text": "Look"}, IMAGE])
    (omitted,) = without_large_attachments([message], 50)
    other = _user([{"type": "text", "text": "Look"}, {"type": "image_url", "image_url": {"url": "data:,B"}}])
    detailed = _user([{"type": "text", "text": "Look"}, {**IMAGE, "image_url": IMAGE["image_url"] | {"detail": "low"}}])
    assert omitted != message
    assert message_digest(omitted) == message_digest(message) == message_digest(detailed) != message_digest(other)


def test_very_many_marks_on_a_letter_take_no_time() -> None:
    began = time.process_time()
    message_digest(_user("a" + "\u0301\u0327" * 500_000))
    assert time.process_time() - began < 10
    # So many as a writing puts there are compared as before.
    assert message_digest(_user("a" + "\u0301\u0327" * 9)) == message_digest(
        _user("\u00e1" + "\u0327" + "\u0301\u0327" * 8)
    )


def test_call_of_a_tool_of_its_own_kind_is_the_same_when_its_item_comes_back() -> None:
    arguments = '{"command": ["ls"], "env": {}, "user": null}'
    function = {"name": "local_shell", "arguments": arguments}
    call: Any = {"id": "c", "type": "function", "item": "local_shell_call", "function": function}
    generated: ChatMessage = {"role": "assistant", "content": None, "tool_calls": [call]}
    items = message_to_items(UUID(int=1), generated)
    (sent,) = items_to_messages(items)
    assert message_digest(sent) == message_digest(generated)
    custom: Any = {"id": "c", "type": "custom", "custom": {"name": "note", "input": "x"}}
    note: ChatMessage = {"role": "assistant", "content": None, "tool_calls": [custom]}
    (again,) = items_to_messages(message_to_items(UUID(int=2), note))
    assert message_digest(again) == message_digest(note)
    other: Any = custom | {"custom": {"name": "note", "input": "y"}}
    assert message_digest({"role": "assistant", "content": None, "tool_calls": [other]}) != message_digest(note)
