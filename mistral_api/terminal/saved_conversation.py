"""A conversation as a file: Markdown to read, or JSON where the name ends so."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from mistral_api.payload_types import JsonObject
from mistral_api.system.files import open_private
from mistral_api.terminal.chat import message_text


def save(path: Path, session_id: str, messages: Sequence[JsonObject]) -> None:
    """Write a new file that is its owner's alone. Raises OSError, FileExistsError for one that exists."""
    text = _to_json(session_id, messages) if path.suffix.lower() == ".json" else _to_markdown(session_id, messages)
    with open(path, "x", encoding="utf-8", opener=open_private) as file:
        file.write(text)


def _to_json(session_id: str, messages: Sequence[JsonObject]) -> str:
    return json.dumps({"session_id": session_id, "messages": messages}, indent=1) + "\n"


def _to_markdown(session_id: str, messages: Sequence[JsonObject]) -> str:
    sections = [f"## {message.get('role')}\n\n{message_text(message)}\n" for message in messages]
    # Half a character, which no encoding can write, is a question mark.
    text = "\n".join([f"# {session_id}\n", *sections])
    return text.encode("utf-8", "replace").decode()
