"""Anthropic's request as a chat completion request."""

from __future__ import annotations

from typing import Any

from mistral_api.anthropic.blocks import chat_messages, system_text

# Fields that become others, and fields that mean something at Anthropic's only.
_TRANSLATED = ("messages", "system", "tools", "tool_choice", "stop_sequences", "thinking", "output_config", "metadata")
_THEIRS = (
    "cache_control",
    "container",
    "context_management",
    "diagnostics",
    "inference_geo",
    "mcp_servers",
    "service_tier",
    "speed",
)
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def chat_request(request: dict[str, Any]) -> dict[str, Any]:
    """The chat completion request that says the same; unknown fields stay as they are."""
    chat = {name: value for name, value in request.items() if name not in _TRANSLATED + _THEIRS}
    chat["messages"] = _messages(request)
    if request.get("tools"):
        chat["tools"] = [_tool(tool) for tool in request["tools"]]
    if "tool_choice" in request:
        chat |= _tool_choice(request["tool_choice"])
    if request.get("stop_sequences"):
        # llama.cpp says which of them it was only in its verbose form (tools/server/server-task.cpp).
        chat |= {"stop": request["stop_sequences"], "verbose": True}
    if request.get("stream"):
        chat["stream_options"] = {"include_usage": True}
    return chat | _thinking(request) | _output(request.get("output_config") or {})


def _messages(request: dict[str, Any]) -> list[dict[str, Any]]:
    first = [{"role": "system", "content": system_text(request["system"])}] if request.get("system") else []
    return first + [each for message in request["messages"] for each in chat_messages(message)]


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    function = {"name": tool["name"], "parameters": tool["input_schema"]}
    for name in ("description", "strict"):
        if tool.get(name) is not None:
            function[name] = tool[name]
    return {"type": "function", "function": function}


def _tool_choice(choice: dict[str, Any]) -> dict[str, Any]:
    kind = choice["type"]
    named = {"type": "function", "function": {"name": choice.get("name")}}
    chosen: dict[str, Any] = {"tool_choice": _CHOICES.get(kind, named)}
    if choice.get("disable_parallel_tool_use") is not None:
        chosen["parallel_tool_calls"] = not choice["disable_parallel_tool_use"]
    return chosen


def _thinking(request: dict[str, Any]) -> dict[str, Any]:
    """llama.cpp's fields for reasoning; templates without a switch for it ignore them."""
    thinking = request.get("thinking") or {}
    options = request.get("chat_template_kwargs") or {}
    if thinking.get("type") == "enabled":
        return {
            "thinking_budget_tokens": thinking["budget_tokens"],
            "chat_template_kwargs": {"enable_thinking": True} | options,
        }
    if thinking.get("type") == "disabled":
        return {"chat_template_kwargs": {"enable_thinking": False} | options}
    return {}


def _output(config: dict[str, Any]) -> dict[str, Any]:
    wanted: dict[str, Any] = {}
    if config.get("effort") is not None:
        wanted["reasoning_effort"] = config["effort"]
    if config.get("format") is not None:
        schema = {"name": "output", "strict": True, "schema": config["format"]["schema"]}
        wanted["response_format"] = {"type": "json_schema", "json_schema": schema}
    return wanted
