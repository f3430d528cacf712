"""Open WebUI's chat export becomes conversations with their branches, tools, reasoning and images."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

import pytest

from mistral_api.conversations.importing.export_file import SkippedConversation
from mistral_api.conversations.importing.imported import ImportedConversation
from tests.support.chat_exports import (
    START,
    branch_of,
    parents_of,
    read_all,
    read_one,
    webui_chat,
    webui_message,
    write_json,
)

QUESTION = webui_message("u1", None, "user", "Why?")
ANSWER = webui_message("a2", "u1", "assistant", "The moon.")
IMAGE = "data:image/png;base64,AAAA"


def _import(tmp_path: Path, *messages: Any, **fields: Any) -> ImportedConversation:
    return read_one(write_json(tmp_path / "chats.json", [webui_chat(*messages, **fields)]))


def test_a_chat_keeps_id_title_times_models_and_known_usage(tmp_path: Path) -> None:
    counted = webui_message("a3", "u1", "assistant", "X", usage={"prompt_tokens": 7, "completion_tokens": 2.5})
    read = _import(tmp_path, QUESTION, ANSWER, counted)
    assert read.session_id == "open-webui:22222222-2222-4333-8444-555555555555"
    assert (read.title, read.created_at.timestamp(), read.updated_at.timestamp()) == ("Tides", START, START + 99)
    assert [(each.model, each.created_at.timestamp(), each.prompt_tokens) for each in read.messages] == [
        (None, START + 1, None),
        ("mistral:7b", START + 2, None),
        ("mistral:7b", START + 3, 7),
    ]
    assert read.messages[2].completion_tokens is None


def test_answers_side_by_side_and_edits_are_branches(tmp_path: Path) -> None:
    other = webui_message("a3", "u1", "assistant", "Gravity.", model="other", modelIdx=1)
    edited = webui_message("u4", None, "user", "Why tides?")
    read = _import(tmp_path, QUESTION, ANSWER, other, edited, current="a2")
    assert parents_of(read) == {"Why?": None, "The moon.": "Why?", "Gravity.": "Why?", "Why tides?": None}
    assert [message["content"] for message in branch_of(read)] == ["Why?", "The moon."]


@pytest.mark.parametrize("chat", [{"params": {"system": "Be brief."}}, {"system": "Be brief."}])
def test_the_system_text_of_a_chat_leads_every_branch(tmp_path: Path, chat: Any) -> None:
    read = _import(tmp_path, QUESTION, ANSWER, webui_message("u4", None, "user", "Tides?"), chat=chat)
    assert parents_of(read) == {
        "Be brief.": None,
        "Why?": "Be brief.",
        "The moon.": "Why?",
        "Tides?": "Be brief.",
    }
    assert read.messages[0].message["role"] == "system"


TOOL_CALL = {"id": "call_1", "type": "function", "function": {"name": "tide", "arguments": '{"at": "Brest"}'}}
ANSWER_WITH_TOOL = [
    {
        "role": "assistant",
        "content": "Let me look.",
        "reasoning_content": "A tide\n> table?",
        "tool_calls": [TOOL_CALL],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": '7 m > "6 m"'},
    {"role": "assistant", "content": "Seven metres."},
]


def test_the_output_of_newer_answers_is_read(tmp_path: Path) -> None:
    output = [
        {"type": "reasoning", "summary": None, "content": [{"type": "output_text", "text": "A tide\n> table?"}]},
        {"type": "message", "content": [{"type": "output_text", "text": "Let me look."}]},
        {"type": "function_call", "id": "x", "call_id": "call_1", "name": "tide", "arguments": '{"at": "Brest"}'},
        {
            "type": "function_call_output",
            "call_id": "call_1",
            "output": [{"type": "input_text", "text": '7 m > "6 m"'}],
        },
        {"type": "message", "content": [{"type": "output_text", "text": "Seven metres."}]},
    ]
    answer = webui_message("a2", "u1", "assistant", "<details>…</details>Seven metres.", output=output)
    later = webui_message("u3", "a2", "user", "Thanks")
    branch = branch_of(_import(tmp_path, QUESTION, answer, later))
    assert branch[1:-1] == ANSWER_WITH_TOOL
    assert branch[-1]["content"] == "Thanks"


@pytest.mark.parametrize("quote", ['"', "'"])
def test_the_details_in_older_answers_are_read(tmp_path: Path, quote: str) -> None:
    def escaped(value: object) -> str:
        return html.escape(json.dumps(value)) if quote == '"' else json.dumps(value).replace("'", "&apos;")

    arguments, result = escaped(json.dumps({"at": "Brest"})), escaped('7 m > "6 m"')
    text = (
        '<details type="reasoning" done="true" duration="3">\n<summary>Thought for 3 seconds</summary>\n'
        "&gt; A tide\n&gt; &gt; table?\n</details>\nLet me look.\n"
        '<details type="tool_calls" done="true" id="call_1" name="tide" '
        f"arguments={quote}{arguments}{quote} result={quote}{result}{quote} files=''>\n"
        "<summary>Tool Executed</summary>\n</details>\nSeven metres."
    )
    branch = branch_of(_import(tmp_path, QUESTION, webui_message("a2", "u1", "assistant", text)))
    assert branch[1:] == ANSWER_WITH_TOOL


def test_other_details_and_details_of_users_are_text(tmp_path: Path) -> None:
    text = '<details type="reasoning"><summary>x</summary>mine</details>'
    plain = "<details><summary>More</summary>text</details>\n  and code\n"
    messages = (webui_message("u1", None, "user", text), webui_message("a2", "u1", "assistant", plain))
    assert [message["content"] for message in branch_of(_import(tmp_path, *messages))] == [text, plain]


def test_an_answer_that_repeats_itself_is_read_at_once(tmp_path: Path) -> None:
    """A model that is caught in a loop opens thousands of details and closes none: that took hours."""
    text = '<details type="reasoning"><summary></summary>' * 4_000
    assert branch_of(_import(tmp_path, QUESTION, webui_message("a2", "u1", "assistant", text)))[-1]["content"] == text


def test_images_and_files_are_kept_or_named(tmp_path: Path) -> None:
    files = [
        {"type": "image", "url": IMAGE},
        {"type": "image", "url": "5d5e-id", "name": "tide.png"},
        {"type": "file", "name": "tables.pdf", "id": "f"},
    ]
    parts = [{"type": "text", "text": "See"}, {"type": "text", "text": "here"}]
    (message,) = branch_of(_import(tmp_path, webui_message("u1", None, "user", parts, files=files)))
    assert message["content"] == [
        {"type": "text", "text": "See\n\nhere"},
        {"type": "image_url", "image_url": {"url": IMAGE}},
        {"type": "text", "text": "[image tide.png: not in the export]"},
        {"type": "text", "text": "[file tables.pdf]"},
    ]
    drawn = webui_message("a2", "u1", "assistant", "", files=files[:1])
    assert branch_of(_import(tmp_path, QUESTION, drawn))[-1]["content"] == [
        {"type": "image_url", "image_url": {"url": IMAGE}}
    ]


def test_failed_and_unfinished_answers_say_so(tmp_path: Path) -> None:
    failed = webui_message("a2", "u1", "assistant", "", error={"content": "No such model"})
    plain = webui_message("a3", "u1", "assistant", "", error="Out of memory")
    cut = webui_message("a4", "u1", "assistant", "The", done=False)
    empty = webui_message("a5", "u1", "assistant", None)
    read = _import(tmp_path, QUESTION, failed, plain, cut, empty)
    assert [(each.message.get("content"), each.status) for each in read.messages[1:]] == [
        ("No such model", "failed"),
        ("Out of memory", "failed"),
        ("The", "interrupted"),
    ]
    assert read.head_id == read.messages[0].id


def test_older_exports_are_read(tmp_path: Path) -> None:
    inner = webui_chat(QUESTION, ANSWER)["chat"]
    alone = read_one(write_json(tmp_path / "inner.json", [inner]))
    again = read_one(write_json(tmp_path / "again.json", [inner]))
    assert alone.session_id == again.session_id
    assert [message["content"] for message in branch_of(alone)] == ["Why?", "The moon."]
    listed = {"title": "Tides", "timestamp": START, "history": {}, "messages": [
        {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "The moon."},
    ]}  # fmt: skip
    oldest = read_one(write_json(tmp_path / "list.json", [listed]))
    assert parents_of(oldest) == {"Why?": None, "The moon.": "Why?"}
    single = read_one(write_json(tmp_path / "single.json", webui_chat(QUESTION)))
    assert branch_of(single)[0]["content"] == "Why?"


def test_a_malformed_chat_is_skipped(tmp_path: Path) -> None:
    chats = [webui_chat(QUESTION), {"id": "x", "title": "Odd", "chat": {"history": []}}, {"chat": {"messages": []}}]
    good, *skipped = read_all(write_json(tmp_path / "chats.json", chats))
    assert isinstance(good, ImportedConversation)
    assert skipped == [
        SkippedConversation("chats.json, conversation 2 ('Odd')", "has neither 'history.messages' nor 'messages'"),
        SkippedConversation("chats.json, conversation 3", "has no message"),
    ]


def test_the_current_message_may_be_named_beside_the_chat(tmp_path: Path) -> None:
    chat = webui_chat(QUESTION, ANSWER, webui_message("a3", "u1", "assistant", "Gravity."), current_message_id="a2")
    del chat["chat"]["history"]["currentId"]
    read = read_one(write_json(tmp_path / "chats.json", [chat]))
    assert [message["content"] for message in branch_of(read)] == ["Why?", "The moon."]
