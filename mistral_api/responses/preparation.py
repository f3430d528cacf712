"""The chat request that answers a Responses request; ids.

From a Responses request to the chat completion request that answers it.

A response before anything is generated: what it goes on from, what the model is to read, its ids.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from mistral_api.conversations.history import drop_unanswered_calls
from mistral_api.conversations.item_parser import items_to_messages
from mistral_api.errors import InvalidRequest
from mistral_api.recording.exchange import RESPONSE_OBJECT
from mistral_api.responses.response_object import Response, new_response
from mistral_api.responses.stored_responses import StoredContext
from mistral_api.system.identifiers import new_id
from mistral_api.wire.field_errors import quote_value
from mistral_api.wire.fields import without_nulls
from mistral_api.wire.payload_types import ChatMessage
from mistral_api.wire.response_fields import UNSUPPORTED, response_tool_names

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


@dataclass(frozen=True, slots=True)
class PreparedResponse:
    """A response that can be generated. ``input`` is what was sent now, in chat form.

    ``input_ids`` and ``answer_id`` are the ids that its messages get in their conversation.
    """

    request: dict[str, Any]
    context: StoredContext
    input: list[ChatMessage]
    opened: Response
    input_ids: list[UUID]
    answer_id: UUID

    @property
    def messages(self) -> list[ChatMessage]:
        """All that the model is to read. Instructions hold for this response alone, open calls for none."""
        instructions = self.request.get("instructions")
        leading = [{"role": "system", "content": instructions}] if instructions else []
        return [*leading, *drop_unanswered_calls(self.context.messages, self.input), *self.input]

    def payload(self, messages: list[ChatMessage]) -> dict[str, Any]:
        """The chat completion that answers it."""
        return chat_payload(self.request, messages)

    def storing(self) -> dict[str, Any]:
        """What is journaled of it. A conversation that others add to takes nothing that was not answered.

        A session that is not there yet does: without it the response could not be found again.
        """
        there = "conversation" in self.request or self.context.continues is not None
        return {"object": RESPONSE_OBJECT, "body": self.opened, "only_answered": self.in_conversation and there}

    @property
    def in_conversation(self) -> bool:
        """Whether it belongs to a conversation that the client named."""
        return self.opened["conversation"] is not None


def prepare_response(
    request: dict[str, Any], input_items: list[dict[str, Any]], context: StoredContext, model: str
) -> PreparedResponse:
    """Prepare a valid request. Raises InvalidRequest where the input answers a call that nobody made."""
    messages = items_to_messages(input_items)
    _require_calls(context.messages, messages)
    body = new_response(request, f"resp_{new_id().hex}", int(time.time()), model, conversation_id=_named(request))
    body["session_id"] = context.session_id
    return PreparedResponse(request, context, messages, body, [new_id() for _ in messages], new_id())


def parse_input_items(request: dict[str, Any]) -> list[dict[str, Any]]:
    """The input as items: a string is what the user says."""
    given = request.get("input", [])
    return [{"type": "message", "role": "user", "content": given}] if isinstance(given, str) else list(given)


def _named(request: dict[str, Any]) -> str | None:
    """The conversation that the client named; a session is one."""
    named: str | None = request.get("conversation") or request.get("session_id")
    return named


def _require_calls(before: Iterable[ChatMessage], messages: Iterable[ChatMessage]) -> None:
    """Every output of a function must answer a call."""
    known = {call.get("id") for message in before for call in message.get("tool_calls") or []}
    for message in messages:
        known |= {call.get("id") for call in message.get("tool_calls") or []}
        if message["role"] == "tool" and message["tool_call_id"] not in known:
            raise InvalidRequest(
                f"No tool call found for function call output with call_id {quote_value(message['tool_call_id'])}.",
                param="input",
            )
