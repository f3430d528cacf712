"""Which messages of a request are new when it continues a stored branch."""

from __future__ import annotations

from typing import Any

import pytest

from mistral_api.conversations.history import SessionBranch, continue_session, has_no_known_prefix
from mistral_api.conversations.message_matching import message_chains
from mistral_api.payload_types.chat import ChatMessage, ContentPart, ToolCall
from mistral_api.system.identifiers import new_id

HEAD = new_id()
ROLES = {"s": "system", "d": "developer", "u": "user", "a": "assistant"}
CALL: ToolCall = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}

Messages = list[ChatMessage]


def _messages(written: str) -> Messages:
    return [{"role": ROLES[word[0]], "content": word[1:]} for word in written.split()]


def _branch(messages: Messages) -> SessionBranch:
    return SessionBranch(HEAD, messages, message_chains(messages))


@pytest.mark.parametrize(
    ("stored", "sent", "prompt", "new", "continues"),
    [
        ("", "u1", "u1", "u1", False),
        ("u1 a1", "u2", "u1 a1 u2", "u2", True),
        ("s0 u1 a1", "u2", "s0 u1 a1 u2", "u2", True),
        ("s0 u1 a1", "s0 u2", "s0 u1 a1 u2", "u2", True),
        ("s0 u1 a1", "s9 u2", "s9 u1 a1 u2", "s9 u2", True),
        ("s0 u1 a1 s9 d9 u2 a2", "u3", "s9 d9 u1 a1 u2 a2 u3", "u3", True),
        ("s0 u1 a1 s9 u2 a2", "s9 u3", "s9 u1 a1 u2 a2 u3", "u3", True),
        ("s0 u1 a1 s9 u2 a2", "s0 u3", "s0 u1 a1 u2 a2 u3", "s0 u3", True),
        # The client sends the whole history again: its own list is used.
        ("u1 a1", "u1 a1 u2", "u1 a1 u2", "u1 a1 u2", False),
        ("s0 u1 a1 u2 a2", "s0 u1 a1 u2 a2 u3", "s0 u1 a1 u2 a2 u3", "s0 u1 a1 u2 a2 u3", False),
        ("u1 a1 u2 a2", "u1 a1 u9", "u1 a1 u9", "u1 a1 u9", False),
        ("u1 a1 u2 a2", "u1 a1 u2", "u1 a1 u2", "u1 a1 u2", False),
        # The client sends the last turns again, or all of them with another system message.
        ("u1 a1 u2 a2", "u2 a2 u3", "u1 a1 u2 a2 u3", "u3", True),
        ("s0 u1 a1 u2 a2", "s0 u2 a2 u3", "s0 u1 a1 u2 a2 u3", "u3", True),
        ("s0 u1 a1", "s9 u1 a1 u2", "s9 u1 a1 u2", "s9 u2", True),
        # A repeated question is no history, and few-shot examples that are not stored are new.
        ("u1 a1", "u1", "u1 a1 u1", "u1", True),
        ("u1 a1", "u8 a8 u2", "u1 a1 u8 a8 u2", "u8 a8 u2", True),
    ],
)
def test_stored_turns_come_first_and_are_not_duplicated(
    stored: str, sent: str, prompt: str, new: str, continues: bool
) -> None:
    branch = _branch(_messages(stored)) if stored else SessionBranch()
    found = continue_session(branch, _messages(sent), _messages(sent))
    assert [*found.leading, *found.history, *found.sent] == _messages(prompt)
    assert found.new == _messages(new)
    assert found.continues == (HEAD if continues else None)


def test_tool_result_continues_the_stored_tool_call() -> None:
    call: ChatMessage = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    result: ChatMessage = {"role": "tool", "tool_call_id": "c1", "content": "3"}
    branch = _branch([*_messages("u1"), call])
    again: list[Messages] = [[result], [call | {"content": ""}, result]]
    for sent in again:
        found = continue_session(branch, sent, sent)
        assert [*found.history, *found.sent] == [*_messages("u1"), call, result]
        assert found.new == [result]


@pytest.mark.parametrize(("content", "left"), [(None, []), ("Let me see.", [{"content": "Let me see."}])])
def test_tool_call_without_a_result_is_omitted(content: str | None, left: list[Any]) -> None:
    half: Any = CALL | {"function": {"arguments": '{"a'}}
    call: ChatMessage = {"role": "assistant", "content": content, "tool_calls": [half]}
    said = [{"role": "assistant"} | each for each in left]
    for after in ("u2", "u2 a2 u3"):
        branch = _branch([*_messages("u1"), call, *_messages(after)[:-1]])
        new = _messages(after)[-1:]
        found = continue_session(branch, new, new)
        assert [*found.history, *found.sent] == [*_messages("u1"), *said, *_messages(after)]
        assert (found.new, found.continues) == (new, HEAD)


def test_tool_call_is_kept_when_its_result_follows_later() -> None:
    call: ChatMessage = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    result: ChatMessage = {"role": "tool", "tool_call_id": CALL["id"], "content": "3"}
    branch = _branch([*_messages("u1"), call])
    found = continue_session(branch, [*_messages("u2"), result], [*_messages("u2"), result])
    assert found.history == [*_messages("u1"), call]


def test_last_stored_message_stays_when_nothing_follows_it() -> None:
    system: Messages = [{"role": "system", "content": "Be brief."}]
    found = continue_session(_branch(_messages("u1 a1")), system, system)
    assert [*found.leading, *found.history, *found.sent] == [*system, *_messages("u1 a1")]


def test_omitted_attachment_is_recognised_and_sent_to_the_model() -> None:
    def image(url: str) -> Messages:
        parts: list[ContentPart] = [{"type": "image_url", "image_url": {"url": url}}]
        return [{"role": "user", "content": parts}]

    omitted = f"data:image/png;omitted;length=9;sha256={'0' * 64}"
    branch = _branch([*image(omitted), *_messages("a1")])
    sent = [*image("data:image/png;base64,AAAA"), *_messages("a1 u2")]
    found = continue_session(branch, sent, [*image(omitted), *_messages("a1 u2")])
    assert (found.history, found.sent) == ([], sent)


@pytest.mark.parametrize(("sent", "nothing"), [("u2", False), ("u8 a8 u2", True), ("u1 a1 u2", False)])
def test_history_without_a_known_prefix_is_detected(sent: str, nothing: bool) -> None:
    messages = _messages(sent)
    assert has_no_known_prefix(continue_session(_branch(_messages("u1 a1")), messages, messages), messages) is nothing
