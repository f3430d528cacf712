"""Legacy completions on the real engine, in OpenAI's form."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from openai import OpenAI
from openai.types import Completion

from tests.support.openai_schemas import validate
from tests.support.processes import Server
from tests.support.stream_events import read_chunks

FRANCE = "The capital of France is"


def _ask(server: Server, http: requests.Session, **fields: Any) -> requests.Response:
    body = {"max_tokens": 2, "temperature": 0, "ignore_eos": True} | fields
    return http.post(f"{server.url}/v1/completions", json=body, timeout=60)


def _completion(server: Server, http: requests.Session, **fields: Any) -> Completion:
    made = validate(Completion, _ask(server, http, **fields).content)
    assert made.id.startswith("cmpl-")
    return made


def _chunks(server: Server, http: requests.Session, **fields: Any) -> list[Completion]:
    """Return the chunks of a stream. OpenAI sends ``"finish_reason": null`` before the last one; its type lacks it."""
    chunks = read_chunks(_ask(server, http, stream=True, **fields))
    for chunk in chunks:
        for choice in chunk["choices"]:
            choice["finish_reason"] = choice["finish_reason"] or "length"
    made = [validate(Completion, chunk) for chunk in chunks]
    assert len({chunk.id for chunk in made}) == 1
    assert made[0].id.startswith("cmpl-")
    return made


def _texts(chunks: list[Completion]) -> list[str]:
    """Return the text of each choice."""
    texts: dict[int, str] = {}
    for choice in (choice for chunk in chunks for choice in chunk.choices):
        texts[choice.index] = texts.get(choice.index, "") + choice.text
    return [texts[index] for index in sorted(texts)]


@pytest.mark.parametrize(
    "prompt", [FRANCE, ["One", "Two"], [504, 3575, 282], [[504, 3575], [282]]], ids=["text", "texts", "tokens", "lists"]
)
def test_every_prompt_form_is_completed_and_echoed(server: Server, http: requests.Session, prompt: Any) -> None:
    plain = _completion(server, http, prompt=prompt)
    several = isinstance(prompt, list) and not isinstance(prompt[0], int)
    assert [choice.index for choice in plain.choices] == list(range(2 if several else 1))
    texts = [choice.text for choice in plain.choices]
    echoed = [choice.text for choice in _completion(server, http, prompt=prompt, echo=True).choices]
    prompts = [whole.removesuffix(text) for whole, text in zip(echoed, texts, strict=True)]
    if not isinstance(prompt[0], int | list):
        assert prompts == ([prompt] if isinstance(prompt, str) else prompt)
    assert all(prompts)
    assert _texts(_chunks(server, http, prompt=prompt, echo=True)) == echoed


def test_list_of_prompts_streams_all_choices_and_one_usage(server: Server, http: requests.Session) -> None:
    asked: dict[str, Any] = {"prompt": [FRANCE, "One two three"], "n": 5, "best_of": 5}
    whole = _completion(server, http, **asked)
    chunks = _chunks(server, http, **asked, stream_options={"include_usage": True})
    assert [choice.text for choice in whole.choices] == _texts(chunks)
    assert len({choice.text for choice in whole.choices[:5]}) == 1
    assert whole.choices[0].text != whole.choices[5].text
    assert not chunks[-1].choices
    assert not any(chunk.usage for chunk in chunks[:-1])
    single = [_completion(server, http, prompt=prompt).usage for prompt in asked["prompt"]]
    for usage in (whole.usage, chunks[-1].usage):
        assert usage
        assert usage.prompt_tokens == sum(each.prompt_tokens for each in single if each)
        assert (usage.completion_tokens, usage.total_tokens) == (20, 20 + usage.prompt_tokens)


@pytest.mark.parametrize("wanted", [0, 2])
def test_completion_log_probabilities_have_the_legacy_form(server: Server, http: requests.Session, wanted: int) -> None:
    (choice,) = _completion(server, http, prompt=FRANCE, logprobs=wanted, max_tokens=3).choices
    found = choice.logprobs
    assert found
    assert "".join(found.tokens or ()) == choice.text
    assert all(value <= 0 for value in found.token_logprobs or [1.0])
    assert [choice.text[offset:][:1] for offset in found.text_offset or ()] == [each[0] for each in found.tokens or ()]
    if wanted:
        assert [len(each) for each in found.top_logprobs or ()] == [2, 2, 2]
    else:
        assert found.top_logprobs is None
    pieces = [
        chunk.choices[0].logprobs for chunk in _chunks(server, http, prompt=FRANCE, logprobs=wanted, max_tokens=3)
    ]
    assert [offset for piece in pieces if piece for offset in piece.text_offset or ()] == found.text_offset
    assert [token for piece in pieces if piece for token in piece.tokens or ()] == found.tokens


def test_completion_with_max_tokens_0_returns_only_the_echo(server: Server, http: requests.Session) -> None:
    made = _completion(server, http, prompt=FRANCE, max_tokens=0, echo=True)
    assert [choice.text for choice in made.choices] == [FRANCE]
    assert made.usage
    assert (made.usage.completion_tokens, made.usage.total_tokens) == (0, made.usage.prompt_tokens)


def test_completion_without_max_tokens_ends_after_16_tokens(client: OpenAI) -> None:
    made = client.completions.create(
        model="SmolLM2-135M-Instruct.Q4_1", prompt="Count", extra_body={"ignore_eos": True}
    )
    assert made.usage
    assert made.usage.completion_tokens == 16
    assert made.choices[0].finish_reason == "length"


def test_completion_stream_is_relayed_and_recorded(server: Server, http: requests.Session, session_id: str) -> None:
    chunks = _chunks(server, http, prompt="Once upon a time", max_tokens=5, session_id=session_id)
    stored = server.stored_messages(session_id)
    assert [(message["role"], message["content"]) for message in stored] == [
        ("user", "Once upon a time"),
        ("assistant", _texts(chunks)[0]),
    ]
    assert stored[1]["usage"]["completion_tokens"] == 5
