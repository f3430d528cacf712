"""The ``param`` of a refusal leads to the part of the request that is wrong: each part of each request, made wrong."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from mistral_api.errors import InvalidRequest
from mistral_api.generation.anthropic_request import COUNT_TOKENS, MESSAGES
from mistral_api.generation.llama_cpp_endpoint import (
    CHANGE_ADAPTERS,
    DETOKENIZE,
    INFILL,
    LLAMA_CPP_COMPLETION,
    TOKENIZE,
)
from mistral_api.wire import ChatCompletionRequest, CompletionRequest, EmbeddingsRequest, RerankRequest, load
from mistral_api.wire.conversations import ItemsCreation, load_creation
from mistral_api.wire.responses import ResponseRequest


def _schema() -> dict[str, Any]:
    return {"type": "object", "properties": {"a": {"type": "string"}}}


def _function(name: str) -> dict[str, Any]:
    return {"name": name, "parameters": _schema(), "description": "d", "strict": True}


CALL = {"name": "f", "arguments": "{}"}
CHAT: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "x"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "a"},
                {"type": "image_url", "image_url": {"url": "data:x", "detail": "low"}},
                {"type": "input_audio", "input_audio": {"data": "x", "format": "wav"}},
            ],
        },
        {"role": "assistant", "content": "x", "tool_calls": [{"id": "1", "type": "function", "function": CALL}]},
        {"role": "tool", "tool_call_id": "1", "content": "x"},
    ],
    "tools": [{"type": "function", "function": _function(name)} for name in "fg"],
    "tool_choice": {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]},
    },
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": _schema()}},
    "stop": ["a", "b"],
    "logit_bias": {"12": 3},
    "metadata": {"a": "b"},
    "stream": True,
    "stream_options": {"include_usage": True},
    "chat_template_kwargs": {"a": 1},
    "lora": [{"id": 0, "scale": 1.0}],
    "temperature": 0.5,
}
OLD_CHAT: dict[str, Any] = {
    "messages": [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "x", "function_call": CALL},
        {"role": "function", "name": "f", "content": "x"},
    ],
    "functions": [_function("f")],
    "function_call": {"name": "f"},
    "logit_bias": [[12, 3.0], ["a", False]],
    "json_schema": _schema(),
}
RESPONSE: dict[str, Any] = {
    "input": [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "a"},
                {"type": "input_image", "image_url": "data:x", "detail": "low"},
                {"type": "input_file", "file_data": "x", "filename": "n"},
            ],
        },
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "x"}]},
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": [{"type": "input_text", "text": "a"}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "x"}]},
        {"type": "item_reference", "id": "msg_x"},
    ],
    "tools": [{"type": "function", **_function(name)} for name in "fg"],
    "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
    "text": {"format": {"type": "json_schema", "name": "n", "schema": _schema()}, "verbosity": "low"},
    "reasoning": {"effort": "low"},
    "include": ["message.output_text.logprobs"],
}
ITEMS: dict[str, Any] = {"items": RESPONSE["input"][:4]}
MESSAGE: dict[str, Any] = {
    "max_tokens": 5,
    "system": [{"type": "text", "text": "x"}],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "x"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "x"}},
                {"type": "document", "source": {"type": "text", "data": "x"}, "title": "t"},
                {"type": "search_result", "title": "t", "source": "s", "content": [{"type": "text", "text": "x"}]},
            ],
        },
        {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "x"}]},
    ],
    "tools": [{"name": name, "input_schema": _schema()} for name in "fg"],
    "tool_choice": {"type": "tool", "name": "f"},
    "stop_sequences": ["a", "b"],
    "thinking": {"type": "enabled", "budget_tokens": 5},
    "output_config": {"effort": "low"},
    "temperature": 0.5,
}
REQUESTS: dict[str, tuple[Callable[[object], object], Any]] = {
    "chat": (partial(load, ChatCompletionRequest()), CHAT),
    "chat with functions": (partial(load, ChatCompletionRequest()), OLD_CHAT),
    "completion": (partial(load, CompletionRequest()), {"prompt": ["a", "b"], "stop": ["a"], "logprobs": 2}),
    "completion of tokens": (partial(load, CompletionRequest()), {"prompt": [[1, 2]]}),
    "response": (partial(load, ResponseRequest()), RESPONSE),
    "message": (partial(load, MESSAGES.schema), MESSAGE),
    "tokens of a message": (COUNT_TOKENS.read, {name: MESSAGE[name] for name in ("messages", "system", "tools")}),
    "embeddings": (partial(load, EmbeddingsRequest()), {"input": ["a", "b"], "dimensions": 4}),
    "embeddings of tokens": (partial(load, EmbeddingsRequest()), {"input": [[1, 2]]}),
    "ranking": (partial(load, RerankRequest()), {"query": "q", "documents": ["a", {"text": "x"}], "top_n": 1}),
    "conversation": (load_creation, ITEMS | {"metadata": {"a": "b"}}),
    "items": (partial(load, ItemsCreation()), ITEMS),
    "llama.cpp": (
        partial(load, LLAMA_CPP_COMPLETION.schema),
        {"prompt": ["a", {"prompt_string": "x", "multimodal_data": ["aaaa"]}], "response_fields": ["a"]},
    ),
    "gap": (
        partial(load, INFILL.schema),
        {"input_prefix": "a", "input_suffix": ["a", 2], "input_extra": [{"text": "x", "filename": "f"}]},
    ),
    "text": (TOKENIZE.read, {"content": ["a", 3]}),
    "tokens": (DETOKENIZE.read, {"tokens": [1, 2]}),
    "adapters": (CHANGE_ADAPTERS.read, [{"id": 0, "scale": 1.0}]),
}
# No field takes all of these, and no rule between fields is met by one of them.
WRONG: tuple[Any, ...] = ({"unheard": 1}, [["x"]], 1.5e300, "x" * 70_000, float("inf"))

Path = tuple[str | int, ...]


def _paths(value: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the path of every part of a body."""
    parts = value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ())
    for step, part in parts:
        yield (*path, step)
        yield from _paths(part, (*path, step))


def _with(body: Any, path: Path, value: object) -> Any:
    """Return a copy of a body with another value at a path."""
    changed = copy.deepcopy(body)
    parent = changed
    for step in path[:-1]:
        parent = parent[step]
    parent[path[-1]] = value
    return changed


def _text(path: Path) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


def _refusal(read: Callable[[object], object], body: Any) -> InvalidRequest | None:
    try:
        read(body)
    except InvalidRequest as error:
        return error
    return None


def _leads_to(error: InvalidRequest, path: str) -> bool:
    """Whether a refusal is about a part, or something in it, and its message says so."""
    param = error.param or ""
    return param.startswith(path) and param[len(path) :][:1] in ("", ".", "[") and f"'{param}'" in error.message


@pytest.mark.parametrize("name", REQUESTS)
def test_refusal_names_the_part_that_is_wrong(name: str) -> None:
    read, body = REQUESTS[name]
    assert _refusal(read, copy.deepcopy(body)) is None
    wrong = [(path, _refusal(read, _with(body, path, value))) for path in _paths(body) for value in WRONG]
    refusals = [(_text(path), error) for path, error in wrong if error is not None]
    assert len(refusals) > len(wrong) / len(WRONG)
    assert [(path, error.param, error.message) for path, error in refusals if not _leads_to(error, path)] == []
