"""A response before anything is generated: what it continues, the chat request that answers it, its ids."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import cast
from uuid import UUID

from mistral_api.conversations.history import drop_unanswered_calls
from mistral_api.conversations.item_parser import items_to_messages
from mistral_api.errors import InvalidRequest
from mistral_api.generation.declared_tools import response_catalogue, response_choice
from mistral_api.generation.tool_catalogue import ToolCatalogue, stored_tools
from mistral_api.payload_types import omit, without_nulls
from mistral_api.payload_types.chat import ChatMessage, ChatPayload, NamedSchema, ToolChoice
from mistral_api.payload_types.responses import Item, Response, ResponsePayload
from mistral_api.recording.exchange import RESPONSE_OBJECT, StorageRequest
from mistral_api.responses.loaded_tools import loaded_constraints
from mistral_api.responses.response_object import new_response
from mistral_api.responses.stored_responses import StoredContext
from mistral_api.system.identifiers import new_id
from mistral_api.wire.constraint_places import Constraint, PlacedSchema
from mistral_api.wire.field_errors import quote_value
from mistral_api.wire.responses import UNSUPPORTED
from mistral_api.wire.tools import forces_call

# Fields of the Responses API that the chat request does not take over as they are.
_NOT_PASSED_ON = frozenset(
    (
        "input", "instructions", "previous_response_id", "conversation", "background", "background_options",
        "include", "max_output_tokens", "max_tool_calls", "text", "reasoning", "truncation", "top_logprobs",
        "tools", "tool_choice", "stream_options", "store", "metadata", "session_id", "user", "safety_identifier",
        "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "service_tier", "moderation",
        "access_programs", "image", "modalities", "personality", *UNSUPPORTED,
    )
)  # fmt: skip
_LOGPROBS = "message.output_text.logprobs"


_ENCRYPTED_REASONING = "reasoning.encrypted_content"


@dataclass(frozen=True, slots=True)
class RequestTools:
    """The tools of a request, of which the model gets those ``allowed``, and the ``choice`` among them."""

    catalogue: ToolCatalogue
    allowed: ToolCatalogue
    choice: str | ToolChoice | None

    @property
    def forces_call(self) -> bool:
        """Whether the choice demands a call."""
        return forces_call(self.choice)

    @property
    def payload(self) -> ChatPayload:
        """The fields of a chat that say it."""
        if not self.allowed.tools:
            return {}
        tools: ChatPayload = {"tools": self.allowed.functions}
        return tools if self.choice is None else tools | {"tool_choice": self.choice}


def request_tools(request: ResponsePayload, messages: Iterable[ChatMessage] = ()) -> RequestTools:
    """Return the tools of a valid request. ``messages``: those of its prompt, which may bring more tools.

    Raises InvalidRequest for a choice of a tool that nobody declared.
    """
    loaded = [tool for message in messages for tool in stored_tools(message)]
    declared = [*request.get("tools", []), *loaded]
    catalogue = response_catalogue(declared)
    return RequestTools(catalogue, *response_choice(catalogue, declared, request.get("tool_choice")))


def chat_payload(
    request: ResponsePayload, messages: list[ChatMessage], tools: RequestTools | None = None
) -> ChatPayload:
    """Return the chat completion payload of a valid request.

    ``messages``: the whole prompt: instructions, history and input. ``tools``: those of the request alone, where not
    given. Fields of llama.cpp's own, and unknown ones, are passed on.
    """
    tools = tools or request_tools(request)
    # The fields that are left have the same names and meanings there.
    payload = cast("ChatPayload", omit(request, _NOT_PASSED_ON))
    payload["messages"] = messages
    if "max_output_tokens" in request:
        payload["max_completion_tokens"] = request["max_output_tokens"]
    effort = request.get("reasoning", {}).get("effort")
    if effort is not None:
        payload["reasoning_effort"] = effort
    if request.get("stream"):
        payload["stream_options"] = {"include_usage": True}
    return payload | tools.payload | _response_format(request) | _logprobs(request)


def _response_format(request: ResponsePayload) -> ChatPayload:
    wanted = request.get("text", {}).get("format") or {"type": "text"}
    if wanted["type"] == "text":
        return {}
    if wanted["type"] == "json_object":
        return {"response_format": {"type": "json_object"}}
    schema: NamedSchema = {
        "name": wanted.get("name"),
        "description": wanted.get("description"),
        "schema": wanted.get("schema"),
        "strict": wanted.get("strict"),
    }
    return {"response_format": {"type": "json_schema", "json_schema": without_nulls(schema)}}


def _logprobs(request: ResponsePayload) -> ChatPayload:
    """Ask for at least one alternative: llama.cpp gives 20 where none are asked for, and no log probabilities for 0."""
    most = request.get("top_logprobs") or 0
    if not most and _LOGPROBS not in request.get("include", ()):
        return {}
    return {"logprobs": True, "top_logprobs": max(1, most)}


@dataclass(frozen=True, slots=True)
class PreparedResponse:
    """A response that can be generated.

    ``context``: what it continues. ``input``: the messages of this request. ``response``: the new Response object.
    ``input_ids`` and ``answer_id``: the ids that its messages get in their conversation. ``tools``: what the model may
    call. ``loaded``: what is to be enforced of tools that the body does not declare (``responses.loaded_tools``).
    """

    request: ResponsePayload
    context: StoredContext
    input: list[ChatMessage]
    response: Response
    input_ids: list[UUID]
    answer_id: UUID
    tools: RequestTools = field(default_factory=lambda: request_tools({}))
    loaded: Sequence[PlacedSchema | Constraint] = ()

    @property
    def messages(self) -> list[ChatMessage]:
        """The whole prompt. Instructions hold for this response alone; calls without a result are left out."""
        history = drop_unanswered_calls(self.context.messages, self.input)
        return self.tools.catalogue.messages_for_model([*_instructions(self.request), *history, *self.input])

    @property
    def encrypted_reasoning(self) -> bool:
        """Whether the client carries the reasoning from request to request."""
        return _ENCRYPTED_REASONING in self.request.get("include", ())

    def payload(self, messages: list[ChatMessage]) -> ChatPayload:
        """Return the chat completion request that answers it."""
        return chat_payload(self.request, messages, self.tools)

    def storing(self) -> StorageRequest:
        """Return what is journaled of it.

        A conversation that others add to takes no input that was not answered. A session that does not exist yet does:
        without it the response could not be found again.
        """
        exists = "conversation" in self.request or self.context.continues is not None
        return {"object": RESPONSE_OBJECT, "body": self.response, "only_answered": self.in_conversation and exists}

    @property
    def in_conversation(self) -> bool:
        """Whether it belongs to a conversation that the client named."""
        return self.response["conversation"] is not None


def prepare_response(
    request: ResponsePayload, input_items: list[Item], context: StoredContext, model: str
) -> PreparedResponse:
    """Prepare a valid request. Raises InvalidRequest where the input has the output of a call that was not made."""
    messages = items_to_messages(input_items)
    _require_calls(context.messages, messages, request)
    body = new_response(
        request, f"resp_{new_id().hex}", int(time.time()), model, conversation_id=_conversation_id(request)
    )
    body["session_id"] = context.session_id
    tools = request_tools(request, [*context.messages, *messages])
    loaded = loaded_constraints(request, parse_input_items(request), input_items, context.messages)
    return PreparedResponse(request, context, messages, body, [new_id() for _ in messages], new_id(), tools, loaded)


def _instructions(request: ResponsePayload) -> list[ChatMessage]:
    text = request.get("instructions")
    return [{"role": "system", "content": text}] if text else []


def sent_messages(request: ResponsePayload, input_items: list[Item]) -> list[ChatMessage]:
    """Return the instructions and the input of a request as messages."""
    return [*_instructions(request), *items_to_messages(input_items)]


def parse_input_items(request: ResponsePayload) -> list[Item]:
    """Return the input as items: a string is a message of the user."""
    items = request.get("input", [])
    return [{"type": "message", "role": "user", "content": items}] if isinstance(items, str) else list(items)


def _conversation_id(request: ResponsePayload) -> str | None:
    """Return the conversation that the client named; a session is one."""
    return request.get("conversation") or request.get("session_id")


def _require_calls(before: Iterable[ChatMessage], messages: Iterable[ChatMessage], request: ResponsePayload) -> None:
    """Refuse an output of a function whose call was not made. Raises InvalidRequest."""
    known = {call.get("id") for message in before for call in message.get("tool_calls") or []}
    for message in messages:
        known |= {call.get("id") for call in message.get("tool_calls") or []}
        call_id = message.get("tool_call_id")
        if message["role"] == "tool" and call_id not in known:
            text = f"No tool call found for function call output with call_id {quote_value(str(call_id))}."
            raise InvalidRequest(text, param=_output_path(request, call_id))


def _output_path(request: ResponsePayload, call_id: str | None) -> str:
    """Return the path of the id by which a request's input names a call; a referenced item stands elsewhere."""
    for index, item in enumerate(parse_input_items(request)):
        if item.get("call_id") == call_id and str(item.get("type")).endswith("_output"):
            return f"input[{index}].call_id"
    return "input"
