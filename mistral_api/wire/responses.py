"""Requests of ``POST /v1/responses`` and ``POST /v1/responses/input_tokens``."""

from __future__ import annotations

import re
from operator import itemgetter
from typing import ClassVar, cast

from marshmallow import validates_schema

from mistral_api.payload_types import JsonObject
from mistral_api.payload_types.responses import ResponsePayload
from mistral_api.wire.chat import CONTINUATION, TEMPLATE_ARGUMENTS
from mistral_api.wire.constraints import JSON_SCHEMA
from mistral_api.wire.container_shapes import Array, Object, TaggedUnion, nullable, required
from mistral_api.wire.field_errors import quote_value, refuse
from mistral_api.wire.items import ITEMS
from mistral_api.wire.request_schema import Field
from mistral_api.wire.response_tools import RESPONSE_TOOL_CHOICE, RESPONSE_TOOLS, check_choice
from mistral_api.wire.sampling import (
    SESSION_ID,
    SESSION_ID_LENGTH,
    GenerationRequest,
    refuse_ignore_eos,
    valid_session_id,
)
from mistral_api.wire.shapes import INT32_MAX, AnyOf, Boolean, Integer, JsonSchema, StringEnum, Text
from mistral_api.wire.tools import FUNCTION_NAME, forces_call

RESPONSE_ID = re.compile(r"resp_[A-Za-z0-9_-]{1,128}")
_INCLUDABLE = (
    "message.output_text.logprobs",
    "message.input_image.image_url",
    "reasoning.encrypted_content",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
)
# Fields that are refused, since to ignore them would change the response unseen, and what to do instead.
UNSUPPORTED = {
    "prompt": "This server keeps no prompt templates: send 'instructions' and 'input'.",
    "context_management": "This server does not compact; 'truncation' may be 'auto'.",
    "use_history": "Continue with 'previous_response_id' or 'conversation'.",
    "messages": "In the Responses API it is 'input'.",
    "max_tokens": "In the Responses API it is 'max_output_tokens'.",
    "max_completion_tokens": "In the Responses API it is 'max_output_tokens'.",
    "response_format": "In the Responses API it is 'text.format'.",
    "reasoning_effort": "In the Responses API it is 'reasoning.effort'.",
    "verbosity": "In the Responses API it is 'text.verbosity'.",
    "functions": "In the Responses API they are 'tools'.",
    "function_call": "In the Responses API it is 'tool_choice'.",
    "logprobs": "In the Responses API 'include' names 'message.output_text.logprobs'.",
}
# Unsupported fields may have values that ask for nothing; where the field has a shape of its own, fewer of them.
_HARMLESS: dict[str, list[object]] = {"use_history": [None, False], "max_tokens": [None]}


def _check_response_id(text: str) -> None:
    if not RESPONSE_ID.fullmatch(text):
        problem = f"Invalid '{{param}}': '{quote_value(text)}'. Expected an ID that begins with 'resp'."
        refuse("invalid_value", problem)


def _check_conversation_id(text: str) -> None:
    if not text or not valid_session_id(text):
        refuse("invalid_value", f"Invalid '{{param}}': '{quote_value(text)}' is not the id of a conversation.")


_RESPONSE_ID = Text().refined(_check_response_id).with_schema(Text(pattern=RESPONSE_ID))
_CONVERSATION_ID = Text().refined(_check_conversation_id).with_schema(Text(1, SESSION_ID_LENGTH, SESSION_ID))
# The id of a conversation, or an object with it; either is loaded as the id.
_CONVERSATION = AnyOf(
    _CONVERSATION_ID,
    Object(required(id=_CONVERSATION_ID)).converted(itemgetter("id")),
    expected="a string or an object",
)
_INPUT = AnyOf(Text(), ITEMS, expected="a string or an array of items")


# The format is flat, unlike a chat's ``response_format``.
_WITHOUT_SCHEMA = Object()
_WITH_SCHEMA = Object(required(name=FUNCTION_NAME, schema=JSON_SCHEMA), nullable(description=Text(), strict=Boolean()))
_TEXT_OPTIONS = Object(
    nullable(
        verbosity=StringEnum("low", "medium", "high"),
        format=TaggedUnion(
            "type", {"text": _WITHOUT_SCHEMA, "json_object": _WITHOUT_SCHEMA, "json_schema": _WITH_SCHEMA}
        ),
    )
)
_SUMMARY = StringEnum("auto", "concise", "detailed")
_REASONING = Object(
    nullable(
        effort=StringEnum("none", "minimal", "low", "medium", "high", "xhigh", "max"),
        summary=_SUMMARY,
        generate_summary=_SUMMARY,
    )
)
# OpenAI knows these; those that only its hosted tools have are never there.
INCLUDE = Array(StringEnum(*_INCLUDABLE))


