"""The messages of a chat as the model server gets them: with history, cut to the context window, in roles it takes.

The oldest turns are left out of a chat that does not fit. A turn is a message of the user with everything up to the
user's next one: the answer, tool calls, tool results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import orjson

from mistral_api.conversations.history import ContinuedSession, without_history
from mistral_api.generation.endpoint import OWN_FIELDS
from mistral_api.generation.message_roles import needs_normalizing, normalize_roles
from mistral_api.generation.prompt_size import chat_size, user_bytes
from mistral_api.generation.refusal_texts import refusals_as_text
from mistral_api.generation.remote_images import NO_IMAGES, RemoteImages
from mistral_api.payload_types import omit
from mistral_api.payload_types.chat import ChatMessage, ChatPayload
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.loaded_model import LoadedModels
from mistral_api.upstream.text_limit import FREE_BYTES, TextLimit
from mistral_api.upstream.token_counter import TokenCounter

_NOT_OPTIONS = ("messages", *OWN_FIELDS)
# Room for an answer of unknown length: this part of the context (a quarter), but no more tokens than that.
ANSWER_PART, ANSWER_TOKENS = 4, 1024
# So many guesses before the search halves: guesses are nearly always right, halving is better for uneven texts.
GUESSES = 4
_LIMITS: Final = ("max_completion_tokens", "max_tokens", "n_predict")


class PromptBuilder:
    """Fits messages to the model that is loaded. Safe to use from many threads."""

    def __init__(
        self,
        loaded: LoadedModels,
        counter: TokenCounter,
        normalize_roles: str,
        limit: TextLimit,
        images: RemoteImages = NO_IMAGES,
    ) -> None:
        """``normalize_roles``: ``auto`` or ``off``, as the setting says; ``limit``: of the text of a prompt; ``images``
        takes addresses out of messages, which callers do before they ask for a prompt."""
        self.images = images
        self._loaded = loaded
        self.counter = counter
        self.limit = limit
        self._normalizes = normalize_roles == "auto"

    def prompt(
        self, request: ChatPayload, continued: ContinuedSession | None, truncation: str | None, call: UpstreamCall
    ) -> list[ChatMessage]:
        """Return the messages to send for a chat request. ``continued``: the session that it continues, if it does.

        Raises InvalidRequest where the model server cannot count and ``truncation`` is ``auto``, and the model
        server's failures.
        """
        if truncation == "auto":
            chat = continued or without_history(request["messages"])
            return self.truncated(chat.leading, chat.history, chat.sent, request, call)
        if continued is None:
            return self.fit_roles(request["messages"], call)
        messages = [*continued.leading, *continued.history, *continued.sent]
        self.limit.require_fit(chat_size(messages, request, "messages"), call)
        return self.fit_roles(messages, call)

    def truncated(
        self,
        leading: Sequence[ChatMessage],
        stored: Sequence[ChatMessage],
        new: Sequence[ChatMessage],
        request: ChatPayload,
        call: UpstreamCall,
    ) -> list[ChatMessage]:
        """Return these messages without the oldest turns that do not fit, in roles that the template takes.

        ``request``: what else changes the prompt, and the limit of the answer. Raises as :meth:`prompt` does.
        """
        options = omit(request, _NOT_OPTIONS)
        others = self._newest_turns(leading, [*stored, *new], call)

        def count(messages: list[ChatMessage]) -> int:
            return self.counter.count_tokens(self.fit_roles(messages, call), options=options, call=call)

        def bound(messages: list[ChatMessage]) -> int | None:
            return self.counter.most_tokens(messages, options, call)

        room = room_for_prompt(self.counter.context(call), options)
        return self.fit_roles(truncate_turns(leading, others, room=room, count=count, bound=bound), call)

    def _newest_turns(
        self, leading: Sequence[ChatMessage], others: Sequence[ChatMessage], call: UpstreamCall
    ) -> Sequence[ChatMessage]:
        """Return these messages without the oldest turns whose text alone is longer than the context could hold.

        The model server counts the rest. Raises InvalidRequest where the last turn is too long.
        """
        most = self.limit.most_bytes(call) if chat_size(others).total > FREE_BYTES else None
        if most is None:
            return others
        turns = turns_of(others)
        self.limit.require_fit(chat_size([*leading, *turns[-1]], None, "messages"), call)
        first, size = len(turns) - 1, user_bytes([*leading, *turns[-1]])
        while first > 0 and (size := size + user_bytes(turns[first - 1])) <= most:
            first -= 1
        return [message for turn in turns[first:] for message in turn]

    def fit_roles(self, messages: Sequence[ChatMessage], call: UpstreamCall) -> list[ChatMessage]:
        """Return the messages in roles that the template takes, with refusals as text.

        They are the same ones where it takes them as they are. The template is not looked up for messages that no
        template refuses. Raises ModelUnavailable, and what ends the call.
        """
        messages = refusals_as_text(messages)
        if not self._normalizes or not needs_normalizing(messages):
            return messages
        return normalize_roles(messages, self._loaded.current(call).rules)


def room_for_prompt(context: int, options: ChatPayload) -> int:
    """Return how many tokens a prompt may have: the context without the room for the answer.

    ``options``: the request. An answer without a limit gets a quarter of the context, at most 1024 tokens. A limit
    takes no more than half of the context: history that would fit is not given up for an answer that long.
    """
    limits = [options[name] for name in _LIMITS if isinstance(options.get(name), int) and options[name] > 0]
    answer = limits[0] if limits else min(context // ANSWER_PART, ANSWER_TOKENS)
    return context - min(answer, context // 2)


def turns_of(messages: Sequence[ChatMessage]) -> list[list[ChatMessage]]:
    """Split messages into turns. What stands before the first message of the user is a turn of its own."""
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
    bound: Callable[[list[ChatMessage]], int | None],
) -> list[ChatMessage]:
    """Return ``leading`` and as many of the newest turns of ``others`` as fit with it into ``room`` tokens.

    ``leading`` and the last turn always stay: where they alone are too long, the model server says so with its 400.
    ``count`` returns the exact number of tokens of a list. ``bound`` returns a number that they surely do not exceed,
    or None: a chat that fits by far is not counted.
    """
    chat = [*leading, *others]
    most = bound(chat)
    turns = turns_of(others)
    if len(turns) < 2 or (most is not None and most <= room):
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
    """Searches the fewest turns to leave out: guesses by the tokens per byte so far, then halves the open range.

    ``fewest`` is the result once :meth:`next` returns None.
    """

    def __init__(self, sizes: Sequence[int], leading: int, room: int) -> None:
        self._sizes, self._room = sizes, room
        self._bytes = leading + sum(sizes)
        self._tried, self._guesses = 0, GUESSES
        self._too_few, self.fewest = -1, max(0, len(sizes) - 1)

    def next(self, tokens: int) -> int | None:
        """Take the count of tokens without as many turns as were tried last, at first none. Return the next to try."""
        if tokens <= self._room:
            self.fewest = self._tried
        else:
            self._too_few = self._tried
        if self.fewest - self._too_few <= 1:
            return None
        if self._guesses:
            self._guesses -= 1
            left = self._bytes - sum(self._sizes[: self._tried])
            self._tried = self._guess(tokens, tokens / left)
        else:
            self._tried = (self._too_few + self.fewest) // 2
        return self._tried

    def _guess(self, tokens: int, per_byte: float) -> int:
        """Return the first number of turns, in the open range, without which the chat should fit."""
        expected = tokens + per_byte * sum(self._sizes[: self._tried])
        dropped = 0
        while dropped < self.fewest - 1 and (expected > self._room or dropped <= self._too_few):
            expected -= per_byte * self._sizes[dropped]
            dropped += 1
        return min(max(dropped, self._too_few + 1), self.fewest - 1)
