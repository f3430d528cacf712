"""Files for the import are recognised by their content, and what is wrong with them is said in a sentence."""

from __future__ import annotations

import json
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest

from mistral_api.conversations.importing.export_file import ExportFile, SkippedConversation, UnreadableFile
from mistral_api.conversations.importing.imported import ImportedConversation
from tests.support.chat_exports import (
    TARGET,
    chatgpt_chat,
    librechat_conversation,
    librechat_message,
    read_all,
    webui_chat,
    webui_message,
    write_lines,
    write_zip,
)

MESSAGE: dict[str, Any] = {
    "role": "user", "content": "Hi", "tool_calls": None, "id": "019f0000-0000-7000-8000-000000000001",
    "created_at": 1_750_000_000.123456, "model": None, "request_id": "r", "status": "complete", "usage": None,
    "parent_id": None,
}  # fmt: skip
LINE: dict[str, Any] = {
    "id": "one", "object": "conversation", "session_id": "one", "title": None, "metadata": {},
    "created_at": 1_750_000_000.5, "updated_at": 1_750_000_001, "message_count": 1, "owner": "local",
    "head_id": MESSAGE["id"], "messages": [MESSAGE],
}  # fmt: skip
FINE_TUNING = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
WEBUI = webui_chat(webui_message("u1", None, "user", "Hi"))
LIBRECHAT = librechat_conversation(librechat_message("u1", None, True, "Hi"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (json.dumps(LINE), "jsonl"),
        (json.dumps({"messages": FINE_TUNING}), "openai-finetune"),
        (json.dumps([WEBUI]), "open-webui"),
        (json.dumps([WEBUI["chat"]]), "open-webui"),
        (json.dumps(WEBUI), "open-webui"),
        (json.dumps(LIBRECHAT), "librechat"),
        (json.dumps([chatgpt_chat(1)], indent=1), "chatgpt"),
        (json.dumps([{"title": "broken"}, 3, chatgpt_chat(1)]), "chatgpt"),
        (json.dumps(chatgpt_chat(1)), "chatgpt"),
        ("", "jsonl"),
    ],
)
@pytest.mark.parametrize("lead", ["", "\n  ", "\ufeff"], ids=["plain", "white space", "byte order mark"])
def test_a_format_is_recognised_by_its_content(tmp_path: Path, text: str, expected: str, lead: str) -> None:
    path = tmp_path / "any-name.txt"
    path.write_text(lead + text if text else "", encoding="utf-8")
    assert ExportFile(path).format == expected
    assert all(isinstance(each, ImportedConversation | SkippedConversation) for each in read_all(path))
    if text:
        assert any(isinstance(each, ImportedConversation) for each in read_all(path))


@pytest.mark.parametrize(
    "text", ["[]", "{}", "hello", '{"a": 1}\n', '[{"a": 1}]', "\x00\x01", '{"messages"', "[[[1]]]"]
)
def test_anything_else_is_refused_with_what_was_expected(tmp_path: Path, text: str) -> None:
    path = tmp_path / "odd.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UnreadableFile, match=r"odd\.json has no format .* expected: .*Open WebUI.*ChatGPT"):
        ExportFile(path)


def test_a_zip_is_refused_for_what_it_is(tmp_path: Path) -> None:
    other = write_zip(tmp_path / "other.zip", {"readme.txt": b"hello"})
    with pytest.raises(UnreadableFile, match=r"other\.zip is a ZIP without conversations\.json"):
        ExportFile(other)
    with pytest.raises(UnreadableFile, match=r"other\.zip is a ZIP, as ChatGPT"):
        ExportFile(other, "librechat")


def test_a_damaged_zip_ends_in_a_sentence(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "export.zip", {"conversations.json": [chatgpt_chat(n) for n in range(50)]})
    with zipfile.ZipFile(path) as archive:
        offset = archive.infolist()[0].header_offset + 200
    data = bytearray(path.read_bytes())
    data[offset : offset + 20] = bytes(20)
    path.write_bytes(data)
    with pytest.raises(UnreadableFile, match=r"export\.zip is a damaged ZIP|the JSON is broken"):
        list(ExportFile(path).conversations(TARGET))