class ResponseRequest(GenerationRequest[ResponsePayload]):
    """A request for a response. ``conversation`` becomes the id of the conversation, whatever its form was."""

    EXAMPLE: ClassVar[ResponsePayload] = {"input": "Hello, how are you?", "max_output_tokens": 60}
    RULES: ClassVar[JsonSchema] = {
        "properties": {
            name: {"enum": _HARMLESS.get(name, [None, False, []]), "description": f"Not supported. {instead}"}
            for name, instead in UNSUPPORTED.items()
        },
        "anyOf": [
            {"required": [name], "properties": {name: {"not": {"type": "null"}}}}
            for name in ("input", "previous_response_id", "conversation")
        ],
    }

    input = Field(_INPUT)
    instructions = Field(Text())
    previous_response_id = Field(_RESPONSE_ID)
    conversation = Field(_CONVERSATION)
    background = Field(Boolean())
    include = Field(INCLUDE)
    tools = Field(RESPONSE_TOOLS)
    tool_choice = Field(RESPONSE_TOOL_CHOICE)
    parallel_tool_calls = Field(Boolean())
    max_tool_calls = Field(Integer(1, INT32_MAX))
    # OpenAI takes 16 or more. Clients that look whether a model answers ask for one.
    max_output_tokens = Field(Integer(1, INT32_MAX))
    top_logprobs = Field(Integer(0, 20))
    text = Field(_TEXT_OPTIONS)
    reasoning = Field(_REASONING)
    truncation = Field(StringEnum("auto", "disabled"))
    prompt_cache_key = Field(Text())
    safety_identifier = Field(Text(0, 64))
    service_tier = Field(StringEnum("auto", "default", "flex", "scale", "priority", "fast", "ultrafast"))
    n = Field(Integer(1, 1))
    chat_template_kwargs = Field(TEMPLATE_ARGUMENTS)
    add_generation_prompt = Field(Boolean())
    continue_final_message = Field(CONTINUATION)
    thinking_budget_tokens = Field(Integer(-1, INT32_MAX))

    @validates_schema
    def _nothing_unsupported(self, data: ResponsePayload, **_options: object) -> None:
        for name, instead in UNSUPPORTED.items():
            if data.get(name) not in (None, False, []):
                refuse("unsupported_parameter", f"Unsupported parameter: '{{param}}'. {instead}", field=name)

    @validates_schema
    def _has_something_to_answer(self, data: ResponsePayload, **_options: object) -> None:
        if not any(data.get(name) is not None for name in ("input", "previous_response_id", "conversation")):
            text = "Missing required parameter: '{param}', 'previous_response_id' or 'conversation' must be given."
            refuse("missing_required_parameter", text, field="input")
        if data.get("input") == [] and not ("previous_response_id" in data or "conversation" in data):
            refuse("empty_array", "Invalid '{param}': there is nothing to answer.", field="input")

    @validates_schema
    def _continues_one_thing(self, data: ResponsePayload, **_options: object) -> None:
        """A response continues one thing only."""
        given = [name for name in ("previous_response_id", "conversation", "session_id") if name in data]
        if len(given) > 1:
            text = f"'{given[0]}' and '{{param}}' cannot both be given."
            refuse("mutually_exclusive_parameters", text, field=given[1])

    @validates_schema
    def _background_is_stored(self, data: ResponsePayload, **_options: object) -> None:
        if data.get("background") and data.get("store") is False:
            refuse("invalid_value", "'{param}' is only allowed when 'store' is true.", field="background")

    @validates_schema
    def _choice_is_among_tools(self, data: ResponsePayload, **_options: object) -> None:
        if forces_call(data.get("tool_choice")):
            refuse_ignore_eos(data, "tool_choice")
        check_choice(cast("JsonObject", data))

    @validates_schema
    def _format_can_end(self, data: ResponsePayload, **_options: object) -> None:
        text_format = data.get("text", {}).get("format") or {"type": "text"}
        if text_format["type"] != "text":
            refuse_ignore_eos(data, "text.format")


class InputTokensRequest(ResponseRequest):
    """What is to be counted: a request as it would be made, but that nothing is generated."""

    EXAMPLE: ClassVar[ResponsePayload] = {"input": "Hello, how are you?"}
