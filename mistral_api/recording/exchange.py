"""One request and its outcome, as the journal holds it.

An exchange is journaled in two parts: the *opening* before generation starts, the *outcome* when it ends. The writer
reads both parts and inserts the exchange into PostgreSQL.

Images, sounds and files come as base64 within messages (OpenAI's OpenAPI description: ``image_url.url`` as a data
URL, ``input_audio.data``, ``file.file_data``). An attachment that is too long is replaced by a placeholder with its
hash and length. An address is recorded as it was sent, whether or not its image was fetched.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final, TypedDict, TypeVar
from uuid import UUID

import orjson

from mistral_api.payload_types import JsonObject
from mistral_api.payload_types.chat import ChatMessage, MessageContent
from mistral_api.payload_types.completions import Completion, GeneratedMessage
from mistral_api.payload_types.responses import Response
from mistral_api.system.identifiers import GENERATED_SESSION_PREFIX

# The values of ``Exchange.storing["object"]``: as which object an exchange is stored besides its messages.
COMPLETION_OBJECT: Final = "chat.completion"
RESPONSE_OBJECT: Final = "response"

# The error code of an exchange whose process died before the end.
INTERRUPTED = "interrupted"
_INTERRUPTED_OUTCOME: dict[str, Any] = {"status": 500, "error_code": INTERRUPTED, "answer_status": "interrupted"}
# The outcome of an exchange whose process died before it wrote a checkpoint.
UNKNOWN_OUTCOME = orjson.dumps(_INTERRUPTED_OUTCOME)

# The field in which each type of content part holds its data.
_DATA_FIELDS = {"image_url": "url", "input_audio": "data", "file": "file_data"}
_PLACEHOLDER = re.compile(r"data:([^;]*);omitted;length=(\d+);sha256=([0-9a-f]{64})")

T = TypeVar("T")

# An object that an exchange is stored as besides its messages.
StoredObject = Completion | Response


class StorageRequest(TypedDict, total=False):
    """As which object an exchange is stored besides its messages, and what its store has to know.

    Of a completion its ``metadata``, and fields of the ``request`` that OpenAI shows with it. Of a response its
    ``body`` as it was begun, and ``only_answered``: without an answer the messages are not stored.
    """

    object: str
    metadata: dict[str, str]
    request: JsonObject
    body: Response
    only_answered: bool


@dataclass(slots=True, kw_only=True)
class Exchange:
    """One request to a generation endpoint. Times are in milliseconds; the model server counted the tokens.

    The names of the fields are keys in the journal, so they cannot change.

    ``messages`` are the messages that the client sent and ``answers`` those that the model generated, one for each
    choice, in OpenAI's chat form. Both are null where no text is recorded. ``answer_status`` is ``complete``,
    ``interrupted`` or ``failed``.

    ``continues`` is the id of the stored message that the messages follow. Without it, their place is found by the
    messages that they repeat. ``message_ids`` and ``answer_id`` are the ids under which the messages and the first
    answer are stored, where these must be known before. ``resends_history``: the client sends all of its history with
    each request, so a list that repeats nothing is no next turn. ``side_request``: the client asks for something about
    the conversation (a title, tags), which is no part of its main line. ``client`` is the name of the program that
    asked. ``is_new_session``: the session id was made for this request, since nothing named or recognised one.
    ``overtaken``: its session's first request, and another one of the session ended before it.
    ``storing`` says as which object the exchange is stored too, to be retrieved by its id; ``stored`` is that object.
    """

    id: UUID
    created_at: datetime
    endpoint: str
    owner: str
    client_address: str | None = None
    client_request_id: str | None = None
    session_id: str | None = None
    stream: bool = False
    messages: Sequence[ChatMessage] | None = None
    continues: UUID | None = None
    message_ids: list[UUID] | None = None
    answer_id: UUID | None = None
    storing: StorageRequest | None = None
    resends_history: bool = False
    side_request: bool = False
    client: str | None = None
    is_new_session: bool = False
    # The model stands in both parts: it may be known only at the end.
    model: str | None = None
    # From here on everything belongs to the outcome.
    status: int = 200
    error_code: str | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    latency_ms: float = 0.0
    time_to_first_token_ms: float | None = None
    tokens_per_second: float | None = None
    finish_reason: str | None = None
    answers: Sequence[GeneratedMessage] | None = None
    answer_status: str = "complete"
    stored: StoredObject | None = None
    overtaken: bool = False

    def interrupted_outcome(self) -> bytes:
        """Return the outcome, as JSON, that is recorded if this process dies now."""
        return _to_json({name: getattr(self, name) for name in _OUTCOME_FIELDS} | _INTERRUPTED_OUTCOME)

    @property
    def begins_session(self) -> bool:
        """Whether the id of its session was made for this request: nothing of the session began before."""
        return self.session_id == f"{GENERATED_SESSION_PREFIX}{self.id.hex}"

    @property
    def public_request_id(self) -> str:
        """The id that the client saw in ``X-Request-Id``."""
        return self.client_request_id or str(self.id)

    def opening(self) -> bytes:
        """Return the part that is known at the start, as JSON."""
        return _to_json({name: getattr(self, name) for name in _OPENING_FIELDS})

    def outcome(self) -> bytes:
        """Return the part that is known at the end, as JSON."""
        return _to_json({name: getattr(self, name) for name in _OUTCOME_FIELDS})

    @classmethod
    def from_parts(cls, opening: bytes, outcome: bytes) -> Exchange:
        """Read an exchange from its two parts. Raises ValueError, KeyError or TypeError for malformed ones."""
        values = orjson.loads(opening) | orjson.loads(outcome)
        if rb"\u0000" in opening or rb"\u0000" in outcome:
            values = replace_nul(values)
        for name in ("id", "continues", "answer_id"):
            values[name] = UUID(values[name]) if values.get(name) else None
        if values.get("message_ids"):
            values["message_ids"] = [UUID(each) for each in values["message_ids"]]
        values["created_at"] = datetime.fromisoformat(values["created_at"])
        return cls(**values)


_FIELDS = tuple(field.name for field in fields(Exchange))
_OPENING_FIELDS, _OUTCOME_FIELDS = _FIELDS[: _FIELDS.index("status")], _FIELDS[_FIELDS.index("model") :]


def belongs_to_conversation(exchange: Exchange) -> bool:
    """Return whether the messages and answers of an exchange are appended to a conversation.

    ``storing["only_answered"]`` asks for that only if there is an answer. An exchange without messages of its own
    has to have one as well.
    """
    if not exchange.session_id or exchange.messages is None:
        return False
    only_answered = not exchange.messages or (exchange.storing or {}).get("only_answered")
    return bool(exchange.answers) or not only_answered


def _to_json(values: Mapping[str, object]) -> bytes:
    try:
        return orjson.dumps(values)
    except TypeError:
        # Half a surrogate pair is no character: neither UTF-8 nor PostgreSQL can hold it.
        return orjson.dumps(_map_strings(values, lambda text: text.encode("utf-8", "replace").decode()))


def replace_nul(value: T) -> T:
    """Return a JSON value with U+FFFD for every NUL character: PostgreSQL's text and jsonb cannot hold one."""
    replaced: T = _map_strings(value, lambda text: text.replace("\0", "\ufffd"))
    return replaced


