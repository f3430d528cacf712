"""``POST /v1/responses`` and ``POST /v1/responses/input_tokens``."""

from __future__ import annotations

from typing import Any

from marshmallow import validates_schema

from mistral_api.wire.field_errors import refuse
from mistral_api.wire.fields import Boolean, Integer, Object, OneOf, Text
from mistral_api.wire.response_fields import (
    UNSUPPORTED,
    ConversationName,
    FunctionTools,
    Includes,
    ReasoningOptions,
    ResponseId,
    ResponseInput,
    ResponseToolChoice,
    TextOptions,
    response_forces_call,
    response_tool_names,
)
from mistral_api.wire.sampling import GenerationRequest, refuse_endless


class ResponseRequest(GenerationRequest):
    """A request for a response. ``conversation`` becomes the id of the conversation, whatever its form was.

    Raises, through :func:`mistral_api.schemas.load`, InvalidRequest with OpenAI's codes.
    """

    input = ResponseInput()
    instructions = Text()
    previous_response_id = ResponseId()
    conversation = ConversationName()
    background = Boolean()
    include = Includes()
    tools = FunctionTools()
    tool_choice = ResponseToolChoice()
    parallel_tool_calls = Boolean()
    max_tool_calls = Integer(1, 2**31 - 1)
    max_output_tokens = Integer(16, 2**31 - 1)
    top_logprobs = Integer(0, 20)
    text = TextOptions()
    reasoning = ReasoningOptions()
    truncation = OneOf("auto", "disabled")
    prompt_cache_key = Text()
    safety_identifier = Text(0, 64)
    service_tier = OneOf("auto", "default", "flex", "scale", "priority", "fast", "ultrafast")
    n = Integer(1, 1)
    chat_template_kwargs = Object()

    @validates_schema
    def _nothing_unsupported(self, data: dict[str, Any], **_options: Any) -> None:
        for name, instead in UNSUPPORTED.items():
            if data.get(name) not in (None, False, []):
                refuse("unsupported_parameter", f"Unsupported parameter: '{{param}}'. {instead}", field=name)

    @validates_schema
    def _has_something_to_answer(self, data: dict[str, Any], **_options: Any) -> None:
        if not any(data.get(name) is not None for name in ("input", "previous_response_id", "conversation")):
            text = "Missing required parameter: '{param}', 'previous_response_id' or 'conversation' must be given."
            refuse("missing_required_parameter", text, field="input")
        if data.get("input") == [] and not ("previous_response_id" in data or "conversation" in data):
            refuse("empty_array", "Invalid '{param}': there is nothing to answer.", field="input")

    @validates_schema
    def _one_past(self, data: dict[str, Any], **_options: Any) -> None:
        """A response continues one thing only."""
        given = [name for name in ("previous_response_id", "conversation", "session_id") if name in data]
        if len(given) > 1:
            text = f"'{given[0]}' and '{{param}}' cannot both be given."
            refuse("mutually_exclusive_parameters", text, field=given[1])

    @validates_schema
    def _background_is_stored(self, data: dict[str, Any], **_options: Any) -> None:
        if data.get("background") and data.get("store") is False:
            refuse("invalid_value", "'{param}' is only allowed when 'store' is true.", field="background")

    @validates_schema
    def _choice_is_among_tools(self, data: dict[str, Any], **_options: Any) -> None:
        choice, names = data.get("tool_choice"), [tool["name"] for tool in data.get("tools", [])]
        if response_forces_call(choice):
            refuse_endless(data, "tool_choice")
        if choice == "required" and not names:
            refuse("invalid_value", "'{param}' is only allowed when 'tools' are given.", field="tool_choice")
        if not set(response_tool_names(choice)) <= set(names):
            refuse("invalid_value", "'{param}' names a function that is not in 'tools'.", field="tool_choice")

    @validates_schema
    def _format_can_end(self, data: dict[str, Any], **_options: Any) -> None:
        text_format = data.get("text", {}).get("format") or {"type": "text"}
        if text_format["type"] != "text":
            refuse_endless(data, "text.format")


class InputTokensRequest(ResponseRequest):
    """What is to be counted: a request as it would be made, but that nothing is generated."""
