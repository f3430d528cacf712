"""Input items of the Conversations and Responses APIs (OpenAI's ``InputItem``, ``InputContent``, ``OutputContent``).

Unknown fields of an item do no harm: clients send back the items that they were given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

from mistral_api.payload_types import JsonObject
from mistral_api.wire.container_shapes import (
    Array,
    Map,
    Object,
    TaggedUnion,
    at_least_one,
    not_null,
    nullable,
    optional,
    required,
)
from mistral_api.wire.field_errors import quote_words, refuse, refuse_word
from mistral_api.wire.media import IMAGE_URL
from mistral_api.wire.response_tools import RESPONSE_TOOLS
from mistral_api.wire.shapes import ANYTHING, INT32_MAX, AnyOf, Integer, Null, Shape, StringEnum, Text

MOST_ITEMS = 10_000
# So many can be added to a conversation at once (OpenAI's description of POST /conversations/{id}/items).
MOST_ITEMS_ADDED = 20
ROLES = ("user", "assistant", "system", "developer")
# Items of tools that OpenAI runs itself.
_UNSUPPORTED = frozenset((
    "code_interpreter_call", "compaction", "compaction_trigger", "computer_call", "computer_call_output",
    "configuration_update", "file_search_call", "image_generation_call", "mcp_approval_request",
    "mcp_approval_response", "mcp_call", "mcp_list_tools", "program", "program_output", "web_search_call",
))  # fmt: skip

_NO_FILE_ID = Null(
    "unsupported_value",
    "Unsupported value for '{param}': this server keeps no uploaded files; send the data itself.",
)
# A chat's parts and those of MCP servers are of type "text"; what a model said is sent back in other roles too.
_INPUT_PARTS = {
    **dict.fromkeys(("input_text", "output_text", "text"), Object(not_null(text=Text()))),
    "input_image": Object(
        optional(file_id=_NO_FILE_ID),
        not_null(image_url=IMAGE_URL),
        nullable(detail=StringEnum("low", "high", "auto", "original")),
    ),
    "input_file": Object(
        optional(file_id=_NO_FILE_ID),
        nullable(file_data=Text(1), file_url=Text(1), filename=Text(1)),
        at_least_one("file_data", "file_url"),
    ),
    "input_audio": Object(not_null(input_audio=Object(not_null(data=Text(1), format=Text(1))))),
}
_ASSISTANT_PARTS = {
    "refusal": Object(not_null(refusal=Text())),
    **_INPUT_PARTS,
}


def _content(parts: dict[str, Object], low: int) -> Shape:
    """A string, or an array of at least ``low`` parts of these types."""
    part = TaggedUnion("type", parts, not_null(type=StringEnum(*parts)))
    return AnyOf(Text(), Array(part, low), expected="a string or an array of parts")


def _reasoning_parts(kind: str) -> Shape:
    return Array(Object(not_null(type=StringEnum(kind), text=Text())))


_STATUS = StringEnum("in_progress", "completed", "incomplete")
_COMMON = nullable(id=Text(1), status=_STATUS)
_INPUT_MESSAGE = Object(not_null("content"), required(content=_content(_INPUT_PARTS, 1)))
# A response that was cut off at once is given back with no parts, or with nothing.
_ASSISTANT_MESSAGE = Object(nullable(content=_content(_ASSISTANT_PARTS, 0)))
_MESSAGE = TaggedUnion(
    "role",
    {role: _ASSISTANT_MESSAGE if role == "assistant" else _INPUT_MESSAGE for role in ROLES},
    nullable(type=StringEnum("message"), id=Text(1), status=_STATUS),
    not_null(role=StringEnum(*ROLES)),
)
_AGENT_PARTS: dict[str, Object] = {
    "input_text": _INPUT_PARTS["input_text"],
    "encrypted_content": Object(not_null(encrypted_content=Text())),
}
_AGENT_PART = TaggedUnion("type", _AGENT_PARTS, not_null(type=StringEnum(*_AGENT_PARTS)))
_MILLISECONDS = Integer(0, INT32_MAX)
# The calls of tools that clients run, and their outputs; ``conversations.tool_items`` says where they are described.
_TOOL_ITEMS = {
    "custom_tool_call": Object(
        _COMMON, not_null(call_id=Text(1), name=Text(1), input=Text()), nullable(namespace=Text())
    ),
    "custom_tool_call_output": Object(
        _COMMON,
        not_null(call_id=Text(1)),
        nullable(name=Text(), output=_content(_INPUT_PARTS, 0)),
    ),
    "shell_call": Object(
        _COMMON,
        not_null(
            call_id=Text(1),
            action=Object(
                required(commands=Array(Text())), nullable(timeout_ms=_MILLISECONDS, max_output_length=_MILLISECONDS)
            ),
        ),
    ),
    "shell_call_output": Object(
        _COMMON,
        not_null(call_id=Text(1), output=Array(Object(nullable(stdout=Text(), stderr=Text(), outcome=Object())))),
        nullable(max_output_length=_MILLISECONDS),
    ),
    "local_shell_call": Object(
        _COMMON,
        nullable(call_id=Text(1)),
        not_null(
            action=Object(
                required(command=Array(Text())),
                nullable(env=Map(ANYTHING, Text()), timeout_ms=_MILLISECONDS, user=Text(), working_directory=Text()),
            )
        ),
    ),
    "local_shell_call_output": Object(
        _COMMON, nullable(call_id=Text(1)), not_null(output=Text()), at_least_one("call_id", "id")
    ),
    "apply_patch_call": Object(
        _COMMON,
        not_null(
            call_id=Text(1),
            operation=Object(
                required(type=StringEnum("create_file", "update_file", "delete_file"), path=Text()),
                nullable(diff=Text()),
            ),
        ),
    ),
    "apply_patch_call_output": Object(
        nullable(id=Text(1), status=StringEnum("in_progress", "completed", "incomplete", "failed")),
        not_null(call_id=Text(1)),
        nullable(output=Text()),
    ),
    "tool_search_call": Object(_COMMON, nullable(call_id=Text(1), execution=Text()), not_null(arguments=Object())),
    "tool_search_output": Object(_COMMON, nullable(call_id=Text(1), execution=Text()), not_null(tools=RESPONSE_TOOLS)),
    "additional_tools": Object(_COMMON, not_null(tools=RESPONSE_TOOLS)),
    # openai/codex, codex-rs/protocol/src/models.rs
    "agent_message": Object(_COMMON, not_null(author=Text(), recipient=Text(), content=Array(_AGENT_PART, 1))),
}
_OTHER_ITEMS = {
    "function_call": Object(
        _COMMON, not_null(call_id=Text(1), name=Text(1), arguments=Text()), nullable(namespace=Text())
    ),
    "function_call_output": Object(
        _COMMON,
        not_null(call_id=Text(1)),
        nullable(name=Text(), output=_content(_INPUT_PARTS, 0)),
    ),
    "reasoning": Object(
        _COMMON,
        nullable(
            summary=_reasoning_parts("summary_text"),
            content=_reasoning_parts("reasoning_text"),
            encrypted_content=Text(),
        ),
    ),
    **_TOOL_ITEMS,
    "item_reference": Object(_COMMON, not_null("id")),
}
_ITEMS: dict[str, Shape] = {"message": _MESSAGE, **_OTHER_ITEMS}


def item_type(item: Mapping[str, object]) -> str:
    """Return the type of an item that may leave it out: with a role it is a message, with an id alone a reference."""
    if item.get("type") is not None:
        return str(item["type"])
    return "item_reference" if "id" in item and "role" not in item else "message"


def _refuse_type(kind: str) -> NoReturn:
    if kind in _UNSUPPORTED:
        text = (
            f"Unsupported value for '{{param}}': this server runs no hosted tools and takes no items of type "
            f"'{kind}'. Supported values are: {quote_words(_ITEMS)}."
        )
        refuse("unsupported_value", text)
    refuse_word(kind, _ITEMS)


def _check_item(item: JsonObject) -> None:
    _ITEMS[item_type(item)].check(item)


# The fields that may be null, or absent, in items of these types: nothing was said, or nothing came back.
_MAY_BE_EMPTY = {"message": "content", "function_call_output": "output", "custom_tool_call_output": "output"}


def _load_item(item: JsonObject) -> JsonObject:
    """Return an item with what it says, if only that it says nothing."""
    if item.get("content"):  # nearly every item
        return item
    name = _MAY_BE_EMPTY.get(item_type(item))
    return item | {name: ""} if name is not None and item.get(name) is None else item


_REFERENCE_WITHOUT_TYPE = Object(optional(type=Null()), *_OTHER_ITEMS["item_reference"].groups)
ITEM = (
    Object(nullable(type=StringEnum(*_ITEMS, refuse_other=_refuse_type)), _check_item)
    .converted(_load_item)
    .with_schema(
        AnyOf(
            _MESSAGE,
            *(Object(required(type=StringEnum(kind)), *item.groups) for kind, item in _OTHER_ITEMS.items()),
            _REFERENCE_WITHOUT_TYPE.with_keywords(**{"not": {"required": ["role"]}}),
        )
    )
)
ITEMS = Array(ITEM, 0, MOST_ITEMS)
ADDED_ITEMS = Array(ITEM, 0, MOST_ITEMS_ADDED)
