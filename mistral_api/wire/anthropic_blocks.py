"""Anthropic's content blocks, as far as a model here can take them (the ``anthropic`` package's ``*BlockParam``)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from mistral_api.payload_types import JsonObject
from mistral_api.wire.container_shapes import Array, Object, Rule, TaggedUnion, nullable, required
from mistral_api.wire.field_errors import quote_words, refuse
from mistral_api.wire.shapes import AnyOf, Boolean, Shape, StringEnum, Text


def _refuse_type(types: Iterable[str], path: str = "") -> NoReturn:
    text = f"Unsupported value for '{{param}}'. Supported here: {quote_words(types)}."
    refuse("not_supported", text, path)


def _blocks(variants: dict[str, Object]) -> Shape:
    """An array of blocks of these types."""

    def refuse_other(kind: str) -> NoReturn:
        Text(1).check(kind)
        _refuse_type(variants)

    return Array(TaggedUnion("type", variants, required(type=StringEnum(*variants, refuse_other=refuse_other))))


def _source_type(*types: str) -> Rule:
    """A rule that the source of a block is of one of these types."""

    def check(source: JsonObject) -> None:
        if source.get("type") not in types:
            _refuse_type(types, ".type")

    return check


_TEXT = {"text": Object(required(text=Text()))}
_URL = Object(required(url=Text(1)))
_BASE64 = Object(required(media_type=Text()), required(data=Text()))
_IMAGE = {
    "image": Object(
        required(source=TaggedUnion("type", {"url": _URL, "base64": _BASE64}, _source_type("base64", "url")))
    )
}
_DOCUMENT_SOURCE = TaggedUnion(
    "type",
    {
        "text": Object(required(data=Text())),
        "content": Object(required(content=AnyOf(Text(), _blocks(_TEXT | _IMAGE)))),
    },
    _source_type("text", "content"),
)
_DOCUMENT = Object(
    required(source=Object(_source_type("text", "content"))),  # the rest of the source is checked last
    nullable(title=Text(), context=Text()),
    required(source=_DOCUMENT_SOURCE),
)
_SEARCH_RESULT = Object(required(title=Text()), required(source=Text()), required(content=_blocks(_TEXT)))
_CONTENT = {**_TEXT, **_IMAGE, "document": _DOCUMENT, "search_result": _SEARCH_RESULT}
_TOOL_RESULT = Object(
    required(tool_use_id=Text()), nullable(is_error=Boolean(), content=AnyOf(Text(), _blocks(_CONTENT)))
)
_TOOL_USE = Object(required(id=Text()), required(name=Text()), required(input=Object()))

USER_BLOCKS = _blocks({**_CONTENT, "tool_result": _TOOL_RESULT})
ASSISTANT_BLOCKS = _blocks(
    {
        **_TEXT,
        "thinking": Object(required(thinking=Text())),
        "redacted_thinking": Object(),  # nothing here can read it: it is left out
        "tool_use": _TOOL_USE,
    }
)
SYSTEM_BLOCKS = _blocks(_TEXT)
