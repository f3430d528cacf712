"""Anthropic's Messages endpoints, and their requests as chat completion requests.

llama.cpp has a ``/v1/messages`` of its own. It is not used, for these reasons (tools/server/server-chat.cpp and
server-task.cpp): it drops ``return_progress`` and ``seed``, so that a client that leaves during the prompt keeps its
slot; it does not enforce ``any`` and a named tool; a stream whose first token is held back has no ``message_start``;
and its blocks lack fields that Anthropic's types demand (``signature``, ``input``). Shapes are those of the
``anthropic`` package's types.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import cast

import orjson
from marshmallow import post_load

from mistral_api.errors import InvalidRequest
from mistral_api.generation.anthropic_renderer import AnthropicRenderer
from mistral_api.generation.anthropic_tools import chat_tools, ignored_tools
from mistral_api.generation.endpoint import CHAT, Dialect, Endpoint
from mistral_api.generation.passthrough import PassthroughEndpoint
from mistral_api.payload_types import omit
from mistral_api.payload_types.anthropic import (
    AnthropicToolChoice,
    AssistantBlock,
    CompactionBlock,
    ContentBlock,
    DocumentBlock,
    ImageSource,
    MessagesPayload,
    OutputConfig,
    RequestMessage,
    SystemBlock,
    ToolReferenceBlock,
    ToolResultBlock,
    ToolUseBlock,
    UserBlock,
)
from mistral_api.payload_types.chat import (
    ChatMessage,
    ChatPayload,
    ContentPart,
    FunctionCall,
    NamedSchema,
    ToolCall,
)
from mistral_api.system.data_urls import data_url
from mistral_api.wire import ChatCompletionRequest, load
from mistral_api.wire.anthropic import CountTokensRequest, MessagesRequest
from mistral_api.wire.engine_fields import LLAMA_CPP_CHAT

# Claude Code puts a stamp before the system text. Its fields change between requests (``cch`` in older versions, the
# end of ``cc_version`` in 2.1.197), so no prompt would be found cached.
_STAMP = re.compile(r"\A(x-anthropic-billing-header:)(?:\s*\w+=[^;\n]*;)+")


def system_text(system: str | Sequence[SystemBlock]) -> str:
    """Return the system prompt as one string."""
    texts = [system] if isinstance(system, str) else [_system_line(block) for block in system]
    return "\n".join(_STAMP.sub(r"\1", text) for text in texts)


def _system_line(block: SystemBlock) -> str:
    if block["type"] == "text":
        return block["text"]
    word = "available now" if block["type"] == "tool_addition" else "no longer available"
    return f"The tool {block['tool'].get('name', 'of an MCP server')} is {word}."


def chat_messages(message: RequestMessage) -> list[ChatMessage]:
    """Return one message in OpenAI's form. The results of tools become messages of their own, before the rest."""
    if message["role"] == "system":
        return [{"role": "system", "content": system_text(message["content"])}] if message["content"] else []
    if not message.get("content"):  # the client kept an answer that was cut off before it said anything
        return [{"role": message["role"], "content": ""}]
    if isinstance(message["content"], str):
        return [{"role": message["role"], "content": message["content"]}]
    return [_assistant(message["content"])] if message["role"] == "assistant" else _user(message["content"])


def _assistant(blocks: list[AssistantBlock]) -> ChatMessage:
    message: ChatMessage = {"role": "assistant"}
    texts = [text for block in blocks for text in _said(block)]
    thoughts = [block["thinking"] for block in blocks if block["type"] == "thinking"]
    calls = [_tool_call(block) for block in blocks if block["type"] == "tool_use"]
    message["content"] = "".join(texts) if texts or not calls else None
    if thoughts:
        message["reasoning_content"] = "".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    return message


def _said(block: AssistantBlock) -> list[str]:
    """Return the text of a block. The summary of earlier messages stands in their place, as if it had been said."""
    if block["type"] == "text":
        return [block["text"]]
    return [block.get("content") or ""] if block["type"] == "compaction" else []


def _tool_call(block: ToolUseBlock) -> ToolCall:
    function: FunctionCall = {"name": block["name"], "arguments": orjson.dumps(block["input"]).decode()}
    return {"id": block["id"], "type": "function", "function": function}


def _user(blocks: list[UserBlock]) -> list[ChatMessage]:
    messages = [_tool_message(block) for block in blocks if block["type"] == "tool_result"]
    others = [block for block in blocks if block["type"] != "tool_result"]
    if others or not messages:
        messages.append({"role": "user", "content": _content(others)})
    return messages


def _tool_message(block: ToolResultBlock) -> ChatMessage:
    content = block.get("content") or ""
    result = content if isinstance(content, str) else _content(content)
    if not result and block.get("is_error"):
        result = "error"
    return {"role": "tool", "tool_call_id": block["tool_use_id"], "content": result}


def _content(blocks: Sequence[ContentBlock | CompactionBlock | ToolReferenceBlock]) -> str | list[ContentPart]:
    """Return one string where the blocks are a single text, else parts."""
    parts = [part for block in blocks for part in _parts(block)]
    if all(part["type"] == "text" for part in parts) and len(parts) <= 1:
        return parts[0]["text"] if parts else ""
    return parts


def _parts(block: ContentBlock | CompactionBlock | ToolReferenceBlock) -> list[ContentPart]:
    if block["type"] == "text":
        return [_text(block["text"])]
    if block["type"] == "tool_reference":
        return [_text(f"The tool {block['tool_name']} is available now.")]
    if block["type"] == "compaction":
        return [_text(block.get("content") or "")]
    if block["type"] == "image":
        return [{"type": "image_url", "image_url": {"url": _image_url(block["source"])}}]
    if block["type"] == "search_result":
        return [_text(f"{block['title']}\n{block['source']}"), *(_text(each["text"]) for each in block["content"])]
    return _document(block)


