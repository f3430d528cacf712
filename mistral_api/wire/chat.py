"""Requests of ``POST /v1/chat/completions``, and the messages of a chat (OpenAI's ChatCompletionRequestMessage)."""

from __future__ import annotations

from typing import ClassVar

from marshmallow import missing, validates_schema

from mistral_api.payload_types import JsonObject, without_nulls
from mistral_api.payload_types.chat import ChatPayload
from mistral_api.wire.container_shapes import Array, Map, Object, TaggedUnion, nullable, required
from mistral_api.wire.field_errors import refuse, refuse_missing
from mistral_api.wire.media import DATA_URL, IMAGE_URL
from mistral_api.wire.request_schema import Field
from mistral_api.wire.sampling import GenerationRequest, refuse_ignore_eos
from mistral_api.wire.shapes import (
    ANYTHING,
    INT32_MAX,
    AnyOf,
    Boolean,
    Constant,
    Integer,
    Shape,
    StringEnum,
    Text,
    check_at,
    pass_through,
)
from mistral_api.wire.tools import (
    FUNCTION_CALL,
    FUNCTIONS,
    RESPONSE_FORMAT,
    TOOL_CHOICE,
    TOOLS,
    chosen_tools,
    declared_tools,
    forces_call,
)

MOST_MESSAGES = 10_000
MOST_TEMPLATE_ARGUMENTS = 64
# Unknown fields of a message do no harm in small numbers: 100 messages with 1000 each take llama.cpp four seconds.
MOST_MESSAGE_FIELDS = 64
ROLES = ("system", "developer", "user", "assistant", "tool", "function")

_DETAIL = nullable(detail=StringEnum("auto", "low", "high"))
_AUDIO = Object(required(data=Text(1)), required(format=Text(1)))
# A part's type is also the name of the field that carries it.
_PARTS: dict[str, Shape] = {
    "text": Text(),
    "refusal": Text(),
    "image_url": Object(required(url=IMAGE_URL), _DETAIL),
    "video_url": Object(required(url=DATA_URL), _DETAIL),
    "input_audio": _AUDIO,
    "input_video": Object(),
    "file": Object(),
}
# The texts of the Responses API, which clients of both leave in the histories that they send.
_TEXT_PARTS = dict.fromkeys(("input_text", "output_text"), Object(required(text=Text())))
_PART = TaggedUnion(
    "type", {kind: Object(required(**{kind: content})) for kind, content in _PARTS.items()} | _TEXT_PARTS
)
_CONTENT = AnyOf(Text(), Array(_PART, 1), expected="a string or an array of parts")
_ANY_CONTENT = AnyOf(Text(), Array(_PART), expected="a string or an array of parts")

_FUNCTION_CALL = Object(required(name=Text()), required(arguments=Text()))
# What a call of each type holds, in the field of that name.
_CALLS: dict[str, Object] = {"function": _FUNCTION_CALL, "custom": Object(required(name=Text(), input=Text()))}


def _check_call(call: JsonObject) -> None:
    kind = call["type"]
    if kind not in call:
        refuse_missing(f".{kind}")
    check_at(f".{kind}", _CALLS[kind].check, call[kind])


_TOOL_CALL = Object(nullable(id=Text()), required(type=StringEnum(*_CALLS)), _check_call, drop_nulls=True).with_schema(
    TaggedUnion(
        "type",
        {kind: Object(required(**{kind: shape})) for kind, shape in _CALLS.items()},
        required(type=StringEnum(*_CALLS)),
        nullable(id=Text()),
    )
)
# The roles whose messages may have no content: an assistant's may call tools or have said nothing, and so may a tool.
_MAY_BE_EMPTY = ("assistant", "tool", "function")
# llama.cpp reads the texts in messages of every role, and answers 500 where one is no string.
_OTHERS = nullable(
    name=Text(),
    refusal=Text(),
    reasoning_content=Text(),
    tool_call_id=Text(),
    tool_calls=Array(_TOOL_CALL),
    function_call=_FUNCTION_CALL,
)
# Where an assistant's message has one of these, it has something to say without a content.
_INSTEAD_OF_CONTENT = ("tool_calls", "refusal", "reasoning_content", "function_call")


def _require_few_fields(message: JsonObject) -> None:
    if len(message) > MOST_MESSAGE_FIELDS:
        text = f"Invalid '{{param}}': too many fields. Expected at most {MOST_MESSAGE_FIELDS}, but got {len(message)}."
        refuse("object_above_max_properties", text)


def _require_content(message: JsonObject) -> None:
    content = message.get("content")
    if content or content == "" or message["role"] in _MAY_BE_EMPTY:
        return
    if content is None:
        refuse_missing(".content")
    check_at(".content", _CONTENT.check, content)


def _require_tool_call_id(message: JsonObject) -> None:
    if message["role"] == "tool" and message.get("tool_call_id") is None:
        refuse_missing(".tool_call_id")


_WITH_CONTENT = Object(
    _OTHERS, required(role=StringEnum(*(role for role in ROLES if role not in _MAY_BE_EMPTY)), content=_CONTENT)
)
_ANSWER = Object(_OTHERS, nullable(content=_ANY_CONTENT), required(role=StringEnum("assistant", "function")))
_TOOL_RESULT = Object(_OTHERS, nullable(content=_ANY_CONTENT), required(role=StringEnum("tool"), tool_call_id=Text()))
# What is null in a message counts as absent, as SDKs replay it; a null content says that there is none.
_CHECKED_MESSAGE = Object(
    _require_few_fields,
    required(role=StringEnum(*ROLES)),
    nullable(content=_ANY_CONTENT),
    _require_content,
    _OTHERS,
    _require_tool_call_id,
    drop_nulls=True,
    keep_null="content",
)
_convert_fields = _CHECKED_MESSAGE.convert or pass_through
# The fields of which something else is made. Nearly no message has one of them.
_CHANGED_FIELDS = frozenset(("reasoning", *(name for name, shape in _OTHERS.shapes.items() if shape.convert)))


