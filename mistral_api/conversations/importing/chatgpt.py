"""ChatGPT's data export: ``conversations.json``, or ``conversations-000.json`` and so on, in a ZIP or unpacked.

OpenAI publishes no description. Sources of what is read here: danny-avila/LibreChat
``api/server/utils/import/importers.js`` (``importChatGptConvo``) and its pull requests 13637 and 15388 (newer exports:
no ``metadata`` in many messages, the model at the conversation, hidden context nodes), mitkury/chatgpt-export-parser
``docs/chatgpt-data-export-format.md`` (the tree), mohamed-chs/convoviz pull request 49 and
daugaard47/ChatGPT_Conversations_To_Markdown pull request 23 (numbered files), jack-driscoll/chatgpt-dataexport
``README.md`` (``.dat`` files that are images).

An element of the array is a conversation: ``mapping`` holds its nodes by id, each with ``parent`` and ``message``,
``current_node`` is the end of the branch that is shown.

- A node without a message, without content, or hidden (``is_visually_hidden_from_conversation``) is left out. The
  user's own instructions (``user_editable_context``) are hidden there, and become a system message here.
- ``thoughts`` become the reasoning of the answer behind them; ``reasoning_recap`` says only how long they took.
- An assistant's message to a ``recipient`` other than ``all`` is a call of that tool, and the messages of the role
  ``tool`` behind it are its results.
- An image is taken from the ZIP (:class:`AttachmentStore`). One that is not there is named in a text.
"""

from __future__ import annotations

import base64
import re
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import orjson

from mistral_api.conversations.importing.answer_builder import (
    derived_call_id,
    image_part,
    join_parts,
    missing_part,
    text_part,
)
from mistral_api.conversations.importing.imported import MalformedConversation
from mistral_api.conversations.importing.source_tree import SourceConversation, SourceNode
from mistral_api.conversations.importing.source_values import (
    json_text,
    object_of,
    objects_of,
    optional_text,
    require_object,
    text_of,
    time_of,
)
from mistral_api.payload_types import JsonObject
from mistral_api.payload_types.chat import ChatMessage, ContentPart, MessageContent
from mistral_api.system.data_urls import data_url

