"""Small exports of chat programs, made up for the tests, and what their import gives."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mistral_api.conversations.importing.export_file import ExportFile, SkippedConversation
from mistral_api.conversations.importing.imported import ImportedConversation
from mistral_api.conversations.importing.source_tree import ImportTarget

TARGET = ImportTarget("local", 1 << 20)
START = 1_750_000_000
PNG = b"\x89PNG\r\n\x1a\n" + bytes(16)
Json = dict[str, Any]


def write_json(path: Path, value: object) -> Path:
    """Write a value as JSON to a file, and return the file."""
    path.write_text(json.dumps(value))
    return path


def write_lines(path: Path, values: list[Any]) -> Path:
    """Write values as lines of JSON to a file, and return the file."""
    path.write_text("".join(f"{json.dumps(value)}\n" for value in values))
    return path


def write_zip(path: Path, entries: Mapping[str, object]) -> Path:
    """Write a ZIP of entries: bytes as they are, anything else as JSON. Return the file."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in entries.items():
            archive.writestr(name, value if isinstance(value, bytes) else json.dumps(value))
    return path


def read_all(path: Path, format_name: str | None = None) -> list[ImportedConversation | SkippedConversation]:
    """Return everything that a file gives."""
    return list(ExportFile(path, format_name).conversations(TARGET))


def read_one(path: Path) -> ImportedConversation:
    """Return the only conversation of a file."""
    (read,) = read_all(path)
    assert isinstance(read, ImportedConversation), read
    return read


def branch_of(conversation: ImportedConversation) -> list[Json]:
    """Return the messages of the current branch, oldest first, without their null fields."""
    by_id = {message.id: message for message in conversation.messages}
    branch: list[Json] = []
    message_id = conversation.head_id
    while message_id is not None:
        message = by_id[message_id]
        branch.append({name: value for name, value in message.message.items() if value is not None})
        message_id = message.parent_id
    return branch[::-1]


def parents_of(conversation: ImportedConversation) -> dict[str, str | None]:
    """Return the text of each message's parent, by the message's text."""
    texts = {message.id: str(message.message.get("content")) for message in conversation.messages}
    return {
        texts[each.id]: texts[each.parent_id] if each.parent_id is not None else None for each in conversation.messages
    }


def chatgpt_node(key: str, parent: str | None, role: str, *parts: Any, **fields: Any) -> Json:
    """Return a node of a ChatGPT conversation. ``content`` and ``metadata`` replace what ``parts`` give."""
    message: Json = {
        "id": key,
        "author": {"role": role, "name": None, "metadata": {}},
        "create_time": START + int(key.strip("abcdefghijklmnopqrstuvwxyz-") or 0),
        "content": {"content_type": "text", "parts": list(parts)},
        "status": "finished_successfully",
        "metadata": {},
        "recipient": "all",
    }
    return {"id": key, "parent": parent, "children": [], "message": message | fields}


def chatgpt_conversation(*nodes: Json, current: str | None = None, **fields: Any) -> Json:
    """Return a ChatGPT conversation of these nodes, below an empty root, the last one current."""
    root: Json = {"id": "root", "parent": None, "children": [], "message": None}
    return {
        "title": "Tides",
        "create_time": START + 0.25,
        "update_time": START + 99.5,
        "mapping": {node["id"]: node for node in (root, *nodes)},
        "current_node": current or (nodes[-1]["id"] if nodes else "root"),
        "conversation_id": "11111111-2222-4333-8444-555555555555",
        "default_model_slug": "gpt-5",
    } | fields


def chatgpt_chat(number: int, turns: int = 1, text: str = "") -> Json:
    """Return a ChatGPT conversation with its own id, of turns of user and assistant."""
    nodes: list[Json] = []
    for turn in range(turns):
        parent = nodes[-1]["id"] if nodes else "root"
        nodes.append(chatgpt_node(f"u{turn * 2}", parent, "user", f"Question {turn} of {number}{text}"))
        nodes.append(chatgpt_node(f"a{turn * 2 + 1}", f"u{turn * 2}", "assistant", f"Answer {turn} of {number}{text}"))
    return chatgpt_conversation(*nodes, conversation_id=f"chat-{number}", title=f"Chat {number}")


def webui_message(key: str, parent: str | None, role: str, content: Any, **fields: Any) -> Json:
    """Return a message of an Open WebUI chat."""
    number = int(key.strip("abcdefghijklmnopqrstuvwxyz") or 0)
    model = {"model": "mistral:7b", "done": True} if role == "assistant" else {"models": ["mistral:7b"]}
    return {
        "id": key,
        "parentId": parent,
        "childrenIds": [],
        "role": role,
        "content": content,
        "timestamp": START + number,
    } | (model | fields)


def webui_chat(*messages: Json, current: str | None = None, chat: Json | None = None, **fields: Any) -> Json:
    """Return a chat of an Open WebUI export, the last message current."""
    inner = {
        "title": "Tides",
        "models": ["mistral:7b"],
        "history": {
            "messages": {message["id"]: message for message in messages},
            "currentId": current or messages[-1]["id"],
        },
        "timestamp": START * 1000,
    } | (chat or {})
    outer = {
        "id": "22222222-2222-4333-8444-555555555555",
        "user_id": "u",
        "title": "Tides",
        "chat": inner,
        "created_at": START,
        "updated_at": START + 99,
        "archived": False,
    }
    return outer | fields


def librechat_message(key: str, parent: str | None, by_user: bool, text: str, **fields: Any) -> Json:
    """Return a message of a LibreChat conversation."""
    number = int(key.strip("abcdefghijklmnopqrstuvwxyz") or 0)
    return {
        "messageId": key,
        "parentMessageId": parent or "00000000-0000-0000-0000-000000000000",
        "isCreatedByUser": by_user,
        "sender": "User" if by_user else "Mistral",
        "text": text,
        "model": None if by_user else "mistral-small",
        "createdAt": f"2025-06-15T15:06:{40 + number}.250Z",
        "error": False,
        "unfinished": False,
    } | fields


def librechat_conversation(*messages: Json, **fields: Any) -> Json:
    """Return a LibreChat export with a list of messages."""
    return {
        "conversationId": "33333333-2222-4333-8444-555555555555",
        "endpoint": "Mistral",
        "title": "Tides",
        "exportAt": "15:06:40 GMT+0000",
        "branches": True,
        "recursive": False,
        "options": {"model": "mistral-small", "promptPrefix": None},
        "messages": list(messages),
    } | fields
