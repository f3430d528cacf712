"""Which messages of a request are new when it continues a stored branch."""

from __future__ import annotations

from typing import Any

import pytest

from mistral_api.conversations.history import BranchMessage, SessionBranch, continue_session
from mistral_api.conversations.stored_message import prompt_message
from mistral_api.payload_types.chat import ChatMessage, ContentPart, ToolCall
from mistral_api.system.identifiers import new_id

ROLES = {"s": "system", "d": "developer", "u": "user", "a": "assistant"}
CALL: ToolCall = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}

Messages = list[ChatMessage]


def _messages(written: str) -> Messages:
    return [{"role": ROLES[word[0]], "content": word[1:]} for word in written.split()]


def _branch(messages: Messages) -> SessionBranch:
    return SessionBranch([BranchMessage(new_id(), message, prompt_message(message)) for message in messages])


@pytest.mark.parametrize(
    ("stored", "sent", "prompt", "new", "follows"),
    [
        ("", "u1", "u1", "u1", None),
        ("u1 a1", "u2", "u1 a1 u2", "u2", "a1"),
        ("s0 u1 a1", "u2", "s0 u1 a1 u2", "u2", "a1"),
        ("s0 u1 a1", "s0 u2", "s0 u1 a1 u2", "s0 u2", "a1"),
        ("s0 u1 a1", "s9 u2", "s9 u1 a1 u2", "s9 u2", "a1"),
        ("s0 u1 a1 s9 d9 u2 a2", "u3", "s9 d9 u1 a1 u2 a2 u3", "u3", "a2"),
        ("s0 u1 a1 s9 u2 a2", "s0 u3", "s0 u1 a1 u2 a2 u3", "s0 u3", "a2"),
        # The client sends the whole history again: its own list is used, and its place found when it is stored.
        ("u1 a1", "u1 a1 u2", "u1 a1 u2", "u1 a1 u2", None),
        ("s0 u1 a1 u2 a2", "s0 u1 a1 u2 a2 u3", "s0 u1 a1 u2 a2 u3", "s0 u1 a1 u2 a2 u3", None),
        ("s0 u1 a1", "s9 u1 a1 u2", "s9 u1 a1 u2", "s9 u1 a1 u2", None),
        ("u1 a1 u2 a2", "u1 a1 u9", "u1 a1 u9", "u1 a1 u9", None),
        ("u1 a1 u2 a2", "u1 a1 u2", "u1 a1 u2", "u1 a1 u2", None),
        ("u1 a1 u2 a2 u3 a3", "u8 u3 a3 u4", "u8 u3 a3 u4", "u8 u3 a3 u4", None),
        # The client sends the last turns again.
        ("u1 a1 u2 a2", "u2 a2 u3", "u1 a1 u2 a2 u3", "u3", "a2"),
        ("s0 u1 a1 u2 a2", "s0 u2 a2 u3", "s0 u1 a1 u2 a2 u3", "s0 u3", "a2"),
        ("u1 a1 u2 a2", "a2 u3", "u1 a1 u2 a2 u3", "u3", "a2"),
        ("u1 a1 u2 a2 u3 a3", "u2 a2 u9", "u1 a1 u2 a2 u9", "u9", "a2"),
        # A repeated question is no history, and answers that are not stored are a history of its own.
        ("u1 a1", "u1", "u1 a1 u1", "u1", "a1"),
        ("u1 a1", "u8 a8 u2", "u8 a8 u2", "u8 a8 u2", None),
    ],
)
def test_stored_turns_come_first_and_are_not_duplicated(
    stored: str, sent: str, prompt: str, new: str, follows: str | None
) -> None:
    branch = _branch(_messages(stored))
    found = continue_session(branch, _messages(sent), _messages(sent))
    assert [*found.leading, *found.history, *found.sent] == _messages(prompt)
    assert found.new == _messages(new)
    ids = {f"{each.message['role'][0]}{each.message['content']}": each.id for each in branch.messages}
    assert found.continues == (ids[follows] if follows else None)


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
        assert (found.new, found.continues) == (new, branch.head_id)


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
