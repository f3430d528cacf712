"""ChatGPT's data export becomes conversations with their branches, tools, reasoning and images."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mistral_api.conversations.importing.export_file import SkippedConversation
from mistral_api.conversations.importing.imported import ImportedConversation
from tests.support.chat_exports import (
    PNG,
    START,
    branch_of,
    chatgpt_conversation,
    chatgpt_node,
    parents_of,
    read_all,
    read_one,
    write_json,
    write_zip,
)

QUESTION = chatgpt_node("u1", "root", "user", "Why?")
ANSWER = chatgpt_node("a2", "u1", "assistant", "The moon.", metadata={"model_slug": "o4-mini"})


def _import(tmp_path: Path, *nodes: Any, **fields: Any) -> ImportedConversation:
    return read_one(write_json(tmp_path / "conversations.json", [chatgpt_conversation(*nodes, **fields)]))


def test_a_chatgpt_conversation_keeps_id_title_times_and_models(tmp_path: Path) -> None:
    read = _import(tmp_path, QUESTION, ANSWER, chatgpt_node("a3", "u1", "assistant", "And the sun."))
    assert (read.session_id, read.owner) == ("chatgpt:11111111-2222-4333-8444-555555555555", "local")
    assert read.metadata == {"source": "chatgpt", "source_id": "11111111-2222-4333-8444-555555555555"}
    assert (read.title, read.created_at.timestamp(), read.updated_at.timestamp()) == (
        "Tides",
        START + 0.25,
        START + 99.5,
    )
    assert [(each.model, each.created_at.timestamp(), each.status) for each in read.messages] == [
        (None, START + 1, "complete"),
        ("o4-mini", START + 2, "complete"),
        ("gpt-5", START + 3, "complete"),
    ]
    assert all(each.prompt_tokens is None and each.completion_tokens is None for each in read.messages)


def test_regenerated_answers_and_edited_questions_are_branches(tmp_path: Path) -> None:
    nodes = (
        QUESTION,
        ANSWER,
        chatgpt_node("a3", "u1", "assistant", "Gravity."),
        chatgpt_node("u4", "a2", "user", "How far?"),
        chatgpt_node("u5", "root", "user", "Why tides?"),
    )
    read = _import(tmp_path, *nodes, current="a3")
    assert parents_of(read) == {
        "Why?": None,
        "The moon.": "Why?",
        "Gravity.": "Why?",
        "How far?": "The moon.",
        "Why tides?": None,
    }
    assert [message["content"] for message in branch_of(read)] == ["Why?", "Gravity."]


@pytest.mark.parametrize(
    "hidden",
    [
        chatgpt_node("s1", "root", "system", ""),
        chatgpt_node("s1", "root", "system", "internal", metadata={"is_visually_hidden_from_conversation": True}),
        chatgpt_node("s1", "root", "user", "", content=None),
        chatgpt_node("s1", "root", "assistant", "x", content={"content_type": "reasoning_recap", "content": "3 s"}),
        {"id": "s1", "parent": "root", "children": [], "message": None},
        {"id": "s1", "parent": "root"},
    ],
    ids=["empty", "hidden", "no content", "recap", "no message", "no field"],
)
def test_nodes_that_show_nothing_are_left_out(tmp_path: Path, hidden: Any) -> None:
    question = chatgpt_node("u2", "s1", "user", "Why?")
    read = _import(tmp_path, hidden, question, chatgpt_node("a3", "u2", "assistant", "The moon."))
    assert parents_of(read) == {"Why?": None, "The moon.": "Why?"}


def test_system_messages_and_the_users_own_instructions_are_system_messages(tmp_path: Path) -> None:
    content = {"content_type": "user_editable_context", "user_profile": "I sail.", "user_instructions": "Be brief."}
    hidden = {"is_visually_hidden_from_conversation": True}
    nodes = (
        chatgpt_node("c1", "root", "user", content=content, metadata=hidden),
        chatgpt_node("s2", "c1", "system", "You are a pirate."),
        chatgpt_node("u3", "s2", "user", "Why?"),
    )
    assert branch_of(_import(tmp_path, *nodes)) == [
        {"role": "system", "content": "I sail.\n\nBe brief."},
        {"role": "system", "content": "You are a pirate."},
        {"role": "user", "content": "Why?"},
    ]
    older = {"about_user_message": "I sail.", "about_model_message": None}
    node = chatgpt_node(
        "c1", "root", "user", content={"content_type": "user_editable_context", "text": ""},
        metadata=hidden | {"user_context_message_data": older},
    )  # fmt: skip
    assert branch_of(_import(tmp_path, node)) == [{"role": "system", "content": "I sail."}]


def test_thoughts_are_the_reasoning_of_the_answer_behind_them(tmp_path: Path) -> None:
    thoughts = {
        "content_type": "thoughts",
        "thoughts": [{"summary": "s", "content": "First the moon."}, {"summary": "Then the sun.", "content": ""}],
    }
    recap = {"content_type": "reasoning_recap", "content": "Thought for 3s"}
    nodes = (
        QUESTION,
        chatgpt_node("t2", "u1", "assistant", content=thoughts),
        chatgpt_node("r3", "t2", "assistant", content=recap),
        chatgpt_node("a4", "r3", "assistant", "Both."),
    )
    answer = branch_of(_import(tmp_path, *nodes))[-1]
    assert answer == {
        "role": "assistant",
        "content": "Both.",
        "reasoning_content": "First the moon.\n\nThen the sun.",
    }
    stopped = branch_of(_import(tmp_path, *nodes[:2]))
    assert stopped[-1] == {"role": "assistant", "reasoning_content": "First the moon.\n\nThen the sun."}
    asked_again = branch_of(_import(tmp_path, *nodes[:2], chatgpt_node("u5", "t2", "user", "Well?")))
    assert [message["role"] for message in asked_again] == ["user", "assistant", "user"]


@pytest.mark.parametrize(
    ("text", "arguments"),
    [('{"query": "tide"}', {"query": "tide"}), ("print(1)", {"input": "print(1)"}), ("[1]", {"input": "[1]"})],
)
def test_messages_to_tools_are_calls_with_results(tmp_path: Path, text: str, arguments: Any) -> None:
    nodes = (
        QUESTION,
        chatgpt_node(
            "c2", "u1", "assistant", content={"content_type": "code", "language": "python", "text": text},
            recipient="python",
        ),
        chatgpt_node("t3", "c2", "tool", content={"content_type": "execution_output", "text": "1"}),
        chatgpt_node("t4", "t3", "tool", content={"content_type": "tether_quote", "url": "https://x", "text": "high"}),
        chatgpt_node("a5", "t4", "assistant", "Done."),
    )  # fmt: skip
    _, call, first, second, answer = branch_of(_import(tmp_path, *nodes))
    (tool_call,) = call["tool_calls"]
    assert (tool_call["type"], tool_call["function"]["name"]) == ("function", "python")
    assert json.loads(tool_call["function"]["arguments"]) == arguments
    assert len(tool_call["id"]) == 9
    assert tool_call["id"].isalnum()
    assert first == {"role": "tool", "tool_call_id": tool_call["id"], "content": "1"}
    assert second == {"role": "tool", "tool_call_id": tool_call["id"], "content": "https://x\nhigh"}
    assert answer == {"role": "assistant", "content": "Done."}


def test_a_tool_that_nobody_called_speaks_as_the_assistant(tmp_path: Path) -> None:
    assert branch_of(_import(tmp_path, QUESTION, chatgpt_node("t2", "u1", "tool", "Found it.")))[-1] == {
        "role": "assistant",
        "content": "Found it.",
    }


def _picture(pointer: str) -> Any:
    parts = [
        {"content_type": "image_asset_pointer", "asset_pointer": pointer, "width": 1, "height": 1},
        {"content_type": "audio_transcription", "text": "spoken"},
        {"content_type": "audio_asset_pointer", "asset_pointer": "sediment://file_voice"},
        "What is this?",
        None,
        "",
    ]
    attachments = [{"id": "file_abc123", "name": "tide.png"}, {"id": "file-doc", "name": "tables.pdf"}]
    return chatgpt_node(
        "u1", "root", "user",
        content={"content_type": "multimodal_text", "parts": parts}, metadata={"attachments": attachments},
    )  # fmt: skip


@pytest.mark.parametrize("entry", ["file_abc123-tide.png", "user-x/file_abc123-sanitized.dat", "file_abc123.dat"])
def test_images_come_from_the_zip(tmp_path: Path, entry: str) -> None:
    conversation = chatgpt_conversation(_picture("sediment://file_abc123"))
    archive = write_zip(tmp_path / "export.zip", {"x/conversations.json": [conversation], entry: PNG})
    (message,) = branch_of(read_one(archive))
    url = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    assert message["content"] == [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": "spoken"},
        {"type": "text", "text": "[recording file_voice: not in the export]"},
        {"type": "text", "text": "What is this?"},
        {"type": "text", "text": "[file tables.pdf]"},
    ]


@pytest.mark.parametrize("data", [b"no image", None])
def test_images_that_are_not_there_are_named(tmp_path: Path, data: bytes | None) -> None:
    entries: dict[str, object] = {"conversations.json": [chatgpt_conversation(_picture("file-service://file-1"))]}
    archive = write_zip(tmp_path / "export.zip", entries | ({"file-1.png": data} if data else {}))
    (message,) = branch_of(read_one(archive))
    assert message["content"].startswith("[image file-1: not in the export]\n\nspoken\n\n")


def test_numbered_files_of_a_zip_are_read_in_their_order(tmp_path: Path) -> None:
    shards = {
        f"conversations-{number:03}.json": [chatgpt_conversation(QUESTION, conversation_id=f"c{number}")]
        for number in (2, 0, 1)
    }
    others = {"shared_conversations.json": [{"id": "s"}], "export_manifest.json": {}, "chat.html": b"<html>"}
    read = read_all(write_zip(tmp_path / "export.zip", shards | others | {"__MACOSX/conversations.json": b"junk"}))
    assert [each.session_id for each in read if isinstance(each, ImportedConversation)] == [
        "chatgpt:c0",
        "chatgpt:c1",
        "chatgpt:c2",
    ]


def test_unfinished_answers_are_interrupted(tmp_path: Path) -> None:
    for fields in (
        {"status": "in_progress"},
        {"metadata": {"finish_details": {"type": "interrupted"}}},
        {"metadata": {"finish_details": {"type": "max_tokens"}}},
    ):
        read = _import(tmp_path, QUESTION, chatgpt_node("a2", "u1", "assistant", "The", **fields))
        assert [message.status for message in read.messages] == ["complete", "interrupted"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"mapping": None}, "has no object 'mapping'"),
        ({"conversation_id": None}, "has neither 'conversation_id' nor 'id'"),
        ({"mapping": {}}, "says nowhere when it was held"),
        ({"mapping": {"a": {"parent": "b"}, "b": {"parent": "a"}}}, "has messages that follow each other in a circle"),
        ({"mapping": {"a": {"message": 3}, "b": 4}}, "has no message that shows anything"),
    ],
)
def test_a_malformed_conversation_is_named_and_skipped(tmp_path: Path, fields: Any, reason: str) -> None:
    broken = chatgpt_conversation(QUESTION) | fields
    if fields == {"mapping": {}}:
        broken |= {"create_time": None, "update_time": "soon"}
    good = chatgpt_conversation(QUESTION, conversation_id="good")
    first, skipped, last, *more = read_all(write_json(tmp_path / "conversations.json", [good, broken, good, 7]))
    assert isinstance(first, ImportedConversation)
    assert isinstance(last, ImportedConversation)
    assert isinstance(skipped, SkippedConversation)
    assert skipped.place == "conversations.json, conversation 2 ('Tides')"
    assert skipped.reason.startswith(reason)
    assert more == [SkippedConversation("conversations.json, conversation 4", "is no object")]


def test_missing_times_and_parents_are_made_up_for(tmp_path: Path) -> None:
    nodes = (
        chatgpt_node("u1", "lost", "user", "Why?", create_time=None),
        chatgpt_node("a2", "u1", "assistant", "The moon.", create_time="x"),
    )
    read = _import(tmp_path, *nodes, current="lost", title=None)
    assert {message.created_at for message in read.messages} == {datetime.fromtimestamp(START + 0.25, UTC)}
    assert read.title == "Why?"
    assert [message["content"] for message in branch_of(read)] == ["Why?", "The moon."]


def test_odd_ids_become_session_ids(tmp_path: Path) -> None:
    sessions = set()
    for odd in ("a b", "é", "x" * 200, "a/b"):
        session_id = _import(tmp_path, QUESTION, conversation_id=odd).session_id
        assert session_id.startswith("chatgpt:")
        assert len(session_id) == len("chatgpt:") + 32
        sessions.add(session_id)
    assert len(sessions) == 4
