"""The messages as the model gets them, cut to the context window.

Leaving out the oldest turns of a chat that do not fit into the model's context.

A turn is a message of the user with everything up to the user's next one: the answer, tool calls, tool results.

The messages of a chat as the model server gets them: with history, no longer than fits, in roles it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from mistral_api.conversations.history import ContinuedSession, SessionHistory, without_history
from mistral_api.generation.endpoint import OWN_FIELDS
from mistral_api.generation.message_roles import needs_normalizing, normalize_roles
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.loaded_model import LoadedModels
from mistral_api.upstream.token_counter import TokenCounter
from mistral_api.wire.payload_types import ChatMessage

# What is left for an answer of unknown length: this part of the context, but no more tokens than that.
ANSWER_PART, ANSWER_TOKENS = 4, 1024
# Guesses are nearly always right; where texts are very uneven, halving is better.
GUESSES = 4
_LIMITS = ("max_completion_tokens", "max_tokens", "n_predict")


def room_for_prompt(context: int, options: Mapping[str, Any]) -> int:
    """The tokens that a prompt may take: the context but for the answer.

    ``options``: the request; without a limit of its own an answer gets a quarter of the context, at most 1024 tokens.
    No limit takes more than half of the context: history that would fit is not given up for an answer that long.
    """
    limits = [options[name] for name in _LIMITS if isinstance(options.get(name), int) and options[name] > 0]
    answer = limits[0] if limits else min(context // ANSWER_PART, ANSWER_TOKENS)
    return context - min(answer, context // 2)


def turns_of(messages: Sequence[ChatMessage]) -> list[list[ChatMessage]]:
    """The messages as turns. What stands before the first message of the user is a turn of its own."""
    turns: list[list[ChatMessage]] = []
    for message in messages:
        if message["role"] == "user" or not turns:
            turns.append([message])
        else:
            turns[-1].append(message)
    return turns


def truncate_turns(
    leading: Sequence[ChatMessage],
    others: Sequence[ChatMessage],
    *,
    room: int,
    count: Callable[[list[ChatMessage]], int],
    most: Callable[[list[ChatMessage]], int | None],
) -> list[ChatMessage]:
    """``leading``, and as many of the newest turns of ``others`` as fit with it into ``room`` tokens.

    The last turn always stays, and what leads: where these alone are too many, the model server says so with
    its 400. ``count`` asks for the exact number of tokens of a list, ``most`` knows a number that they surely do not
    exceed, or None: a chat that fits by far is not counted.
    """
    chat = [*leading, *others]
    bound = most(chat)
    turns = turns_of(others)
    if len(turns) < 2 or (bound is not None and bound <= room):
        return chat
    search = _Search([_size(turn) for turn in turns], _size(leading), room)
    tokens = count(chat)
    while (dropped := search.next(tokens)) is not None:
        tokens = count(_without(leading, turns, dropped))
    return _without(leading, turns, search.fewest)


def _without(leading: Sequence[ChatMessage], turns: Sequence[list[ChatMessage]], dropped: int) -> list[ChatMessage]:
    return [*leading, *(message for turn in turns[dropped:] for message in turn)]


def _size(messages: Sequence[ChatMessage]) -> int:
    return len(orjson.dumps(list(messages)))


class _Search:
    """Looks for the fewest turns to leave out: guesses by the tokens that a byte was, then halves what is open.

    ``fewest`` is the answer once :meth:`next` has nothing more to ask.
    """

    def __init__(self, sizes: Sequence[int], leading: int, room: int) -> None:
        self._sizes, self._room = sizes, room
        self._bytes = leading + sum(sizes)
        self._asked, self._guesses = 0, GUESSES
        self._too_few, self.fewest = -1, max(0, len(sizes) - 1)

    def next(self, tokens: int) -> int | None:
        """Take the tokens without the turns asked about last, at first none; the next number to ask about."""
        if tokens <= self._room:
            self.fewest = self._asked
        else:
            self._too_few = self._asked
        if self.fewest - self._too_few <= 1:
            return None
        if self._guesses:
            self._guesses -= 1
            left = self._bytes - sum(self._sizes[: self._asked])
            self._asked = self._guess(tokens, tokens / left)
        else:
            self._asked = (self._too_few + self.fewest) // 2
        return self._asked

    def _guess(self, tokens: int, per_byte: float) -> int:
        """The first number of turns without which the chat should fit, within what is still open."""
        expected = tokens + per_byte * sum(self._sizes[: self._asked])
        dropped = 0
        while dropped < self.fewest - 1 and (expected > self._room or dropped <= self._too_few):
            expected -= per_byte * self._sizes[dropped]
            dropped += 1
        return min(max(dropped, self._too_few + 1), self.fewest - 1)


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
            chat = recalled or without_history(request["messages"])
            return self.truncated(chat.leading, chat.history, chat.sent, request, call)
        if recalled is None:
            return self.fitted(request["messages"], call)
        return self.fitted([*recalled.leading, *recalled.history, *recalled.sent], call)

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