def _load_message(message: JsonObject) -> JsonObject:
    """Return a message in the form in which it is recorded, and the model server takes it."""
    content = message.get("content")
    if type(content) is str and _CHANGED_FIELDS.isdisjoint(message):
        return without_nulls(message)
    loaded: JsonObject = _convert_fields(message)
    if isinstance(content, list):
        loaded["content"] = _load_parts(content) or ""
    reasoning = loaded.get("reasoning")  # the name that vLLM, OpenRouter and Ollama's compatible API have for it
    if reasoning and isinstance(reasoning, str) and not loaded.get("reasoning_content"):
        loaded["reasoning_content"] = loaded.pop("reasoning")
    if content is None and not any(loaded.get(name) for name in _INSTEAD_OF_CONTENT):
        loaded["content"] = ""
    return loaded


def _load_parts(parts: list[JsonObject]) -> list[JsonObject]:
    """Return the parts of a message with the texts of the Responses API as those of a chat."""
    for part in parts:
        if part["type"] in _TEXT_PARTS:
            return [{"type": "text", "text": each["text"]} if each["type"] in _TEXT_PARTS else each for each in parts]
    return parts


MESSAGE = _CHECKED_MESSAGE.converted(_load_message).with_schema(
    AnyOf(_WITH_CONTENT, _ANSWER, _TOOL_RESULT).with_keywords(maxProperties=MOST_MESSAGE_FIELDS)
)
MESSAGES = Array(MESSAGE, 1, MOST_MESSAGES)

# 40 000 take llama.cpp ten seconds; no template has more than a few.
TEMPLATE_ARGUMENTS = Map(Text(1, 64), ANYTHING, MOST_TEMPLATE_ARGUMENTS)
CONTINUATION = AnyOf(Boolean(), StringEnum("content", "reasoning_content"), expected="a boolean")

# The models served here generate nothing else.
_MODALITY = Constant(
    "text", "unsupported_value", "Unsupported value for '{param}': this server answers in 'text' only."
)


# None is what a request without the field gets; llama.cpp refuses the field wherever 'logprobs' is not true.
_TOP_LOGPROBS = Integer(0, 20).converted(lambda count: int(count) or missing)


class ChatCompletionRequest(GenerationRequest[ChatPayload]):
    """A chat completion request."""

    EXAMPLE: ClassVar[ChatPayload] = {
        "messages": [{"role": "user", "content": "Hello, how are you?"}],
        "max_tokens": 60,
        "session_id": "first-steps",
    }

    messages = Field(MESSAGES, required=True)
    use_history = Field(Boolean())
    truncation = Field(StringEnum("auto", "disabled"))
    max_completion_tokens = Field(Integer(-1, INT32_MAX))
    tools = Field(TOOLS)
    tool_choice = Field(TOOL_CHOICE)
    parallel_tool_calls = Field(Boolean())
    functions = Field(FUNCTIONS)
    function_call = Field(FUNCTION_CALL)
    response_format = Field(RESPONSE_FORMAT)
    logprobs = Field(Boolean())
    top_logprobs = Field(_TOP_LOGPROBS)
    modalities = Field(Array(_MODALITY, 1))
    reasoning_effort = Field(StringEnum("none", "minimal", "low", "medium", "high", "xhigh", "max"))
    chat_template_kwargs = Field(TEMPLATE_ARGUMENTS)
    add_generation_prompt = Field(Boolean())
    continue_final_message = Field(CONTINUATION)
    thinking_budget_tokens = Field(Integer(-1, INT32_MAX))

    @validates_schema
    def _allowed_combinations(self, data: ChatPayload, **_options: object) -> None:
        if "max_tokens" in data and "max_completion_tokens" in data:
            text = "'max_tokens' and '{param}' cannot both be given; use '{param}'."
            refuse("mutually_exclusive_parameters", text, field="max_completion_tokens")
        if data.get("top_logprobs") and not data.get("logprobs"):
            refuse("invalid_value", "'{param}' is only allowed when 'logprobs' is true.", field="top_logprobs")
        if data.get("response_format", {"type": "text"})["type"] != "text":
            refuse_ignore_eos(data, "response_format")

    @validates_schema
    def _choice_is_a_tool(self, data: ChatPayload, **_options: object) -> None:
        choice, tools = data.get("tool_choice"), data.get("tools", [])
        if forces_call(choice):
            refuse_ignore_eos(data, "tool_choice")
            if not tools:
                refuse("invalid_value", "'{param}' is only allowed when 'tools' are given.", field="tool_choice")
        known = declared_tools(tools)
        for named, path in chosen_tools(choice):
            if named not in known:
                text = "'{param}' names a function that is not in 'tools'."
                refuse("invalid_value", text, path, field="tool_choice")

    @validates_schema
    def _call_is_a_function(self, data: ChatPayload, **_options: object) -> None:
        call, functions = data.get("function_call"), data.get("functions")
        if functions and ("tools" in data or "tool_choice" in data):
            refuse("mutually_exclusive_parameters", "'{param}' and 'tools' cannot both be given.", field="functions")
        if isinstance(call, dict):
            refuse_ignore_eos(data, "function_call")
            if call["name"] not in [function["name"] for function in functions or ()]:
                text = "'{param}' names a function that is not in 'functions'."
                refuse("invalid_value", text, field="function_call")
