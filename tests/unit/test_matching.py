"""Recognising what a client sends again."""

from __future__ import annotations

from typing import Any

import pytest

from mistral_api.conversations.matching import digest, repeated_system, shared_prefix

USER = {"role": "user", "content": "Hello"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": "{}"}}


@pytest.mark.parametrize(
    "same",
    [
        USER,
        {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
        {"role": "user", "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]},
        {"role": "user", "content": "Hello", "name": "Ann"},
    ],
)
def test_the_same_words_are_the_same_message(same: dict[str, Any]) -> None:
    assert digest(same) == digest(USER)


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
def test_other_words_are_another_message(other: dict[str, Any]) -> None:
    assert digest(other) != digest(USER)


def test_an_answer_without_text_is_the_same_as_null_or_empty() -> None:
    assert digest({"role": "assistant", "content": None}) == digest({"role": "assistant", "content": ""})


def test_tool_calls_are_the_same_by_name_and_arguments() -> None:
    stored = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    resent = {"role": "assistant", "content": "", "tool_calls": [CALL | {"id": "renamed", "index": 0}]}
    changed = {
        "role": "assistant",
        "content": "",
        "tool_calls": [CALL | {"function": {"name": "sub", "arguments": "{}"}}],
    }
    assert digest(stored) == digest(resent)
    assert digest(stored) != digest(changed)


@pytest.mark.parametrize(
    ("stored", "sent", "roles", "shared"),
    [
        ("", "a", "u", 0),
        ("aB", "aBc", "uau", 2),
        ("aBcD", "aBx", "uau", 2),
        ("aBcD", "xBc", "uau", 0),
        ("aBcD", "aBcDe", "uauau", 4),
        ("aB", "ac", "uu", 0),  # the same question twice is no history
        ("saB", "sa", "su", 0),
    ],
)
def test_only_a_repeated_answer_proves_that_history_is_resent(stored: str, sent: str, roles: str, shared: int) -> None:
    names = {"u": "user", "a": "assistant", "s": "system"}
    assert shared_prefix(list(stored), list(sent), [names[role] for role in roles]) == shared


def test_a_system_message_sent_each_turn_is_stored_once() -> None:
    assert repeated_system(["s", "a", "B"], ["s", "c"], ["system", "user"]) == 1
    assert repeated_system(["s", "a", "B"], ["t", "c"], ["system", "user"]) == 0
    assert repeated_system(["a"], ["a"], ["user"]) == 0
