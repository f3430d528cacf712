"""A response before anything is generated: what it goes on from, what the model is to read, its ids."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from mistral_api.conversations.resuming import without_open_calls
from mistral_api.errors import InvalidRequest
from mistral_api.identifiers import new_id
from mistral_api.items.incoming import items_to_messages
from mistral_api.responses.asking import chat_payload
from mistral_api.responses.body import Response, new_response
from mistral_api.schemas.issues import quote_value
from mistral_api.schemas.payload_types import ChatMessage
from mistral_api.stored.responses import StoredContext
from mistral_api.stored.storing import RESPONSE


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
        return [*leading, *without_open_calls(self.context.messages, self.input), *self.input]

    def payload(self, messages: list[ChatMessage]) -> dict[str, Any]:
        """The chat completion that answers it."""
        return chat_payload(self.request, messages)

    def storing(self) -> dict[str, Any]:
        """What is journaled of it. A conversation that others add to takes nothing that was not answered.

        A session that is not there yet does: without it the response could not be found again.
        """
        there = "conversation" in self.request or self.context.continues is not None
        return {"object": RESPONSE, "body": self.opened, "only_answered": self.in_conversation and there}

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
