"""Small attachments are recorded unchanged, large ones as their hash and length."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from mistral_api.conversations.message_matching import message_digest
from mistral_api.payload_types.chat import ChatMessage
from mistral_api.recording.exchange import without_large_attachments

LARGE = "A" * 101
IMAGE = "data:image/png;base64," + LARGE


def _message(*parts: Any) -> ChatMessage:
    return {"role": "user", "content": [{"type": "text", "text": "Look"}, *parts]}


@pytest.mark.parametrize(
    ("part", "kind", "field", "data", "media"),
    [
        (
            {"type": "image_url", "image_url": {"url": IMAGE, "detail": "low"}},
            "image_url",
            "url",
            IMAGE,
            "data:image/png",
        ),
        (
            {"type": "input_audio", "input_audio": {"data": LARGE, "format": "wav"}},
            "input_audio",
            "data",
            LARGE,
            "data:",
        ),
        ({"file": {"file_data": LARGE, "filename": "a.pdf"}}, "file", "file_data", LARGE, "data:"),
    ],
)
def test_large_attachment_is_replaced_by_its_hash_and_length(
    part: Any, kind: str, field: str, data: str, media: str
) -> None:
    part = {"type": kind} | part
    (kept,) = without_large_attachments([_message(part)], 100)
    digest_of = hashlib.sha256(data.encode()).hexdigest()
    placeholder = f"{media};omitted;length={len(data)};sha256={digest_of}"
    content: Any = kept["content"]
    assert content[0] == {"type": "text", "text": "Look"}
    assert content[1] == part | {kind: part[kind] | {field: placeholder}}
    assert part[kind][field] == data


def test_small_attachments_and_other_content_are_unchanged() -> None:
    messages: list[ChatMessage] = [
        _message({"image_url": {"url": "data:image/png;base64,AA"}}),
        _message({"image_url": {"url": "https://example.com/cat.png"}}),
        _message({"image_url": "odd"}, {"type": ["odd"]}, "odd", None),
        {"role": "user", "content": "A" * 1000},
        {"role": "assistant", "content": None},
    ]
    assert without_large_attachments(messages, 100) == messages


def test_same_large_image_sent_again_has_the_same_digest() -> None:
    message = _message({"image_url": {"url": IMAGE}})
    first, again = (without_large_attachments([message], 100)[0] for _ in range(2))
    (other,) = without_large_attachments([_message({"image_url": {"url": IMAGE + "B"}})], 100)
    assert message_digest(first) == message_digest(again) != message_digest(other)
