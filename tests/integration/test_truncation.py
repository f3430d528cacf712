"""Truncation by the exact number of tokens, counted by the real engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from mistral_api.conversations.history import without_history
from mistral_api.errors import ModelServerRefused, ModelTimeout
from mistral_api.generation.prompt import PromptBuilder
from mistral_api.model_files.vocabulary import UNKNOWN_LONGEST
from mistral_api.payload_types.chat import ChatMessage, ChatPayload, ContentPart, Tool, ToolCall
from mistral_api.settings import Settings
from mistral_api.upstream import loaded_model
from mistral_api.upstream.cancellation import DisconnectWatcher, UpstreamCall
from mistral_api.upstream.client import ModelServerClient
from mistral_api.upstream.loaded_model import LoadedModel, LoadedModels
from mistral_api.upstream.text_limit import TextLimit
from mistral_api.upstream.token_counter import TokenCounter
from tests.support.processes import Server, read_key

SYSTEM: ChatMessage = {"role": "system", "content": "You answer in few words."}
TOOL: Tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
WORDS = "one two three four five six seven eight nine ten. "
CONTEXT = 2048

Messages = list[ChatMessage]


@pytest.fixture
def model_server(server: Server) -> Iterator[ModelServerClient]:
    """The real model server, without an API in front of it."""
    with closing(DisconnectWatcher()) as watcher:
        settings = Settings(model_server_url=server.model_url, model_server_api_key=read_key(server.data_dir))
        made = ModelServerClient(settings, lambda: None, lambda: False, watcher)
        yield made
        made.close()


@pytest.fixture
def counter(model_server: ModelServerClient) -> TokenCounter:
    """A token counter with the model's own tokenizer."""
    return TokenCounter(model_server, LoadedModels(model_server, lambda: 1))


@pytest.fixture
def prompts(model_server: ModelServerClient, counter: TokenCounter) -> PromptBuilder:
    """A prompt builder for the real model server."""
    limit = TextLimit(lambda _call: CONTEXT, lambda: UNKNOWN_LONGEST)
    return PromptBuilder(LoadedModels(model_server, lambda: 1), counter, "auto", limit)


def test_template_is_read_again_after_a_busy_model_server_timed_out(
    model_server: ModelServerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_late(_path: str) -> Any:
        raise ModelTimeout("The model server kept silent for too long.")

    monkeypatch.setattr(loaded_model, "FRESH_SECONDS", 0.0)
    loaded = LoadedModels(model_server, lambda: "its only life")
    with monkeypatch.context() as busy:
        busy.setattr(model_server, "get", too_late)
        assert loaded.current(UpstreamCall()) == LoadedModel()
    known = loaded.current(UpstreamCall())
    assert known.context
    assert known.template
    assert loaded.current(UpstreamCall()) is known


def _turns(number: int, words: int) -> Messages:
    """Return turns of unequal length."""
    turns: Messages = []
    for turn in range(number):
        turns.append({"role": "user", "content": f"Turn {turn}: " + WORDS * (words + turn % 3)})
        turns.append({"role": "assistant", "content": "Yes, indeed. " * (turn % 4)})
    return turns


@pytest.mark.parametrize("dropped", [0, 1, 3])
def test_truncation_omits_a_turn_only_when_one_token_is_missing(
    prompts: PromptBuilder, counter: TokenCounter, dropped: int
) -> None:
    others: Messages = [*_turns(9, 14), {"role": "user", "content": "Well?"}]
    kept = [SYSTEM, *others[2 * dropped :]]
    tokens = counter.count_tokens(kept)
    assert tokens > CONTEXT // 2  # max_tokens reserves at most half of the context
    request: ChatPayload = {"messages": [SYSTEM, *others], "max_tokens": CONTEXT - tokens}
    assert prompts.prompt(request, None, "auto", UpstreamCall()) == kept
    request["max_tokens"] = CONTEXT - tokens + 1
    assert prompts.prompt(request, None, "auto", UpstreamCall()) == [SYSTEM, *others[2 * dropped + 2 :]]


def test_truncation_counts_tools_and_keeps_tool_results_with_their_turn(
    prompts: PromptBuilder, counter: TokenCounter
) -> None:
    call: ToolCall = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    last: Messages = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
    ]
    sent = [*_turns(20, 14), *last]
    request: ChatPayload = {"messages": sent, "tools": [TOOL] * 3, "max_tokens": 1000}
    fitted = prompts.prompt(request, None, "auto", UpstreamCall())
    assert fitted[-3:] == last
    without = counter.count_tokens(fitted)
    assert counter.count_tokens(fitted, tools=[TOOL] * 3) <= CONTEXT - 1000
    assert counter.count_tokens(fitted, tools=[TOOL] * 3) >= without
    one_more = sent[-len(fitted) - 2 :]
    assert counter.count_tokens(one_more, tools=[TOOL] * 3) > CONTEXT - 1000


def test_truncation_uses_an_upper_bound_before_counting_tokens(
    prompts: PromptBuilder, counter: TokenCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    chats: list[Messages] = [
        [{"role": "user", "content": "\U0001f600é\0<|im_start|>\n\n\t  " * 20}], _turns(3, 1), [SYSTEM, *_turns(1, 4)],
    ]  # fmt: skip
    for chat in chats:
        most = counter.most_tokens(chat, {}, UpstreamCall())
        assert most is not None
        assert most >= counter.count_tokens(chat)
    parts: list[ContentPart] = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]
    image: ChatMessage = {"role": "user", "content": parts}
    assert counter.most_tokens([image], {}, UpstreamCall()) is None
    monkeypatch.setattr(counter, "count_tokens", lambda *_, **__: pytest.fail("counted"))
    assert prompts.prompt({"messages": chats[1], "max_tokens": 9}, None, "auto", UpstreamCall()) == chats[1]


def test_truncation_keeps_the_last_turn_even_if_it_does_not_fit(
    prompts: PromptBuilder, model_server: ModelServerClient
) -> None:
    last: Messages = [{"role": "user", "content": "word " * 3000}]
    fitted = prompts.truncated([SYSTEM], _turns(2, 3), last, {}, UpstreamCall())
    assert fitted == [SYSTEM, *last]
    with pytest.raises(ModelServerRefused) as refused:
        model_server.request("/v1/chat/completions", {"messages": fitted}, UpstreamCall())
    assert refused.value.code == "context_length_exceeded"


def test_token_count_of_an_older_llama_cpp_uses_template_and_tokenizer(
    counter: TokenCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = [SYSTEM, *_turns(2, 3)]
    expected = counter.count_tokens(chat, tools=[TOOL])

    query = ModelServerClient.query

    def without_counting(
        client: ModelServerClient, path: str, payload: dict[str, Any], call: UpstreamCall
    ) -> dict[str, Any]:
        return query(client, path.replace("chat/completions/input_tokens", "nowhere"), payload, call)

    monkeypatch.setattr(ModelServerClient, "query", without_counting)
    assert counter.count_tokens(chat, tools=[TOOL]) == expected


def test_request_without_history_consists_of_its_own_turns() -> None:
    chat = [SYSTEM, *_turns(2, 1)]
    resumption = without_history(chat)
    assert (resumption.leading, resumption.sent, resumption.new) == ([SYSTEM], chat[1:], chat)
