"""Addresses in the messages of a chat, which a model server would fetch by itself: images, sounds, videos, files.

llama.cpp fetches an ``image_url`` whose ``url`` begins with ``http``, and reads the one that begins with ``file://``
(``handle_media`` in tools/server/server-common.cpp); it lets curl guess what ``httpx.example`` means. Other engines
fetch videos and sounds too. None of that may happen for a client: our client of the model server sends no address.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mistral_api.errors import InvalidRequest
from mistral_api.wire.media import is_address

# Fields that hold nothing but an address or a data URL.
_URL_FIELDS = frozenset(("url", "image_url", "video_url", "audio_url", "file_url"))
# What else may hold text of any kind.
_TEXT_FIELDS = frozenset(("type", "text", "refusal"))
_NAMES = frozenset(("filename", "file_id", "detail", "format", "title", "name"))


@dataclass(frozen=True, slots=True)
class MediaAddress:
    """An address in a message: the number of the message and of its part, the part's type, and the address."""

    message: int
    part: int
    kind: str
    address: str

    @property
    def is_image_url(self) -> bool:
        """Whether it is the ``http`` or ``https`` URL of an image."""
        return self.kind == "image_url" and is_web_url(self.address)


def is_web_url(text: str) -> bool:
    """Return whether a text begins like an ``http`` or ``https`` URL."""
    return text[:8].lower().startswith(("http://", "https://"))


def media_addresses(messages: object) -> Iterator[MediaAddress]:
    """Yield every address in the parts of messages that a model server could fetch."""
    for number, message in enumerate(messages if isinstance(messages, list) else ()):
        content = message.get("content") if isinstance(message, dict) else None
        if not isinstance(content, list):
            continue
        for index, part in enumerate(content):
            if isinstance(part, dict):
                kind = str(part.get("type"))
                yield from (MediaAddress(number, index, kind, found) for found in _addresses_in(part))


def _addresses_in(part: Mapping[str, Any]) -> Iterator[str]:
    for name, value in part.items():
        if name in _TEXT_FIELDS:
            continue
        if isinstance(value, str):
            if _holds_address(name, value):
                yield value
        elif isinstance(value, dict):
            yield from _addresses_in(value)
        elif isinstance(value, list):
            yield from _addresses_in({f"{name} {number}": each for number, each in enumerate(value)})


def _holds_address(name: str, text: str) -> bool:
    if name in _URL_FIELDS:
        return not text.startswith("data:")
    return name not in _NAMES and is_address(text)


def require_no_addresses(payload: object) -> None:
    """Refuse a request to a model server that holds an address in its messages. Raises InvalidRequest.

    Whoever makes requests has replaced or refused them before, and named the field of the client's own request.
    """
    if isinstance(payload, dict) and "messages" in payload:
        for found in media_addresses(payload["messages"]):
            raise address_refused(f"messages[{found.message}].content[{found.part}].{found.kind}", found.kind)


def address_refused(param: str, kind: str) -> InvalidRequest:
    """Return the error for an address in this field, in a part of this type."""
    instead = "the image itself as a data URL" if kind == "image_url" else "the data itself"
    text = f"Unsupported value for '{param}': this server does not fetch it; send {instead}."
    return InvalidRequest(text, code="unsupported_value", param=param)


def path_of(body: object, address: str) -> str | None:
    """Return the path of an address in the body of a request, None where it is not in there.

    The same text may stand elsewhere as a text: only fields count that hold addresses or data.
    """
    return next(_paths_of(body, address, "", ""), None)


def _paths_of(value: object, address: str, name: str, path: str) -> Iterator[str]:
    if isinstance(value, str):
        if value == address and name not in _TEXT_FIELDS | {"content"}:
            yield path
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _paths_of(each, address, key, f"{path}.{key}" if path else str(key))
    elif isinstance(value, Sequence):
        for number, each in enumerate(value):
            yield from _paths_of(each, address, name, f"{path}[{number}]")