def _document(block: DocumentBlock) -> list[ContentPart]:
    source = block["source"]
    heads = [_text(text) for text in (block.get("title"), block.get("context")) if text]
    if source["type"] == "text":
        return [*heads, _text(source["data"])]
    content = source["content"]
    if isinstance(content, str):
        return [*heads, _text(content)]
    return [*heads, *(part for each in content for part in _parts(each))]


def _text(text: str) -> ContentPart:
    return {"type": "text", "text": text}


def _image_url(source: ImageSource) -> str:
    if source["type"] == "url":
        return str(source["url"])
    return data_url(source["media_type"], source["data"])


# Fields that are translated, and fields that mean something to Anthropic's own servers alone.
_TRANSLATED = ("messages", "system", "tools", "tool_choice", "stop_sequences", "thinking", "output_config", "metadata")
_ANTHROPIC_ONLY = (
    "anthropic_beta",
    "anthropic_version",
    "betas",
    "billing_policy",
    "cache_control",
    "compaction",
    "container",
    "context_management",
    "diagnostics",
    "fallback_credit_token",
    "fallbacks",
    "inference_geo",
    "mcp_servers",
    "service_tier",
    "speed",
    "thread",
    "user_profile_id",
    "workspace_id",
)
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def chat_request(request: MessagesPayload) -> ChatPayload:
    """Return the chat completion request that asks for the same; unknown fields stay as they are."""
    # The fields that are left have the same names and meanings there.
    chat = cast("ChatPayload", omit(request, _TRANSLATED + _ANTHROPIC_ONLY))
    chat["messages"] = _messages(request)
    tools = chat_tools(request)
    if tools:
        chat["tools"] = tools
    elif request.get("tools") and request.get("tool_choice", {"type": "auto"})["type"] == "any":
        text = "'tool_choice' demands a call, but tools with 'defer_loading' wait for a message that brings them in."
        raise InvalidRequest(text, code="invalid_value", param="tool_choice")
    # Where the tools are left out, the choice between them and none is too.
    if "tool_choice" in request and (tools or request["tool_choice"]["type"] in ("any", "tool")):
        chat |= _tool_choice(request["tool_choice"])
    if request.get("stop_sequences"):
        # llama.cpp says only in its verbose form which sequence it met (tools/server/server-task.cpp).
        chat |= {"stop": request["stop_sequences"], "verbose": True}
    if request.get("stream"):
        chat["stream_options"] = {"include_usage": True}
    return chat | _thinking(request) | _output(request.get("output_config") or {})


def _messages(request: MessagesPayload) -> list[ChatMessage]:
    leading: list[ChatMessage] = (
        [{"role": "system", "content": system_text(request["system"])}] if request.get("system") else []
    )
    return leading + [each for message in request["messages"] for each in chat_messages(message)]


def _tool_choice(choice: AnthropicToolChoice) -> ChatPayload:
    chosen: ChatPayload = {}
    if choice["type"] == "tool":
        chosen["tool_choice"] = {"type": "function", "function": {"name": choice["name"]}}
    else:
        chosen["tool_choice"] = _CHOICES[choice["type"]]
    if choice.get("disable_parallel_tool_use") is not None:
        chosen["parallel_tool_calls"] = not choice["disable_parallel_tool_use"]
    return chosen


def _thinking(request: MessagesPayload) -> ChatPayload:
    """Return llama.cpp's fields for reasoning; templates without a switch for it ignore them."""
    thinking, options = request.get("thinking"), request.get("chat_template_kwargs") or {}
    if thinking is None:
        return {}
    if thinking["type"] == "enabled":
        return {
            "thinking_budget_tokens": thinking["budget_tokens"],
            "chat_template_kwargs": {"enable_thinking": True} | options,
        }
    if thinking["type"] == "disabled":
        return {"chat_template_kwargs": {"enable_thinking": False} | options}
    return {}


def _output(config: OutputConfig) -> ChatPayload:
    effort, output_format = config.get("effort"), config.get("format")
    wanted: ChatPayload = {}
    if effort is not None:
        wanted["reasoning_effort"] = effort
    if output_format is not None:
        schema: NamedSchema = {"name": "output", "strict": True, "schema": output_format["schema"]}
        wanted["response_format"] = {"type": "json_schema", "json_schema": schema}
    return wanted


_CHAT = ChatCompletionRequest()


def _as_chat(request: MessagesPayload) -> ChatPayload:
    """Return the chat completion request, checked as such. Raises InvalidRequest."""
    return load(_CHAT, chat_request(request))


class _Messages(MessagesRequest[ChatPayload]):
    """Loads as a chat completion request."""

    @post_load
    def _translate(self, data: MessagesPayload, **_options: object) -> ChatPayload:
        return _as_chat(data)


class _CountTokens(CountTokensRequest[ChatPayload]):
    """Loads as a chat completion request."""

    @post_load
    def _translate(self, data: MessagesPayload, **_options: object) -> ChatPayload:
        return _as_chat(data)


MESSAGES = Endpoint(
    "/v1/messages",
    True,
    _Messages(),
    CHAT.messages,
    Dialect(AnthropicRenderer, shows_progress=False),
    upstream_path=CHAT.path,
    ignored_tools=ignored_tools,
)
COUNT_TOKENS = PassthroughEndpoint(
    "/v1/messages/count_tokens",
    partial(load, _CountTokens()),
    upstream_path="/v1/chat/completions/input_tokens",
    fits_roles=True,
    takes_messages=True,
    fields=LLAMA_CPP_CHAT,
)
