"""Anthropic's content blocks, as far as a model here can take them (the ``anthropic`` package's ``*BlockParam``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mistral_api.wire.field_errors import quote_name, refuse, refuse_missing
from mistral_api.wire.fields import check_array, check_boolean, check_object, check_text

_Check = Callable[[dict[str, Any], str], None]


def check_blocks(blocks: Any, allowed: tuple[str, ...], path: str) -> None:
    """Refuse the first block that is wrong; ``allowed`` are the types that may stand here."""
    check_array(blocks, 0, path=path)
    for index, block in enumerate(blocks):
        where = f"{path}[{index}]"
        check_object(block, where)
        if "type" not in block:
            refuse_missing(f"{where}.type")
        kind = block["type"]
        check_text(kind, 1, path=f"{where}.type")
        if kind not in allowed:
            text = f"Unsupported value for '{{param}}'. Supported here: {quote_name(allowed)}."
            refuse("not_supported", text, f"{where}.type")
        _CHECKS[kind](block, where)


def _require_texts(value: dict[str, Any], path: str, *names: str) -> None:
    for name in names:
        if name not in value:
            refuse_missing(f"{path}.{name}")
        check_text(value[name], path=f"{path}.{name}")


def _check_text_block(block: dict[str, Any], path: str) -> None:
    _require_texts(block, path, "text")


def _check_thinking(block: dict[str, Any], path: str) -> None:
    _require_texts(block, path, "thinking")


def _check_tool_use(block: dict[str, Any], path: str) -> None:
    _require_texts(block, path, "id", "name")
    if "input" not in block:
        refuse_missing(f"{path}.input")
    check_object(block["input"], f"{path}.input")


def _check_tool_result(block: dict[str, Any], path: str) -> None:
    _require_texts(block, path, "tool_use_id")
    if block.get("is_error") is not None:
        check_boolean(block["is_error"], f"{path}.is_error")
    content = block.get("content")
    if content is not None and not isinstance(content, str):
        check_blocks(content, _SAID, f"{path}.content")


def _source_of(block: dict[str, Any], kinds: tuple[str, ...], path: str) -> dict[str, Any]:
    if "source" not in block:
        refuse_missing(f"{path}.source")
    source: dict[str, Any] = block["source"]
    check_object(source, f"{path}.source")
    kind = source.get("type")
    if kind not in kinds:
        text = f"Unsupported value for '{{param}}'. Supported here: {quote_name(kinds)}."
        refuse("not_supported", text, f"{path}.source.type")
    return source


def _check_image(block: dict[str, Any], path: str) -> None:
    source = _source_of(block, ("base64", "url"), path)
    if source["type"] == "base64":
        _require_texts(source, f"{path}.source", "media_type", "data")
        return
    _require_texts(source, f"{path}.source", "url")
    check_text(source["url"], 1, path=f"{path}.source.url")


def _check_document(block: dict[str, Any], path: str) -> None:
    source = _source_of(block, ("text", "content"), path)
    for name in ("title", "context"):
        if block.get(name) is not None:
            check_text(block[name], path=f"{path}.{name}")
    if source["type"] == "text":
        _require_texts(source, f"{path}.source", "data")
        return
    if "content" not in source:
        refuse_missing(f"{path}.source.content")
    if not isinstance(source["content"], str):
        check_blocks(source["content"], ("text", "image"), f"{path}.source.content")


def _check_search_result(block: dict[str, Any], path: str) -> None:
    _require_texts(block, path, "title", "source")
    if "content" not in block:
        refuse_missing(f"{path}.content")
    check_blocks(block["content"], ("text",), f"{path}.content")


def _nothing(_block: dict[str, Any], _path: str) -> None:
    """Nobody here can read it: it is left out."""


_CHECKS: dict[str, _Check] = {
    "text": _check_text_block,
    "image": _check_image,
    "document": _check_document,
    "search_result": _check_search_result,
    "tool_result": _check_tool_result,
    "tool_use": _check_tool_use,
    "thinking": _check_thinking,
    "redacted_thinking": _nothing,
}
_SAID = ("text", "image", "document", "search_result")
# The blocks that a message of each role may hold.
BLOCKS = {
    "user": (*_SAID, "tool_result"),
    "assistant": ("text", "thinking", "redacted_thinking", "tool_use"),
    "system": ("text",),
}
