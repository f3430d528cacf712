"""Whether the model server takes a request that still waits: its prompt fits, and the template renders.

It is asked without a slot, and a few times at once, while a request waits for so long that its client should hear of
it: once the response to it has begun, a refusal has no status of its own any more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mistral_api.errors import ApiError, ModelServerError, ModelServerRefused, ModelUnavailable
from mistral_api.event_loop.turns import Turns
from mistral_api.generation.endpoint import COMPLETION, Endpoint
from mistral_api.generation.prompt_size import prompts_of
from mistral_api.payload_types.chat import ChatPayload
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.errors import context_exceeded
from mistral_api.upstream.token_counter import TokenCounter, has_more_than_text

# What the model server spends on checks it does not spend on generating.
CHECKS_AT_ONCE = 2
# Requests with more prompts are not checked.
MOST_PROMPTS = 8
_PLAIN_PATHS = (COMPLETION.upstream_path, "/completion", "/completions")


class PromptChecker:
    """Checks prompts. One for a model server; safe to use from many threads, and in tasks."""

    def __init__(self, counter: TokenCounter, is_llama_cpp: Callable[[], bool]) -> None:
        self._counter = counter
        self._is_llama_cpp = is_llama_cpp
        self._turns = Turns(CHECKS_AT_ONCE)

    def accepts(self, endpoint: Endpoint, request: ChatPayload, is_needed: Callable[[], bool]) -> bool | None:
        """Return whether the model server is known to take a request; False where it can never tell.

        None: not yet, since others are being checked, or it does not answer now. ``is_needed``: whether that is still
        of interest. Raises ModelServerRefused for a request that it does not take.
        """
        if not _is_plain(endpoint, request):
            return False
        with self._turns.turn(0) as has_turn:
            if not (has_turn and is_needed()):
                return None
            try:
                return self._is_taken(endpoint, request)
            except ModelServerRefused:
                raise
            except ModelServerError:
                return None
            except ApiError:
                return False

    def _is_taken(self, endpoint: Endpoint, request: ChatPayload) -> bool:
        if not self._is_llama_cpp():
            return False
        call = UpstreamCall()
        call.before_retry = _give_up
        self._require_fit(endpoint, request, call)
        return True

    def _require_fit(self, endpoint: Endpoint, request: ChatPayload, call: UpstreamCall) -> None:
        context = self._counter.context(call)
        if endpoint.chat:
            used = self._counter.count_tokens(request["messages"], options=request, call=call)
        else:
            used = max(self._tokens(prompt, call) for prompt in prompts_of(request["prompt"]))
        if used >= context:  # llama.cpp wants room for one token of the answer
            raise context_exceeded(context, used, param="messages" if endpoint.chat else "prompt")

    def _tokens(self, prompt: str | Sequence[Any], call: UpstreamCall) -> int:
        return self._counter.count_text(prompt, call) if isinstance(prompt, str) else len(prompt)


def _give_up() -> None:
    """End a check where the model server is away: it is made again, and the client must not wait for it."""
    raise ModelUnavailable("The model server is away.")


def _is_plain(endpoint: Endpoint, request: ChatPayload) -> bool:
    """Return whether counting tokens tells all: not whether a grammar is one, or an image can be read."""
    if request.get("grammar"):
        return False
    if endpoint.chat:
        return not any(has_more_than_text(message) for message in request["messages"])
    prompts = prompts_of(request.get("prompt"))
    return (
        endpoint.upstream_path in _PLAIN_PATHS
        and 0 < len(prompts) <= MOST_PROMPTS
        and all(isinstance(prompt, str) or _is_tokens(prompt) for prompt in prompts)
    )


def _is_tokens(prompt: object) -> bool:
    return isinstance(prompt, list) and all(isinstance(token, int) for token in prompt)
