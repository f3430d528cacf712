"""Whatever llama.cpp samples within what is made of a schema is valid by the schema."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mistral_api.constraints.schemas.calls import CallableTool, enforce_calls
from mistral_api.constraints.schemas.enforced import Form, enforce_schema
from mistral_api.constraints.schemas.remembered import Enforced
from tests.support.random_schemas import SchemaMaker, violations
from tests.support.sampling import Sampler, running_sampler

# What ends strings, arrays and objects comes soon, and so do escapes.
_BIASES = [['"', 6], ["}", 7], ["]", 7], [",", 4], ["\\", 5]]
_OPTIONS: dict[str, Any] = {"max_tokens": 400, "logit_bias": _BIASES, "cache_prompt": False}


@pytest.fixture(scope="module")
def sampler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sampler]:
    """llama.cpp's sampler, to which all tokens are equally likely."""
    with running_sampler(Path(tmp_path_factory.mktemp("sampler"))) as running:
        yield running


def _sampled(sampler: Sampler, enforced: Enforced, seed: int) -> str | None:
    """Return a text within a constraint, None where it came to no end."""
    if enforced.grammar is not None:
        answer = sampler.ask("completions", _OPTIONS | {"prompt": "x", "grammar": enforced.grammar, "seed": seed})
    else:
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": enforced.schema}}
        body = {"messages": [{"role": "user", "content": "x"}], "response_format": form, "seed": seed}
        answer = sampler.ask("chat_completions", _OPTIONS | body)
    assert "choices" in answer, answer
    choice = answer["choices"][0]
    text = choice["text"] if enforced.grammar is not None else choice["message"]["content"]
    return text if choice["finish_reason"] == "stop" else None


def _check(sampler: Sampler, seeds: range) -> int:
    """Check what is sampled for random schemas; return how many texts had come to their end."""
    finished = 0
    for seed in seeds:
        schema = SchemaMaker(random.Random(seed)).object_schema()
        text = _sampled(sampler, enforce_schema(schema, (Form.ANSWER, Form.TEXT)[seed % 2]), seed)
        if text is not None:
            finished += 1
            assert violations(schema, json.loads(text)) == [], (seed, text)
    return finished


def test_sampled_texts_are_valid(sampler: Sampler) -> None:
    assert _check(sampler, range(12)) >= 6


def test_forced_call_of_one_of_many_tools_names_it_and_fits_its_parameters(sampler: Sampler) -> None:
    recursive = {"type": "object", "properties": {"n": {"type": "integer"}, "next": {"$ref": "#"}}, "required": ["n"]}
    exact = {"type": "object", "properties": {"x": {"type": "number", "minimum": 1, "maximum": 2}}, "required": ["x"]}
    tools = [CallableTool(f"t{number}", recursive, strict=False) for number in range(60)]
    for strict in ([], [CallableTool("exact", exact, strict=True)]):
        known = {tool.name: tool.parameters for tool in (*tools, *strict)}
        text = _sampled(sampler, enforce_calls([*tools, *strict]), seed=3)
        call = json.loads(text or "null")
        assert list(call) == ["name", "arguments"]
        assert violations(known[call["name"]], call["arguments"]) == []


@pytest.mark.slow
def test_many_sampled_texts_are_valid(sampler: Sampler) -> None:
    assert _check(sampler, range(12, 80)) >= 35
