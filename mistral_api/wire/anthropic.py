"""Requests and response bodies of ``POST /v1/messages`` and ``/v1/messages/count_tokens``.

Requests are those of the ``anthropic`` package's ``MessageCreateParams``. Only what differs from OpenAI's requests is
declared here; the rest is checked when the request has become a chat completion request. Of the content blocks (the
package's ``*BlockParam``) those are declared that a model here can take.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, NoReturn

from marshmallow import INCLUDE, validates_schema

from mistral_api.payload_types import JsonObject, PayloadT
from mistral_api.payload_types.anthropic import MessagesPayload
from mistral_api.wire.anthropic_tools import TOOL_CHANGES, TOOL_CHOICE, TOOLS, check_choice
from mistral_api.wire.chat import MOST_MESSAGES
from mistral_api.wire.constraints import JSON_SCHEMA
from mistral_api.wire.container_shapes import (
    Array,
    Object,
    Rule,
    TaggedUnion,
    nullable,
    required,
    required_or_checked_as,
)
from mistral_api.wire.field_errors import quote_words, refuse
from mistral_api.wire.media import IMAGE_URL
from mistral_api.wire.request_schema import MODEL, Field, RequestSchema
from mistral_api.wire.sampling import STOP_CHARACTERS, STOPS, without_blank_stops
from mistral_api.wire.shapes import (
    COUNT,
    INT32_MAX,
    AnyOf,
    Boolean,
    Component,
    Constant,
    Integer,
    Nullable,
    Shape,
    StringEnum,
    Text,
)


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
_URL = Object(required(url=IMAGE_URL))
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
# Claude Code's search among its tools has found one (a name in ``tools``).
_TOOL_REFERENCE = Object(required(tool_name=Text(1)))
_SEARCH_RESULT = Object(required(title=Text()), required(source=Text()), required(content=_blocks(_TEXT)))
_CONTENT = {**_TEXT, **_IMAGE, "document": _DOCUMENT, "search_result": _SEARCH_RESULT}
_TOOL_RESULT = Object(
    required(tool_use_id=Text()),
    nullable(is_error=Boolean(), content=AnyOf(Text(), _blocks({**_CONTENT, "tool_reference": _TOOL_REFERENCE}))),
)
_TOOL_USE = Object(required(id=Text()), required(name=Text()), required(input=Object()))

_COMPACTION = {"compaction": Object(nullable(content=Text()))}
# What Anthropic's servers did within an earlier answer. Nothing here can read it all: it is left out.
SERVER_BLOCKS = (
    "redacted_thinking",
    "server_tool_use",
    "web_search_tool_result",
    "web_fetch_tool_result",
    "code_execution_tool_result",
    "bash_code_execution_tool_result",
    "text_editor_code_execution_tool_result",
    "tool_search_tool_result",
    "advisor_tool_result",
    "mcp_tool_use",
    "mcp_tool_result",
    "mcp_tool_listing",
    "container_upload",
    "fallback",
)

USER_BLOCKS = _blocks({**_CONTENT, **_COMPACTION, "tool_result": _TOOL_RESULT})
ASSISTANT_BLOCKS = _blocks(
    {
        **_TEXT,
        "thinking": Object(required(thinking=Text())),
        "tool_use": _TOOL_USE,
        **_COMPACTION,
        **dict.fromkeys(SERVER_BLOCKS, Object()),
    }
)
SYSTEM_BLOCKS = _blocks(_TEXT)

_SYSTEM = AnyOf(Text(), SYSTEM_BLOCKS)
_MESSAGE = TaggedUnion(
    "role",
    {
        "user": Object(required(content=AnyOf(Text(), USER_BLOCKS))),
        "assistant": Object(nullable(content=AnyOf(Text(), ASSISTANT_BLOCKS))),
        "system": Object(required(content=AnyOf(Text(), _blocks(_TEXT | TOOL_CHANGES)))),
    },
    required(role=StringEnum("user", "assistant", "system")),
)

_WITHOUT_BUDGET = Object()
_THINKING = TaggedUnion(
    "type",
    {
        "disabled": _WITHOUT_BUDGET,
        "adaptive": _WITHOUT_BUDGET,
        "between_tools": _WITHOUT_BUDGET,
        "enabled": Object(required(budget_tokens=Integer(0, INT32_MAX))),
    },
    required_or_checked_as("", type=StringEnum("enabled", "disabled", "adaptive", "between_tools")),
)
_OUTPUT_CONFIG = Object(
    nullable(
        effort=StringEnum("low", "medium", "high", "xhigh", "max"),
        format=Object(required_or_checked_as("", type=StringEnum("json_schema")), required(schema=JSON_SCHEMA)),
    )
)


def _refuse_continuation(thread: JsonObject) -> None:
    if thread.get("type") == "continue":
        refuse("not_supported", "'{param}' is not supported: send the whole conversation in 'messages'.", ".type")


def _refuse_summary(compaction: JsonObject) -> None:
    """Refuse the only type there is: the answer would have to be a block that Anthropic signs."""
    if compaction.get("type") == "summarize":
        refuse("not_supported", "'{param}' is not supported: ask for a summary in a message.", ".type")


class CountTokensRequest(RequestSchema[PayloadT]):
    """What both requests have."""

    EXAMPLE: ClassVar[MessagesPayload] = {"messages": [{"role": "user", "content": "Hello, how are you?"}]}

    class Meta:
        unknown = INCLUDE

    model = Field(MODEL)
    messages = Field(Array(_MESSAGE, 1, MOST_MESSAGES), required=True)
    system = Field(_SYSTEM)
    tools = Field(TOOLS)
    tool_choice = Field(TOOL_CHOICE)
    thinking = Field(_THINKING)
    output_config = Field(_OUTPUT_CONFIG)
    mcp_servers = Field(Array(Object()))
    thread = Field(Object(_refuse_continuation))


class MessagesRequest(CountTokensRequest[PayloadT]):
    """A message request."""

    EXAMPLE: ClassVar[MessagesPayload] = CountTokensRequest.EXAMPLE | {"max_tokens": 60}

    max_tokens = Field(Integer(0, INT32_MAX), required=True)
    stop_sequences = Field(Array(Text(0, STOP_CHARACTERS), 0, STOPS).converted(without_blank_stops))
    compaction = Field(Object(_refuse_summary))
    metadata = Field(Object(nullable(user_id=Text(0, 512))))
    n = Field(Integer(1, 1))

    @validates_schema
    def _choice_is_a_tool(self, data: MessagesPayload, **_options: object) -> None:
        check_choice(data)


_TEXT_BLOCK = Object(required(type=Constant("text"), text=Text()))
_THINKING_BLOCK = Object(required(type=Constant("thinking"), thinking=Text(), signature=Text()))
_TOOL_USE_BLOCK = Object(required(type=Constant("tool_use"), id=Text(), name=Text(), input=Object()))
_USAGE = Object(
    required(input_tokens=COUNT, cache_creation_input_tokens=COUNT, cache_read_input_tokens=COUNT, output_tokens=COUNT)
)
ANTHROPIC_MESSAGE = Component(
    "AnthropicMessage",
    Object(
        required(
            id=Text(),
            type=Constant("message"),
            role=Constant("assistant"),
            model=Text(),
            content=Array(AnyOf(_TEXT_BLOCK, _THINKING_BLOCK, _TOOL_USE_BLOCK)),
            stop_reason=Text(),
            stop_sequence=Nullable(Text()),
            usage=_USAGE,
            session_id=Text(),
        )
    ),
)
ANTHROPIC_EVENT = Component("AnthropicEvent", Object(required(type=Text())))
ANTHROPIC_TOKEN_COUNT = Component("AnthropicTokenCount", Object(required(input_tokens=COUNT)))
_ERROR = Object(required(type=Text(1), message=Text(1), param=Nullable(Text()), code=Nullable(Text())))
ANTHROPIC_ERROR = Component("AnthropicError", Object(required(type=Constant("error"), error=_ERROR, request_id=Text())))
