"""Several choices, log probabilities and usage: whole and streamed, in OpenAI's form."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.support.openai_schemas import validate
from tests.support.processes import Server
from tests.support.stream_events import read_chunks

BODY: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Say something."}],
    "max_tokens": 2,
    "ignore_eos": True,
    "stream_options": {"include_usage": True, "include_obfuscation": False},
}
SLOTS = 4


def _ask(server: Server, http: requests.Session, **fields: Any) -> requests.Response:
    body = BODY | fields
    if not body.get("stream"):
        del body["stream_options"]
    return http.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)


def test_more_choices_than_slots_are_numbered_and_their_prompt_is_counted_once(
    server: Server, http: requests.Session, session_id: str
) -> None:
    one = validate(ChatCompletion, _ask(server, http).content).usage
    whole = validate(ChatCompletion, _ask(server, http, n=SLOTS + 2, session_id=session_id).content)
    chunks = [validate(ChatCompletionChunk, each) for each in read_chunks(_ask(server, http, n=SLOTS + 2, stream=True))]
    assert one
    assert [choice.index for choice in whole.choices] == list(range(SLOTS + 2))
    ended = [choice.index for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert sorted(ended) == list(range(SLOTS + 2))
    assert len({chunk.id for chunk in chunks}) == 1
    assert [chunk.usage is None for chunk in chunks] == [True] * (len(chunks) - 1) + [False]
    for usage in (whole.usage, chunks[-1].usage):
        assert usage
        assert (usage.prompt_tokens, usage.completion_tokens) == (one.prompt_tokens, 2 * (SLOTS + 2))
        assert usage.prompt_tokens_details
        assert usage.prompt_tokens_details.cached_tokens == one.prompt_tokens - 1
    stored = server.stored_messages(session_id)[-1]
    assert stored["usage"]["completion_tokens"] == 2 * (SLOTS + 2)


def test_seed_repeats_the_choices_and_each_choice_differs(server: Server, http: requests.Session) -> None:
    def said(n: int) -> list[str | None]:
        answer = _ask(server, http, n=n, seed=11, temperature=2, top_p=1, top_k=0, min_p=0, max_tokens=4)
        return [choice.message.content for choice in validate(ChatCompletion, answer.content).choices]

    assert len(set(said(SLOTS + 1))) == SLOTS + 1
    assert said(1) == said(1)


@pytest.mark.parametrize("alternatives", [None, 0, 3])
def test_log_probabilities_have_the_requested_number_of_alternatives(
    server: Server, http: requests.Session, alternatives: int | None
) -> None:
    fields = {"logprobs": True, "top_logprobs": alternatives, "temperature": 0, "post_sampling_probs": True}
    tool = {"type": "function", "function": {"name": "f"}}
    (whole,) = validate(ChatCompletion, _ask(server, http, **fields, tools=[tool]).content).choices
    chunks = [validate(ChatCompletionChunk, each) for each in read_chunks(_ask(server, http, **fields, stream=True))]
    streamed = [entry for chunk in chunks for choice in chunk.choices if choice.logprobs
                for entry in choice.logprobs.content or ()]  # fmt: skip
    assert whole.logprobs
    for entries in (whole.logprobs.content, streamed):
        assert entries
        assert "".join(entry.token for entry in entries) == whole.message.content
        assert [len(entry.top_logprobs) for entry in entries] == [alternatives or 0] * 2
        assert all(entry.logprob <= 0 for entry in entries)


def test_logit_bias_and_stop_sequences_are_applied(server: Server, http: requests.Session) -> None:
    token = http.post(
        f"{server.model_url}/tokenize", json={"content": " no"}, headers=server.model_key, timeout=10
    ).json()["tokens"][0]
    bias = {"logit_bias": {str(token): 100}, "temperature": 0, "max_tokens": 3}
    (choice,) = validate(ChatCompletion, _ask(server, http, **bias).content).choices
    assert choice.message.content == " no no no"
    (choice,) = validate(ChatCompletion, _ask(server, http, **bias, stop=["o n"]).content).choices
    assert (choice.message.content, choice.finish_reason) == (" n", "stop")
    assert choice.logprobs is None
