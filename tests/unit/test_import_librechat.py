"""LibreChat's exports become conversations with their branches, tools and reasoning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mistral_api.conversations.importing.export_file import SkippedConversation
from tests.support.chat_exports import (
    Json,
    branch_of,
    librechat_conversation,
    librechat_message,
    parents_of,
    read_all,
    read_one,
    write_json,
)

QUESTION = librechat_message("u1", None, True, "Why?")
ANSWER = librechat_message("a2", "u1", False, "The moon.")
OTHER = librechat_message("a3", "u1", False, "Gravity.")
EDITED = librechat_message("u4", None, True, "Why tides?")


def _import(tmp_path: Path, *messages: Json, **fields: Any) -> Any:
    return read_one(write_json(tmp_path / "chat.json", librechat_conversation(*messages, **fields)))


def _recursive() -> Json:
    tree = [QUESTION | {"children": [ANSWER | {"children": []}, OTHER | {"children": []}]}, EDITED | {"children": []}]
    export = librechat_conversation(messagesTree=tree, recursive=True)
    del export["messages"]
    return export


@pytest.mark.parametrize("recursive", [False, True])
def test_a_list_and_a_tree_give_the_same_branches(tmp_path: Path, recursive: bool) -> None:
    export = _recursive() if recursive else librechat_conversation(QUESTION, ANSWER, OTHER, EDITED)
    read = read_one(write_json(tmp_path / "chat.json", export))
    assert parents_of(read) == {"Why?": None, "The moon.": "Why?", "Gravity.": "Why?", "Why tides?": None}
    assert read.session_id == "librechat:33333333-2222-4333-8444-555555555555"
    assert (read.title, read.created_at.isoformat()) == ("Tides", "2025-06-15T15:06:41.250000+00:00")
    assert read.updated_at.isoformat() == "2025-06-15T15:06:44.250000+00:00"
    assert {message.model for message in read.messages} == {None, "mistral-small"}
    # Nothing says which branch was shown: the one with the newest message.
    assert [message["content"] for message in branch_of(read)] == ["Why tides?"]
    same = read_one(write_json(tmp_path / "list.json", librechat_conversation(QUESTION, ANSWER, OTHER, EDITED)))
    assert [message.id for message in same.messages] == [message.id for message in read.messages]


def test_a_tree_may_be_thousands_of_messages_deep(tmp_path: Path) -> None:
    tree = ""
    for number in range(4000, 0, -1):
        fields = f'"messageId": "m{number}", "text": "{number}", "isCreatedByUser": true, "createdAt": "2025-06-15"'
        tree = f'{{{fields}, "children": [{tree}]}}'
    path = tmp_path / "deep.json"
    path.write_text(
        f'{{"conversationId": "deep", "title": "T", "recursive": true, "messagesTree": [{tree}]}}', encoding="utf-8"
    )
    read = read_one(path)
    assert len(read.messages) == 4000
    assert len(branch_of(read)) == 4000


def test_messages_without_parents_follow_one_another(tmp_path: Path) -> None:
    messages = [
        {name: value for name, value in each.items() if name != "parentMessageId"} for each in (QUESTION, ANSWER)
    ]
    assert parents_of(_import(tmp_path, *messages)) == {"Why?": None, "The moon.": "Why?"}


def test_the_system_text_leads(tmp_path: Path) -> None:
    options = {"promptPrefix": "Be brief.", "model": "m"}
    read = _import(tmp_path, QUESTION, EDITED, options=options)
    assert parents_of(read) == {"Be brief.": None, "Why?": "Be brief.", "Why tides?": "Be brief."}


def test_parts_of_answers_are_read(tmp_path: Path) -> None:
    agent = {"id": "call_1", "name": "tide", "args": '{"at": "Brest"}', "output": "7 m", "type": "tool_call"}
    older = {"id": "call_2", "type": "function", "function": {"name": "sum", "arguments": {"a": 1}, "output": ""}}
    content = [
        {"type": "think", "think": "A table?"},
        {"type": "text", "text": {"value": "Let me look."}},
        None,
        {"type": "tool_call", "tool_call": agent},
        {"type": "agent_update", "agent_update": {}},
        {"type": "text", "text": "Seven metres."},
        {"type": "image_file", "image_file": {"filename": "tide.png"}},
        {"type": "tool_call", "tool_call": older},
        {"type": "error", "error": "Too long"},
    ]
    branch = branch_of(_import(tmp_path, QUESTION, librechat_message("a2", "u1", False, "", content=content)))
    assert branch[1] == {
        "role": "assistant",
        "content": "Let me look.",
        "reasoning_content": "A table?",
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "tide", "arguments": '{"at": "Brest"}'}}
        ],
    }
    assert branch[2] == {"role": "tool", "tool_call_id": "call_1", "content": "7 m"}
    assert branch[3]["content"] == "Seven metres.\n\n[image tide.png: not in the export]\n\nToo long"
    assert branch[3]["tool_calls"][0]["function"] == {"name": "sum", "arguments": '{"a":1}'}


def test_thinking_in_the_text_of_older_answers_is_reasoning(tmp_path: Path) -> None:
    answer = librechat_message("a2", "u1", False, ":::thinking\nA table?\n:::\nThe moon.")
    assert branch_of(_import(tmp_path, QUESTION, answer))[-1] == {
        "role": "assistant",
        "content": "The moon.",
        "reasoning_content": "A table?",
    }


def test_an_answer_that_repeats_itself_is_read_at_once(tmp_path: Path) -> None:
    """A model that is caught in a loop begins to think thousands of times: that took minutes."""
    text = ":::thinking\n" * 100_000
    answer = librechat_message("a2", "u1", False, text)
    assert branch_of(_import(tmp_path, QUESTION, answer))[-1]["content"] == text


def test_files_are_named_and_states_kept(tmp_path: Path) -> None:
    files = [
        {"file_id": "f", "filename": "a.pdf", "type": "application/pdf"},
        {"filename": "b.png", "type": "image/png"},
    ]
    read = _import(
        tmp_path,
        QUESTION | {"files": files},
        ANSWER | {"unfinished": True},
        OTHER | {"error": True},
        librechat_message("a5", "u1", False, "", finish_reason="incomplete"),
    )
    texts = [(message.message["content"], message.status) for message in read.messages]
    assert texts == [
        ("Why?\n\n[file a.pdf]\n\n[image b.png: not in the export]", "complete"),
        ("The moon.", "interrupted"),
        ("Gravity.", "failed"),
    ]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"messages": None}, "has neither a list 'messages' nor a list 'messagesTree'"),
        ({"messages": [{"text": "x"}]}, "has a message without 'messageId'"),
        ({"conversationId": ""}, "has no 'conversationId'"),
    ],
)
def test_a_malformed_conversation_is_skipped(tmp_path: Path, fields: Json, reason: str) -> None:
    read = read_all(write_json(tmp_path / "chat.json", librechat_conversation(QUESTION, **fields)))
    assert read == [SkippedConversation("chat.json, conversation 1 ('Tides')", reason)]
