"""Requests of ``POST /v1/chat/completions``."""

from __future__ import annotations

from typing import ClassVar

from marshmallow import validates_schema

from mistral_api.payload_types.chat import ChatPayload
from mistral_api.wire.container_shapes import Array, Object
from mistral_api.wire.field_errors import refuse
from mistral_api.wire.messages import MESSAGES
from mistral_api.wire.request_schema import Field
from mistral_api.wire.sampling import GenerationRequest, refuse_ignore_eos
from mistral_api.wire.shapes import INT32_MAX, Boolean, Constant, Integer, StringEnum
from mistral_api.wire.tools import (
    FUNCTION_CALL,
    FUNCTIONS,
    RESPONSE_FORMAT,
    TOOL_CHOICE,
    TOOLS,
    chosen_functions,
    forces_call,
)

# The models served here generate nothing else.
_MODALITY = Constant(
    "text", "unsupported_value", "Unsupported value for '{param}': this server answers in 'text' only."
)


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
    top_logprobs = Field(Integer(0, 20))
    modalities = Field(Array(_MODALITY, 1))
    reasoning_effort = Field(StringEnum("none", "minimal", "low", "medium", "high", "xhigh", "max"))
    chat_template_kwargs = Field(Object())
    add_generation_prompt = Field(Boolean())

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
        known = {tool["function"]["name"] for tool in tools}
        for name, path in chosen_functions(choice):
            if name not in known:
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
