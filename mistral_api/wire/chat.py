"""Requests of /v1/chat/completions and /v1/completions.

``POST /v1/chat/completions``.

``POST /v1/completions``.
"""

from __future__ import annotations

from typing import Any

from marshmallow import post_load, validates_schema

from mistral_api.wire.field_errors import refuse
from mistral_api.wire.fields import (
    Boolean,
    CheckedField,
    Integer,
    Object,
    OneOf,
    Text,
    check_array,
    check_texts_or_tokens,
)
from mistral_api.wire.messages import Messages
from mistral_api.wire.sampling import GenerationRequest, refuse_choices_of_nothing, refuse_endless
from mistral_api.wire.tools import (
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


DEFAULT_MAX_TOKENS = 16
MOST_PROMPTS = 2048


class Prompt(CheckedField):
    """A string, an array of strings, tokens, or an array of arrays of tokens; never a mixture."""

    def check(self, value: Any) -> None:
        """Refuse what is none of these."""
        check_texts_or_tokens(value, MOST_PROMPTS)


class Suffix(Text):
    """Text to write towards: not of this endpoint here, and better refused than ignored."""

    def check(self, value: Any) -> None:
        """Refuse all but the empty text."""
        super().check(value)
        if value:
            text = "Unsupported value: '{param}' is not supported by this endpoint; POST /infill fills in text."
            refuse("unsupported_value", text)


class CompletionRequest(GenerationRequest):
    """A legacy completion request; without ``max_tokens`` it gets OpenAI's 16."""

    prompt = Prompt(required=True)
    suffix = Suffix()
    echo = Boolean()
    logprobs = Integer(0, 5)
    best_of = Integer(0, 20)

    @validates_schema
    def _echo_without_logprobs(self, data: dict[str, Any], **_options: Any) -> None:
        if data.get("echo") and data.get("logprobs") is not None:
            text = "'{param}' cannot be given with 'echo': the model server tells nothing of a prompt's tokens."
            refuse("unsupported_value", text, field="logprobs")

    @validates_schema
    def _something_to_choose_from(self, data: dict[str, Any], **_options: Any) -> None:
        refuse_choices_of_nothing(data)

    @validates_schema
    def _best_of_fits(self, data: dict[str, Any], **_options: Any) -> None:
        best_of, wanted = data.get("best_of", 0), data.get("n", 1)
        if best_of > wanted:
            refuse("unsupported_value", "Unsupported value: '{param}' above 'n' is not supported.", field="best_of")
        if 0 < best_of < wanted:
            refuse("invalid_value", "Invalid '{param}': expected a value that is not below 'n'.", field="best_of")

    @post_load
    def _limit(self, data: dict[str, Any], **_options: Any) -> dict[str, Any]:
        if "n_predict" not in data:
            data.setdefault("max_tokens", DEFAULT_MAX_TOKENS)
        return data