FORMAT = "chatgpt"
# ``file-service://file-abc``, ``sediment://file_abc``
_POINTER = re.compile(r"^[a-z-]+://")
# A name in the archive begins with the id of the file: ``file-abc-holiday.png``, ``file_abc-sanitized.dat``.
_FILE_ID = re.compile(r"file[-_][A-Za-z0-9]+")
_SIGNATURES = (
    (b"\x89PNG\r\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"RIFF", "image/webp"),
)
_MOST_IMAGE_BYTES = 64 << 20


class AttachmentStore:
    """The images beside the conversations in a ZIP, by the id of their file. Without an archive there are none."""

    def __init__(self, archive: zipfile.ZipFile | None = None) -> None:
        self._archive = archive
        self._entries: dict[str, zipfile.ZipInfo] = {}
        for entry in archive.infolist() if archive else []:
            found = _FILE_ID.match(entry.filename.rpartition("/")[2])
            if found:
                self._entries.setdefault(found[0], entry)

    def image_url(self, file_id: str) -> str | None:
        """Return an image as a data URL, None for one that is not there, damaged, or no image."""
        found = _FILE_ID.match(file_id)
        entry = self._entries.get(found[0]) if found else None
        if self._archive is None or entry is None or entry.file_size > _MOST_IMAGE_BYTES:
            return None
        try:
            data = self._archive.read(entry)
        except (zipfile.BadZipFile, zlib.error):
            return None
        media_type = next((kind for signature, kind in _SIGNATURES if data.startswith(signature)), None)
        return data_url(media_type, base64.b64encode(data).decode()) if media_type else None


def read_conversation(value: JsonObject, attachments: AttachmentStore) -> SourceConversation:
    """Return one element of the array. Raises MalformedConversation."""
    mapping = require_object(value, "mapping")
    source_id = optional_text(value.get("conversation_id")) or optional_text(value.get("id"))
    if source_id is None:
        raise MalformedConversation("has neither 'conversation_id' nor 'id'")
    reader = _MappingReader(mapping, attachments, optional_text(value.get("default_model_slug")))
    return SourceConversation(
        format=FORMAT,
        id=source_id,
        title=optional_text(value.get("title")),
        created_at=time_of(value.get("create_time")),
        updated_at=time_of(value.get("update_time")),
        nodes=[reader.node(key) for key in mapping],
        current=optional_text(value.get("current_node")),
    )


class _MappingReader:
    def __init__(self, mapping: JsonObject, attachments: AttachmentStore, model: str | None) -> None:
        self._mapping = mapping
        self._attachments = attachments
        self._model = model

    def node(self, key: str) -> SourceNode:
        """Return the node with this id."""
        raw = object_of(self._mapping[key])
        node = SourceNode(key=key, parent=optional_text(raw.get("parent")))
        message = object_of(raw.get("message"))
        content, metadata = object_of(message.get("content")), object_of(message.get("metadata"))
        kind, role = content.get("content_type"), _role(message)
        if kind == "user_editable_context":
            node.messages = _system_messages(_instructions(content, metadata))
        elif kind == "thoughts":
            node.reasoning = _thoughts(content)
        elif role and kind != "reasoning_recap" and not metadata.get("is_visually_hidden_from_conversation"):
            node.messages = self._messages(key, role, message)
        node.created_at = time_of(message.get("create_time"))
        node.status = "complete" if _is_complete(message, metadata) else "interrupted"
        node.model = optional_text(metadata.get("model_slug")) or self._model
        return node

    def _messages(self, key: str, role: str, message: JsonObject) -> list[ChatMessage]:
        content = self._content(message)
        if content is None:
            return []
        if role == "system":
            return _system_messages(_plain_text(content))
        if role == "assistant" and _recipient(message) != "all":
            return [_tool_call(key, _recipient(message), content)]
        call_id = self._answered_call(key) if role == "tool" else None
        if call_id is not None:
            return [{"role": "tool", "tool_call_id": call_id, "content": content}]
        # What a tool shows without having been called is part of the answer.
        return [{"role": "user" if role == "user" else "assistant", "content": content}]

    def _answered_call(self, key: str) -> str | None:
        """Return the id of the call above that a tool's message answers; between them stand only others of tools."""
        seen = {key}
        parent = text_of(object_of(self._mapping[key]).get("parent"))
        while parent in self._mapping and parent not in seen:
            seen.add(parent)
            node = object_of(self._mapping[parent])
            message = object_of(node.get("message"))
            if _role(message) == "assistant" and _recipient(message) != "all" and self._is_visible(message):
                return derived_call_id(parent)
            if _role(message) not in ("tool", ""):
                return None
            parent = text_of(node.get("parent"))
        return None

    def _is_visible(self, message: JsonObject) -> bool:
        hidden = object_of(message.get("metadata")).get("is_visually_hidden_from_conversation")
        return not hidden and self._content(message) is not None

    def _content(self, message: JsonObject) -> MessageContent:
        """Return what a message shows, None for nothing."""
        content = object_of(message.get("content"))
        read = _CONTENTS.get(text_of(content.get("content_type")))
        text = read(content) if read else ""
        parts = [text_part(text)] if text.strip() else self._parts(content)
        parts += self._attached(message, content)
        return join_parts(parts)

    def _parts(self, content: JsonObject) -> list[ContentPart]:
        values = content.get("parts")
        read = [self._part(value) for value in (values if isinstance(values, list) else [content.get("text")])]
        return [part for part in read if part is not None]

    def _part(self, value: Any) -> ContentPart | None:
        """Return a text, an image, or the transcript of a sound; None for nothing."""
        if isinstance(value, str):
            return text_part(value) if value.strip() else None
        part = object_of(value)
        if text_of(part.get("text")).strip():
            return text_part(part["text"])
        pointer = part.get("asset_pointer")
        if not isinstance(pointer, str):
            return None
        file_id = _POINTER.sub("", pointer)
        if part.get("content_type") != "image_asset_pointer":
            return missing_part("recording", file_id)
        url = self._attachments.image_url(file_id)
        return missing_part("image", file_id) if url is None else image_part(url)

    def _attached(self, message: JsonObject, content: JsonObject) -> list[ContentPart]:
        """Return the attachments that stand beside the content: a file is named, since no export holds its text."""
        shown = json_text(content.get("parts") or [])
        files = objects_of(object_of(message.get("metadata")).get("attachments"))
        names = [(text_of(file.get("id")), text_of(file.get("name"))) for file in files]
        return [text_part(f"[file {name}]") for file_id, name in names if name and not (file_id and file_id in shown)]


def _role(message: JsonObject) -> str:
    return text_of(object_of(message.get("author")).get("role"))


def _recipient(message: JsonObject) -> str:
    return text_of(message.get("recipient")) or "all"


def _is_complete(message: JsonObject, metadata: JsonObject) -> bool:
    finish = object_of(metadata.get("finish_details")).get("type")
    return message.get("status") != "in_progress" and finish not in ("interrupted", "max_tokens")


def _system_messages(text: str) -> list[ChatMessage]:
    return [{"role": "system", "content": text}] if text.strip() else []


def _instructions(content: JsonObject, metadata: JsonObject) -> str:
    """Return the user's own instructions: beside the content in older exports."""
    older = object_of(metadata.get("user_context_message_data"))
    values = (
        content.get("user_profile") or older.get("about_user_message"),
        content.get("user_instructions") or older.get("about_model_message"),
    )
    return "\n\n".join(text_of(value) for value in values if text_of(value).strip())


def _thoughts(content: JsonObject) -> str | None:
    thoughts = objects_of(content.get("thoughts"))
    texts = [text_of(thought.get("content")) or text_of(thought.get("summary")) for thought in thoughts]
    return "\n\n".join(text for text in texts if text.strip()) or None


def _tool_call(key: str, recipient: str, content: MessageContent) -> ChatMessage:
    """Return a call. Its arguments are JSON: code, or words to search for, are the argument ``input``."""
    text = _plain_text(content)
    function = {"name": recipient, "arguments": text if _is_json_object(text) else _as_argument(text)}
    call = {"id": derived_call_id(key), "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}  # type: ignore[list-item]


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(orjson.loads(text), dict)
    except orjson.JSONDecodeError:
        return False


def _as_argument(text: str) -> str:
    return orjson.dumps({"input": text}).decode()


def _plain_text(content: MessageContent) -> str:
    if isinstance(content, str):
        return content
    return "\n\n".join(text_of(part.get("text")) for part in content or [] if isinstance(part, dict))


def _field(name: str) -> Callable[[JsonObject], str]:
    return lambda content: text_of(content.get(name))


def _quotation(content: JsonObject) -> str:
    """Return a passage of a web page, with its title and address."""
    return "\n".join(filter(None, (text_of(content.get(name)) for name in ("title", "url", "text"))))


# How the text of a content is found, by its type; of all others by ``parts`` or ``text``.
_CONTENTS: dict[str, Callable[[JsonObject], str]] = {
    "code": _field("text"),
    "execution_output": _field("text"),
    "system_error": _field("text"),
    "tether_browsing_display": _field("result"),
    "tether_quote": _quotation,
}
