"""The messages of a chat as the model server gets them: with history, no longer than fits, in roles it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mistral_api.conversations.resuming import ContinuedSession, restore_attachments
from mistral_api.generation.endpoints import OWN_FIELDS
from mistral_api.generation.fitting import room_for_prompt, truncate_turns
from mistral_api.generation.memory import SessionHistory
from mistral_api.generation.roles import needs_normalizing, normalize_roles
from mistral_api.generation.token_counter import TokenCounter
from mistral_api.inference.cancellation import UpstreamCall
from mistral_api.inference.loaded_model import LoadedModels
from mistral_api.schemas.payload_types import ChatMessage

_APART = ("messages", *OWN_FIELDS)


class PromptBuilder:
    """Fits lists of messages to the model that is loaded. Safe to use from many threads."""

    def __init__(self, loaded: LoadedModels, counter: TokenCounter, normalize_roles: str) -> None:
        """``normalize_roles``: ``auto`` or ``off``, as the setting says."""
        self._loaded = loaded
        self._counter = counter
        self._normalizes = normalize_roles == "auto"

    def prompt(
        self, request: Mapping[str, Any], recalled: ContinuedSession | None, truncation: str | None, call: UpstreamCall
    ) -> list[ChatMessage]:
        """The messages to send for a chat request.

        Raises InvalidRequest where the model server cannot count and ``truncation`` is ``auto``, and the model
        server's failures.
        """
        if truncation == "auto":
            chat = recalled or restore_attachments(request["messages"])
            return self.truncated(chat.leading, chat.stored, chat.said, request, call)
        if recalled is None:
            return self.fitted(request["messages"], call)
        return self.fitted([*recalled.leading, *recalled.stored, *recalled.said], call)

    def truncated(
        self,
        leading: Sequence[ChatMessage],
        stored: Sequence[ChatMessage],
        new: Sequence[ChatMessage],
        request: Mapping[str, Any],
        call: UpstreamCall,
    ) -> list[ChatMessage]:
        """These messages without the oldest turns that do not fit, in roles that the template takes.

        ``request``: what else changes the prompt, and the limit of the answer. Raises as :meth:`prompt` does.
        """
        options = {name: value for name, value in request.items() if name not in _APART}

        def count(messages: list[ChatMessage]) -> int:
            return self._counter.count_tokens(self.fitted(messages, call), options=options, call=call)

        def most(messages: list[ChatMessage]) -> int | None:
            return self._counter.most_tokens(messages, options, call)

        room = room_for_prompt(self._counter.context(call), options)
        return self.fitted(truncate_turns(leading, [*stored, *new], room=room, count=count, most=most), call)

    def fitted(self, messages: Sequence[ChatMessage], call: UpstreamCall) -> list[ChatMessage]:
        """The messages with roles that the template takes; the same ones where it takes them as they are.

        A list that no template refuses is not looked at any further. Raises ModelUnavailable, and what ends the call.
        """
        if not self._normalizes or not needs_normalizing(messages):
            return list(messages)
        return normalize_roles(messages, self._loaded.current(call).rules)


@dataclass(frozen=True, slots=True)
class Chats:
    """What happens to the messages of a chat before the model server gets them."""

    memory: SessionHistory
    prompts: PromptBuilder