def _map_strings(value: Any, change: Callable[[str], str]) -> Any:
    """Return a JSON value with every string in it changed, names of fields included."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_map_strings(item, change) for item in value]
    if isinstance(value, dict):
        return {_map_strings(name, change): _map_strings(item, change) for name, item in value.items()}
    return value


def without_large_attachments(messages: Sequence[ChatMessage], max_bytes: int) -> list[ChatMessage]:
    """Return the messages with a placeholder for every attachment whose base64 is longer than ``max_bytes``."""
    return [_shorten_message(message, max_bytes) for message in messages]


def _shorten_message(message: ChatMessage, max_bytes: int) -> ChatMessage:
    content = message.get("content")
    if not isinstance(content, list):
        return message
    return {**message, "content": [_shorten_part(part, max_bytes) for part in content]}


def _shorten_part(part: Any, max_bytes: int) -> Any:
    data = _attachment_data(part)
    if data is None or len(data) <= max_bytes:
        return part
    kind = part["type"]
    return part | {kind: part[kind] | {_DATA_FIELDS[kind]: _placeholder(data)}}


def _attachment_data(part: Any) -> str | None:
    """Return the data or the address of an attachment, None for any other part of a message."""
    kind = part.get("type") if isinstance(part, dict) else None
    holder = part.get(kind) if isinstance(kind, str) and kind in _DATA_FIELDS else None
    data = holder.get(_DATA_FIELDS[kind]) if isinstance(holder, dict) and kind is not None else None
    return data if isinstance(data, str) else None


def attachment_hash(part: Any) -> str | None:
    """Return the SHA-256 of an attachment's data or address, also where only its placeholder is left; else None."""
    data = _attachment_data(part)
    if data is None:
        return None
    omitted = _PLACEHOLDER.fullmatch(data)
    return omitted[3] if omitted else _hash(data)


def _hash(data: str) -> str:
    return hashlib.sha256(data.encode("utf-8", "replace")).hexdigest()


def _placeholder(data: str) -> str:
    """Return ``data:image/png;omitted;length=LENGTH;sha256=HASH``, of all of ``data`` with its ``data:`` prefix."""
    media_type = data.partition(";")[0] if data.startswith("data:") else "data:"
    return f"{media_type[:100]};omitted;length={len(data)};sha256={_hash(data)}"


def is_placeholder(data: str) -> bool:
    """Return whether a text is the placeholder of an attachment."""
    return _PLACEHOLDER.fullmatch(data) is not None


def describe_omitted_attachments(content: MessageContent) -> MessageContent:
    """Return the content of a message with a short text in the place of every placeholder."""
    return [_describe_if_omitted(part) for part in content] if isinstance(content, list) else content


def _describe_if_omitted(part: Any) -> Any:
    data = _attachment_data(part)
    omitted = _PLACEHOLDER.fullmatch(data) if data is not None else None
    if omitted is None:
        return part
    return {
        "type": "text",
        "text": f"[{omitted[1] or part['type']}, {omitted[2]} characters of base64: no longer here]",
    }
