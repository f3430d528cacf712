"""Images, sounds and files in messages: kept as given up to a size, above it their hash and length.

They come as base64 (OpenAI's OpenAPI description: ``image_url.url`` as a data URL, ``input_audio.data``,
``file.file_data``); an address that the model server fetches by itself stays as it is.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

# Where each kind of part holds its data.
_DATA = {"image_url": "url", "input_audio": "data", "file": "file_data"}

_PLACEHOLDER = re.compile(r"data:([^;]*);omitted;length=(\d+);sha256=[0-9a-f]{64}")


def without_large_attachments(messages: list[dict[str, Any]], most_bytes: int) -> list[dict[str, Any]]:
    """The messages, with a placeholder for every attachment whose text is longer than that."""
    return [_message(message, most_bytes) for message in messages]


def _message(message: dict[str, Any], most_bytes: int) -> dict[str, Any]:
    content = message.get("content")
    if not isinstance(content, list):
        return message
    return message | {"content": [_part(part, most_bytes) for part in content]}


def _part(part: Any, most_bytes: int) -> Any:
    kind = part.get("type") if isinstance(part, dict) else None
    field = _DATA.get(kind) if isinstance(kind, str) else None
    if kind is None or field is None or not isinstance(part.get(kind), dict):
        return part
    data = part[kind].get(field)
    if not isinstance(data, str) or len(data) <= most_bytes:
        return part
    return part | {kind: part[kind] | {field: _placeholder(data)}}


def is_placeholder(data: str) -> bool:
    """Whether that is what was put in the place of an attachment."""
    return _PLACEHOLDER.fullmatch(data) is not None


def _placeholder(data: str) -> str:
    """``data:image/png;omitted;length=LENGTH;sha256=HASH``, of the base64 text with all that stands before it."""
    media_type = data.partition(";")[0] if data.startswith("data:") else "data:"
    digest = hashlib.sha256(data.encode("utf-8", "replace")).hexdigest()
    return f"{media_type[:100]};omitted;length={len(data)};sha256={digest}"


def placeholders_as_text(content: Any) -> Any:
    """The content of a message, with a short text in the place of every attachment that was not kept."""
    return [_readable(part) for part in content] if isinstance(content, list) else content


def _readable(part: Any) -> Any:
    kind = part.get("type") if isinstance(part, dict) else None
    holder = part.get(kind) if isinstance(kind, str) and kind in _DATA else None
    data = holder.get(_DATA[kind]) if isinstance(holder, dict) and kind is not None else None
    found = _PLACEHOLDER.fullmatch(data) if isinstance(data, str) else None
    if found is None:
        return part
    return {"type": "text", "text": f"[{found[1] or kind}, {found[2]} characters of base64: no longer here]"}
