"""``POST /v1/chat/completions``."""

from __future__ import annotations

from typing import Any

from marshmallow import validates_schema

from mistral_api.schemas.fields import Boolean, CheckedField, Integer, Object, OneOf, check_array
from mistral_api.schemas.issues import refuse
from mistral_api.schemas.messages import Messages
from mistral_api.schemas.sampling import GenerationRequest, refuse_endless
from mistral_api.schemas.tools import (
    FunctionCall,
    Functions,
    ResponseFormat,
    ToolChoice,
    Tools,
    chosen_names,
    forces_a_call,
)

_PLAIN = {"type": "text"}


class TextModality(CheckedField):
    """``["text"]``: nothing else comes out of the models served here."""

    def check(self, value: Any) -> None:
        """Refuse any other modality."""
        check_array(value, 1)
        for index, name in enumerate(value):
            if name != "text":
                text = "Unsupported value for '{param}': this server answers in 'text' only."
                refuse("unsupported_value", text, f"[{index}]")


class ChatCompletionRequest(GenerationRequest):
    """A chat completion request."""

    messages = Messages(required=True)
    use_history = Boolean()
    truncation = OneOf("auto", "disabled")
    max_completion_tokens = Integer(-1, 2**31 - 1)
    tools = Tools()
    tool_choice = ToolChoice()
    parallel_tool_calls = Boolean()
    functions = Functions()
    function_call = FunctionCall()
    response_format = ResponseFormat()
    logprobs = Boolean()
    top_logprobs = Integer(0, 20)
    modalities = TextModality()
    reasoning_effort = OneOf("none", "minimal", "low", "medium", "high", "xhigh", "max")
    chat_template_kwargs = Object()
    add_generation_prompt = Boolean()

    @validates_schema
    def _belongs_together(self, data: dict[str, Any], **_options: Any) -> None:
        if "max_tokens" in data and "max_completion_tokens" in data:
            text = "'max_tokens' and '{param}' cannot both be given; use '{param}'."
            refuse("mutually_exclusive_parameters", text, field="max_completion_tokens")
        if data.get("top_logprobs") and not data.get("logprobs"):
            refuse("invalid_value", "'{param}' is only allowed when 'logprobs' is true.", field="top_logprobs")
        if data.get("response_format", _PLAIN)["type"] != "text":
            refuse_endless(data, "response_format")

    @validates_schema
    def _choice_is_a_tool(self, data: dict[str, Any], **_options: Any) -> None:
        choice, tools = data.get("tool_choice"), data.get("tools", [])
        if forces_a_call(choice):
            refuse_endless(data, "tool_choice")
            if not tools:
                refuse("invalid_value", "'{param}' is only allowed when 'tools' are given.", field="tool_choice")
        known = {tool["function"]["name"] for tool in tools}
        for name, path in chosen_names(choice):
            if name not in known:
                text = "'{param}' names a function that is not in 'tools'."
                refuse("invalid_value", text, path, field="tool_choice")

    @validates_schema
    def _call_is_a_function(self, data: dict[str, Any], **_options: Any) -> None:
        call, functions = data.get("function_call"), data.get("functions")
        if functions and ("tools" in data or "tool_choice" in data):
            refuse("mutually_exclusive_parameters", "'{param}' and 'tools' cannot both be given.", field="functions")
        if isinstance(call, dict):
            refuse_endless(data, "function_call")
            if call["name"] not in [function["name"] for function in functions or ()]:
                text = "'{param}' names a function that is not in 'functions'."
                refuse("invalid_value", text, field="function_call")
