"""From a Responses request to the chat completion request that answers it."""

from __future__ import annotations

from typing import Any

from mistral_api.schemas.fields import without_nulls
from mistral_api.schemas.response_fields import UNSUPPORTED, response_tool_names

# What only the Responses API knows, and what is kept of an answer: none of it is the model's business.
_NOT_ASKED = frozenset(
    (
        "input", "instructions", "previous_response_id", "conversation", "background", "background_options",
        "include", "max_output_tokens", "max_tool_calls", "text", "reasoning", "truncation", "top_logprobs",
        "tools", "tool_choice", "stream_options", "store", "metadata", "session_id", "user", "safety_identifier",
        "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "service_tier", "moderation",
        "access_programs", "image", "personality", *UNSUPPORTED,
    )
)  # fmt: skip
_TOOL_FIELDS = ("name", "description", "parameters", "strict")
_FORMAT_FIELDS = ("name", "description", "schema", "strict")
_LOGPROBS = "message.output_text.logprobs"


def chat_payload(request: dict[str, Any], messages: list[dict[str, Any]]) -> dict[str, Any]:
    """The chat completion payload of a valid request; fields of llama.cpp's own, and unknown ones, pass on.

    ``messages``: all that the model is to read: instructions, history and input.
    """
    payload = {name: value for name, value in request.items() if name not in _NOT_ASKED}
    payload["messages"] = messages
    if "max_output_tokens" in request:
        payload["max_completion_tokens"] = request["max_output_tokens"]
    effort = request.get("reasoning", {}).get("effort")
    if effort is not None:
        payload["reasoning_effort"] = effort
    if request.get("stream"):
        payload["stream_options"] = {"include_usage": True}
    return payload | _tools(request) | _response_format(request) | _logprobs(request)


def _tools(request: dict[str, Any]) -> dict[str, Any]:
    """Tools and the choice among them; of ``allowed_tools`` only those allowed are shown to the model."""
    tools, choice = request.get("tools") or [], request.get("tool_choice")
    names = response_tool_names(choice)
    if isinstance(choice, dict) and choice["type"] == "allowed_tools":
        tools, choice = [tool for tool in tools if tool["name"] in names], choice["mode"]
    elif isinstance(choice, dict):
        choice = {"type": "function", "function": {"name": choice["name"]}}
    if not tools:
        return {}
    nested = [{"type": "function", "function": _function(tool)} for tool in tools]
    return {"tools": nested} if choice is None else {"tools": nested, "tool_choice": choice}


def _function(tool: dict[str, Any]) -> dict[str, Any]:
    return without_nulls({name: tool[name] for name in _TOOL_FIELDS if name in tool})


def _response_format(request: dict[str, Any]) -> dict[str, Any]:
    wanted = request.get("text", {}).get("format") or {"type": "text"}
    if wanted["type"] == "text":
        return {}
    if wanted["type"] == "json_object":
        return {"response_format": {"type": "json_object"}}
    schema = without_nulls({name: wanted[name] for name in _FORMAT_FIELDS if name in wanted})
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _logprobs(request: dict[str, Any]) -> dict[str, Any]:
    """llama.cpp gives 20 alternatives where none are asked for, and no log probabilities at all for 0 of them."""
    most = request.get("top_logprobs") or 0
    if not most and _LOGPROBS not in request.get("include", ()):
        return {}
    return {"logprobs": True, "top_logprobs": max(1, most)}
