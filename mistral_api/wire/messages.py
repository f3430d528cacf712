"""The messages of a chat: roles, content and parts (OpenAI's ChatCompletionRequestMessage)."""

from __future__ import annotations

from mistral_api.payload_types import JsonObject
from mistral_api.wire.container_shapes import Array, Object, TaggedUnion, nullable, optional, required
from mistral_api.wire.field_errors import refuse_missing
from mistral_api.wire.shapes import AnyOf, Null, Shape, StringEnum, Text

MOST_MESSAGES = 10_000
ROLES = ("system", "developer", "user", "assistant", "tool", "function")

_URL = Object(required(url=Text(1)), nullable(detail=StringEnum("auto", "low", "high")))
_AUDIO = Object(required(data=Text(1)), required(format=Text(1)))
# A part's type is also the name of the field that carries it.
_PARTS: dict[str, Shape] = {
    "text": Text(),
    "refusal": Text(),
    "image_url": _URL,
    "video_url": _URL,
    "input_audio": _AUDIO,
    "input_video": Object(),
    "file": Object(),
}
_PART = TaggedUnion("type", {kind: Object(required(**{kind: content})) for kind, content in _PARTS.items()})
_CONTENT = AnyOf(Text(), Array(_PART, 1), expected="a string or an array of parts")

_FUNCTION_CALL = Object(required(name=Text()), required(arguments=Text()))
_TOOL_CALL = Object(
    nullable(id=Text()), required(type=StringEnum("function"), function=_FUNCTION_CALL), drop_nulls=True
)
# llama.cpp reads the texts in messages of every role, and answers 500 where one is no string.
_OTHERS = nullable(
    name=Text(),
    refusal=Text(),
    reasoning_content=Text(),
    tool_call_id=Text(),
    tool_calls=Array(_TOOL_CALL),
    function_call=_FUNCTION_CALL,
)
# Where an assistant calls tools, refuses or reasons, its message may have no content.
_INSTEAD_OF_CONTENT: dict[str, Shape] = {
    "tool_calls": Array(_TOOL_CALL, 1),
    "refusal": Text(1),
    "reasoning_content": Text(1),
    "function_call": _FUNCTION_CALL,
}


def _require_content(message: JsonObject) -> None:
    if message.get("content") is None and not (
        message["role"] == "assistant" and any(message.get(name) for name in _INSTEAD_OF_CONTENT)
    ):
        refuse_missing(".content")


def _require_tool_call_id(message: JsonObject) -> None:
    if message["role"] == "tool" and message.get("tool_call_id") is None:
        refuse_missing(".tool_call_id")


_WITH_CONTENT = Object(
    _OTHERS, required(role=StringEnum(*(role for role in ROLES if role != "tool")), content=_CONTENT)
)
_TOOL_RESULT = Object(_OTHERS, required(role=StringEnum("tool"), content=_CONTENT, tool_call_id=Text()))
_WITHOUT_CONTENT = (
    Object(_OTHERS, optional(content=Null()), required(role=StringEnum("assistant"), **{name: shape}))
    for name, shape in _INSTEAD_OF_CONTENT.items()
)
# What is null in a message counts as absent, as SDKs replay it; a null content says that there is none.
MESSAGE = Object(
    required(role=StringEnum(*ROLES)),
    nullable(content=_CONTENT),
    _require_content,
    _OTHERS,
    _require_tool_call_id,
    drop_nulls=True,
    keep_null="content",
).with_schema(AnyOf(_WITH_CONTENT, _TOOL_RESULT, *_WITHOUT_CONTENT))
MESSAGES = Array(MESSAGE, 1, MOST_MESSAGES)
