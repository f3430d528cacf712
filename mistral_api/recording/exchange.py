"""One request and its outcome, as journaled; attachments cut to size.

One request and what came of it, as the journal keeps it and the writer delivers it.

Images, sounds and files in messages: kept as given up to a size, above it their hash and length.

They come as base64 (OpenAI's OpenAPI description: ``image_url.url`` as a data URL, ``input_audio.data``,
``file.file_data``); an address that the model server fetches by itself stays as it is.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

# What ``Exchange.storing["object"]`` says: what else than messages an exchange is stored as.
COMPLETION_OBJECT = "chat.completion"
RESPONSE_OBJECT = "response"


@dataclass(slots=True, kw_only=True)
class Exchange:
    """One request to a generation endpoint. Times in milliseconds, tokens counted by the model server.

    ``messages`` are those the client sent and ``answers`` those the model gave, in OpenAI's form;
    both are empty where no text is to be kept. ``answer_status`` is ``complete``, ``interrupted``
    or ``failed``.

    ``continues`` is the stored message that the messages follow; without it their place is found by what
    they repeat. ``message_ids`` and ``answer_id`` are the ids under which messages and first answer are to be
    stored, where they must be known before. ``storing`` says as what else the exchange is kept (an object that
    can be retrieved by its id), and ``stored`` is that object in the end.
    """

    id: UUID
    created_at: datetime
    endpoint: str
    owner: str
    client_address: str | None = None
    client_request_id: str | None = None
    session_id: str | None = None
    stream: bool = False
    messages: list[dict[str, Any]] | None = None
    continues: UUID | None = None
    message_ids: list[UUID] | None = None
    answer_id: UUID | None = None
    storing: dict[str, Any] | None = None
    # The model may be known only at the end, as all that follows is.
    model: str | None = None
    status: int = 200
    error_code: str | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    latency_ms: float = 0.0
    time_to_first_token_ms: float | None = None
    tokens_per_second: float | None = None
    finish_reason: str | None = None
    answers: list[dict[str, Any]] | None = None
    answer_status: str = "complete"
    stored: dict[str, Any] | None = None

    def as_interrupted(self) -> Exchange:
        """The exchange as it is recorded if this process dies now."""
        return replace(self, **_INTERRUPTED)

    @property
    def shown_request_id(self) -> str:
        """The id that the client saw in ``X-Request-Id``."""
        return self.client_request_id or str(self.id)

    def opening(self) -> bytes:
        """What is known at the start, in the journal's form: JSON."""
        return _to_json({name: getattr(self, name) for name in _OPENING})

    def outcome(self) -> bytes:
        """What is known at the end, in the journal's form."""
        return _to_json({name: getattr(self, name) for name in _OUTCOME})

    @classmethod
    def from_parts(cls, opening: bytes, outcome: bytes) -> Exchange:
        """Read the journal's form. Raises ValueError, KeyError or TypeError for anything else."""
        known = orjson.loads(opening) | orjson.loads(outcome)
        if rb"\u0000" in opening or rb"\u0000" in outcome:
            known = without_nul(known)
        for name in ("id", "continues", "answer_id"):
            known[name] = UUID(known[name]) if known.get(name) else None
        if known.get("message_ids"):
            known["message_ids"] = [UUID(each) for each in known["message_ids"]]
        known["created_at"] = datetime.fromisoformat(known["created_at"])
        return cls(**known)


_NAMES = tuple(field.name for field in fields(Exchange))
_OPENING, _OUTCOME = _NAMES[: _NAMES.index("status")], _NAMES[_NAMES.index("model") :]

# The error code of an exchange whose process died before its end.
INTERRUPTED = "interrupted"
_INTERRUPTED: dict[str, Any] = {"status": 500, "error_code": INTERRUPTED, "answer_status": "interrupted"}
# How an exchange ended whose process died before it wrote anything down.
UNKNOWN_OUTCOME = orjson.dumps(_INTERRUPTED)


def _to_json(known: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(known)
    except TypeError:
        # Half a surrogate pair is no character: UTF-8 cannot hold it, nor can PostgreSQL.
        return orjson.dumps(_mapped(known, _without_surrogates))


def _without_surrogates(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def without_nul(value: Any) -> Any:
    """PostgreSQL's text and jsonb hold no NUL character: it becomes U+FFFD."""
    return _mapped(value, lambda text: text.replace("\0", "\ufffd"))


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """A JSON value with every string in it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_mapped(item, change) for item in value]
    if isinstance(value, dict):
        return {_mapped(name, change): _mapped(item, change) for name, item in value.items()}
    return value


# Where each kind of part holds its data.
_DATA = {"image_url": "url", "input_audio": "data", "file": "file_data"}

_PLACEHOLDER = re.compile(r"data:([^;]*);omitted;length=(\d+);sha256=[0-9a-f]{64}")


def without_large_attachments(messages: list[dict[str, Any]], max_bytes: int) -> list[dict[str, Any]]:
    """The messages, with a placeholder for every attachment whose text is longer than that."""
    return [_message(message, max_bytes) for message in messages]


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


def describe_omitted_attachments(content: Any) -> Any:
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


def belongs_to_conversation(exchange: Exchange) -> bool:
    """Whether the messages of an exchange are appended to its conversation; an answer may be all that is new."""
    if not exchange.session_id or exchange.messages is None:
        return False
    only_answered = not exchange.messages or (exchange.storing or {}).get("only_answered")
    return bool(exchange.answers) or not only_answered
