"""How many tokens of a KV cache that all slots share a request may come to need, and the limit of its answer.

llama.cpp ends all requests that run when such a cache is full. So each has to say before it is sent how much it needs:
its prompt, and the longest answer that it may have. A request that names no limit gets one here, as many tokens as the
part of a slot leaves it, so that several of them run at once; one that names more waits until there is room.

The length of a prompt is no more than its bytes, since a token stands for at least one. That is enough for a short one,
and costs nothing. The model server counts a longer one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import orjson

from mistral_api.control.shared_cache import SharedCache
from mistral_api.errors import ApiError, ModelUnavailable
from mistral_api.event_loop.turns import Turns
from mistral_api.generation.endpoint import Endpoint
from mistral_api.generation.prompt_size import prompts_of
from mistral_api.payload_types.chat import ChatMessage, ChatPayload
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.errors import context_exceeded
from mistral_api.upstream.large_requests import work_on
from mistral_api.upstream.loaded_model import PLAIN
from mistral_api.upstream.request_limits import OUTPUT_LIMITS
from mistral_api.upstream.text_limit import text_bytes
from mistral_api.upstream.token_counter import MARKUP, TokenCounter, has_more_than_text

# A prompt whose bytes are no more than this part of a slot's share is not counted.
UNCOUNTED_PART = 8
# The answer of a request that names no limit has this part of a slot's share at least, however long its prompt is.
LEAST_ANSWER_PART = 4
# What a template may write by itself where nobody has counted it yet, and what it may say of tools, in tokens.
UNKNOWN_TEMPLATE, TOOLS_MARKUP = 1024, 1024
# The most tokens of an image: Qwen2-VL's limit, which llama.cpp takes over (tools/mtmd/clip.cpp, set_limit_image_
# tokens); Pixtral's 1,540 pixels are 3,080.
IMAGE_TOKENS = 4096
# Special tokens around a prompt.
_SPECIAL = 8
# A completion of more prompts is not counted.
MOST_PROMPTS = 8
# Prompts are counted so many at once; one that has to wait longer for that is not.
COUNTS_AT_ONCE, COUNT_WAIT_SECONDS = 4, 2.0
_IN_PROMPT = ("tools", "functions", "chat_template_kwargs", "response_format")


def limit_of(request: ChatPayload) -> int | None:
    """Return the most tokens of the answer that a request names, None where it names none."""
    fields = cast("dict[str, Any]", request)
    for name in OUTPUT_LIMITS:
        if name in fields:
            named: int | None = fields[name]
            return None if named is None or named < 0 else max(1, named)
    return None


def answer_tokens(cache: SharedCache, prompt: int, wanted: int | None, count: int = 1) -> int:
    """Return the most tokens of each of ``count`` answers to a prompt of so many tokens: no more than there is room.

    ``wanted``: the limit that the request names.
    """
    room = max(1, (min(cache.tokens, cache.request * count) - prompt) // count)
    if wanted is None:
        wanted = max(cache.share - prompt // count, cache.share // LEAST_ANSWER_PART)
    return min(wanted, room)


class TokenNeeds:
    """Finds out what requests to one model server need. Safe to use from many threads, and in tasks."""

    def __init__(
        self, cache: Callable[[], SharedCache | None], process: Callable[[], object | None], counter: TokenCounter
    ) -> None:
        """``cache`` returns the cache that the slots share, None where each has its own; ``process`` tells one process
        of the model server from the next."""
        self._cache = cache
        self._process = process
        self._counter = counter
        self._turns = Turns(COUNTS_AT_ONCE)
        # What the template writes around a message, and of which process of the model server.
        self._template: tuple[int, object | None] | None = None

    def limited(self, endpoint: Endpoint, request: ChatPayload, count: int) -> tuple[ChatPayload, int]:
        """Return a request that takes ``count`` slots with the limit of its answer, and how many tokens it may need.

        It needs none where each slot has its own cache, or where the model server is about to refuse it. Raises
        InvalidRequest for prompts that do not fit together.
        """
        cache = self._cache()
        if cache is None:
            return request, 0
        wanted = limit_of(request)
        prompt = self._prompt_tokens(endpoint, request, wanted, cache, count)
        if count == 1 and prompt >= cache.request:
            return request, 0
        if prompt + count > cache.tokens:
            raise context_exceeded(cache.tokens, prompt, what="your prompts", param="prompt")
        answer = answer_tokens(cache, prompt, wanted, count)
        # No less than the share of its slots: until llama.cpp begins with it, its slot has what was there before.
        need = min(max(prompt + answer * count, cache.share * count), cache.tokens)
        # llama.cpp itself ends an answer at the end of the context.
        if wanted is not None and (answer == wanted or count == 1):
            return request, need
        return _with_limit(endpoint, request, answer), need

    def _prompt_tokens(
        self, endpoint: Endpoint, request: ChatPayload, wanted: int | None, cache: SharedCache, count: int
    ) -> int:
        """Return a number of tokens that the prompts which are read at once do not exceed.

        It leaves room for an answer, unless the model server has counted them.
        """
        most = work_on(request, lambda: self._most_tokens(endpoint, request, count))
        is_short = most <= cache.share // UNCOUNTED_PART
        if is_short or (wanted is not None and most + wanted * count <= cache.share):
            return most
        counted = None
        if _can_be_counted(endpoint, request):
            counted = self._counted(lambda call: self._count(endpoint, request, count, call))
        return min(most, min(cache.request * count, cache.tokens) - count) if counted is None else counted

    def _most_tokens(self, endpoint: Endpoint, request: ChatPayload, count: int) -> int:
        if endpoint.chat:
            return self._most_of_chat(request)
        if "input_prefix" in request:
            return len(orjson.dumps(request))
        return sum(sorted(map(_most, prompts_of(request["prompt"])))[-count:])

    def _most_of_chat(self, request: ChatPayload) -> int:
        messages = request["messages"]
        most = self._template_tokens() + MARKUP * len(messages)
        if any([isinstance(message.get("content"), list) for message in messages]):  # noqa: C419 - it is faster
            most += IMAGE_TOKENS * sum(map(_media_parts, messages))
            messages = [_text_of(message) for message in messages]
        if not request.keys().isdisjoint(_IN_PROMPT):
            fields = cast("dict[str, Any]", request)
            others = {name: fields[name] for name in _IN_PROMPT if fields.get(name)}
            most += len(orjson.dumps(others)) + bool(others) * TOOLS_MARKUP
        return most + len(orjson.dumps(messages))

    def _template_tokens(self) -> int:
        """Return what the template writes where a chat has one short message."""
        known, process = self._template, self._process()
        if known is not None and known[1] == process:
            return known[0]
        counted = self._counted(lambda call: self._counter.count_tokens(PLAIN, call=call))
        if counted is None:
            return UNKNOWN_TEMPLATE
        self._template = counted, process
        return counted

    def _count(self, endpoint: Endpoint, request: ChatPayload, count: int, call: UpstreamCall) -> int:
        if endpoint.chat:
            return self._counter.count_tokens(request["messages"], options=request, call=call)
        counter, prompts = self._counter, prompts_of(request["prompt"])
        sizes = [counter.count_text(each, call) if isinstance(each, str) else len(each) for each in prompts]
        return sum(sorted(sizes)[-count:])

    def _counted(self, count: Callable[[UpstreamCall], int]) -> int | None:
        """Return what the model server counts, None where it does not say: it may be loading, or refuse the request."""
        call = UpstreamCall()
        call.before_retry = _give_up
        with self._turns.turn(COUNT_WAIT_SECONDS) as has_turn:
            if not has_turn:
                return None
            try:
                return count(call)
            except ApiError:
                return None


def _give_up() -> None:
    raise ModelUnavailable("The model server is away.")


def _with_limit(endpoint: Endpoint, request: ChatPayload, answer: int) -> ChatPayload:
    fields = cast("dict[str, Any]", request)
    named = next((name for name in OUTPUT_LIMITS if name in fields), None)
    name = named or ("n_predict" if endpoint.dialect.llama_cpp else "max_tokens")
    return cast("ChatPayload", {**request, name: answer})


def _text_of(message: ChatMessage) -> ChatMessage:
    """Return a message without its images, sounds and files."""
    content = message.get("content")
    if not isinstance(content, list):
        return message
    parts = [part for part in content if not isinstance(part, dict) or part.get("type") in ("text", "refusal")]
    return cast("ChatMessage", {**message, "content": parts})


def _media_parts(message: ChatMessage) -> int:
    content = message.get("content")
    if not isinstance(content, list):
        return 0
    return sum(isinstance(part, dict) and part.get("type") not in ("text", "refusal") for part in content)


def _can_be_counted(endpoint: Endpoint, request: ChatPayload) -> bool:
    """Return whether the model server can say how many tokens the prompt has.

    Of what surrounds a gap it takes as much as fits; and it counts no media.
    """
    if endpoint.chat:
        return not any(map(has_more_than_text, request["messages"]))
    prompts = [] if "input_prefix" in request else prompts_of(request["prompt"])
    return 0 < len(prompts) <= MOST_PROMPTS and all(map(_is_countable, prompts))


def _is_countable(prompt: object) -> bool:
    return isinstance(prompt, str) or (isinstance(prompt, list) and all(isinstance(token, int) for token in prompt))


def _most(prompt: Any) -> int:
    """Return a number that the tokens of a completion's prompt do not exceed."""
    if isinstance(prompt, dict):
        prompt = prompt["prompt_string"]
    if isinstance(prompt, str):
        return text_bytes(prompt) + _SPECIAL
    return _SPECIAL + sum(text_bytes(each) if isinstance(each, str) else 1 for each in prompt)