def test_a_zip_with_a_password_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "export.zip", {"conversations.json": [chatgpt_chat(1)]})
    data = path.read_bytes()
    # The flag of encryption, in the entry's header and in the directory.
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = data.index(mark) + offset
        data = data[:start] + bytes([data[start] | 1]) + data[start + 1 :]
    path.write_bytes(data)
    with pytest.raises(UnreadableFile, match=r"export\.zip has a password"):
        list(ExportFile(path).conversations(TARGET))


def test_broken_json_ends_the_file_after_what_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "conversations.json"
    path.write_text(json.dumps([chatgpt_chat(1), chatgpt_chat(2)])[:-400], encoding="utf-8")
    found: list[object] = []
    with pytest.raises(UnreadableFile, match=r"conversations\.json: the JSON is broken behind conversation 1; "):
        found.extend(ExportFile(path).conversations(TARGET))
    reading = ExportFile(path).conversations(TARGET)
    assert isinstance(next(reading), ImportedConversation)


def test_malformed_lines_are_skipped_with_their_place(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "export.jsonl", [LINE, [1], LINE])
    path.write_text(path.read_text(encoding="utf-8") + "\n" + json.dumps(LINE)[:-30])
    first, second, third, last = read_all(path)
    assert isinstance(first, ImportedConversation)
    assert second == SkippedConversation("export.jsonl, line 2", "is no object")
    assert isinstance(third, ImportedConversation)
    assert isinstance(last, SkippedConversation)
    assert last.place == "export.jsonl, line 5"
    assert last.reason.startswith("is no JSON")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"owner": None}, "has no text 'owner'"),
        ({"session_id": "a b"}, "has a 'session_id' that is none"),
        ({"head_id": "019f0000-0000-7000-8000-000000000009"}, "has a 'head_id' that is none of its messages"),
        ({"head_id": 3}, "has a 'head_id' that is no UUID"),
        ({"created_at": "now"}, "has no time 'created_at' in Unix seconds"),
        ({"updated_at": 1e300}, "has a time 'updated_at' that is out of range"),
        ({"messages": {}}, "has no list 'messages'"),
        ({"messages": [MESSAGE, MESSAGE]}, "has no 'id' of its own in messages[1]"),
        ({"messages": [3]}, "has no 'id' of its own in messages[0]"),
        ({"messages": [MESSAGE | {"parent_id": LINE["id"]}]}, "has a 'parent_id' that is no UUID in messages[0]"),
        ({"messages": [MESSAGE | {"status": "odd"}]}, "has a 'status' that is none of complete, interrupted, failed"),
        ({"messages": [MESSAGE | {"content": 3}]}, "has a 'content' that is no text, list or null"),
        ({"messages": [MESSAGE | {"tool_calls": "x"}]}, "has 'tool_calls' that are no list"),
        ({"messages": [MESSAGE | {"role": None}]}, "has no text 'role'"),
    ],
)
def test_a_malformed_line_names_the_field(tmp_path: Path, fields: dict[str, Any], reason: str) -> None:
    (skipped,) = read_all(write_lines(tmp_path / "export.jsonl", [LINE | fields]))
    assert isinstance(skipped, SkippedConversation)
    assert skipped.reason.startswith(reason)


def test_lines_for_fine_tuning_continue_one_another(tmp_path: Path) -> None:
    longer = [*FINE_TUNING, {"role": "user", "content": "More"}, {"role": "assistant", "content": "Yes"}]
    other = [*FINE_TUNING[:1], {"role": "assistant", "content": "Good day"}]
    lines = [{"messages": FINE_TUNING}, {"messages": longer}, {"messages": other}, {"messages": FINE_TUNING[:1]}]
    first, second, third, skipped = read_all(write_lines(tmp_path / "tuning.jsonl", lines))
    assert isinstance(first, ImportedConversation)
    assert isinstance(second, ImportedConversation)
    assert isinstance(third, ImportedConversation)
    assert first.session_id == second.session_id != third.session_id
    assert [message.id for message in second.messages][:2] == [message.id for message in first.messages]
    assert skipped == SkippedConversation("tuning.jsonl, line 4", "has no answer")


def test_a_large_array_is_read_one_conversation_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "conversations.json"
    with path.open("w") as file:
        for number in range(200):
            file.write(("[" if number == 0 else ",") + json.dumps(chatgpt_chat(number, 2, "x" * 50_000)))
        file.write("]")
    assert path.stat().st_size > 40_000_000
    tracemalloc.start()
    try:
        count = sum(1 for _ in ExportFile(path).conversations(TARGET))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 200
    assert peak < 4_000_000
