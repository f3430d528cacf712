"""Text that no context could hold is refused by its field, and nothing is refused that could fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mistral_api.errors import InvalidRequest
from mistral_api.generation.prompt import PromptBuilder
from mistral_api.generation.prompt_size import chat_size, prompt_sizes
from mistral_api.model_files.served_model import demo_model_path
from mistral_api.model_files.vocabulary import UNKNOWN_LONGEST, longest_token
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.text_limit import FREE_BYTES, LEFT_OUT_FACTOR, TextLimit, TextSize, text_bytes
from tests.support.gguf_files import write_gguf

CONTEXT, LONGEST = 2048, 100
MOST = CONTEXT * LONGEST
LIMIT = TextLimit(lambda _call: CONTEXT, lambda: LONGEST)
CALL = UpstreamCall()
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * (4 << 20)}}


def user(text: Any) -> Any:
    return {"role": "user", "content": text}


def refused(size: TextSize, limit: TextLimit = LIMIT) -> str | None:
    try:
        limit.require_fit(size, CALL)
    except InvalidRequest as error:
        return error.param if error.code == "context_length_exceeded" else error.code
    return None


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([user("x" * (MOST + 1))], "messages[0].content"),
        (
            [user("Hi"), user([{"type": "text", "text": "x" * MOST}, {"type": "text", "text": "x"}])],
            "messages[1].content",
        ),
        ([user("x" * (MOST // 2)), user("x" * (MOST // 2)), user("x" * 100)], "messages"),
        ([user("é" * (MOST // 2 + 1))], "messages[0].content"),
        ([{"role": "assistant", "content": "x" * (MOST * LEFT_OUT_FACTOR + 1)}, user("Hi")], "messages"),
        ([{"role": "assistant", "reasoning_content": "x" * (MOST * LEFT_OUT_FACTOR + 1)}, user("Hi")], "messages"),
    ],
)
def test_messages_that_cannot_fit_are_refused_by_field(messages: Any, param: str) -> None:
    assert refused(chat_size(messages)) == param


@pytest.mark.parametrize(
    "messages",
    [
        [user("x" * MOST)],
        [user(" " * MOST + "Hi\n")],
        [user([{"type": "text", "text": "What is this?"}, IMAGE])],
        [user("Hi"), {"role": "assistant", "content": "x" * (2 * MOST), "reasoning_content": "x" * MOST}],
        [{"role": "assistant", "content": None, "tool_calls": []}, user("Hi")],
        [],
    ],
)
def test_messages_that_could_fit_are_not_refused(messages: Any) -> None:
    assert refused(chat_size(messages)) is None


def test_tools_and_template_arguments_count_as_text_that_may_be_left_out() -> None:
    tools = [{"type": "function", "function": {"name": "f", "description": "x" * (MOST * LEFT_OUT_FACTOR)}}]
    assert refused(chat_size([user("Hi")], {"tools": tools})) == "messages"
    assert refused(chat_size([user("Hi")], {"stop": "x" * (MOST * LEFT_OUT_FACTOR)})) is None


@pytest.mark.parametrize(
    ("payload", "param"),
    [
        ({"prompt": "x" * (MOST + 1)}, "prompt"),
        ({"prompt": ["x" * MOST, "x" * (MOST + 1)]}, "prompt[1]"),
        ({"prompt": [1, "x" * (MOST + 1)]}, "prompt"),
        ({"prompt": {"prompt_string": "x" * (MOST + 1)}}, "prompt"),
        ({"input_prefix": "x" * MOST * LEFT_OUT_FACTOR, "input_suffix": "x"}, "input_prefix"),
        ({"input_prefix": "", "input_suffix": "", "input_extra": [{"text": "x" * MOST * 9}]}, "input_prefix"),
        ({"prompt": ["x" * MOST] * 9}, None),
        ({"prompt": [1] * MOST}, None),
        ({"input_prefix": "x" * MOST * 4, "input_suffix": ["x", 1]}, None),
    ],
)
def test_prompts_are_measured_one_by_one(payload: Any, param: str | None) -> None:
    assert next((found for size in prompt_sizes(payload) if (found := refused(size))), None) == param


def test_nobody_is_asked_for_a_short_text_and_nothing_is_refused_without_a_context() -> None:
    def fail(_call: UpstreamCall) -> int:
        raise AssertionError("the context was asked for")

    assert refused(TextSize(FREE_BYTES, FREE_BYTES, "prompt"), TextLimit(fail, lambda: 1)) is None
    unknown = TextLimit(lambda _call: None, lambda: 1)
    assert refused(TextSize(1 << 30, 1 << 30, "prompt"), unknown) is None


def test_oldest_turns_that_cannot_fit_are_left_out_before_anything_is_counted() -> None:
    builder = PromptBuilder(None, None, "off", LIMIT)  # type: ignore[arg-type]
    turns = [message for number in range(30) for message in (user(f"{number} " + "x" * 50_000), user("Hi"))]
    left = builder._newest_turns([], turns, CALL)
    assert left == turns[len(turns) - len(left) :]
    assert MOST - 50_100 < sum(text_bytes(each["content"]) for each in left) <= MOST
    with pytest.raises(InvalidRequest) as caught:
        builder._newest_turns([], [*turns, user("x" * (MOST + 1))], CALL)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")


def test_longest_token_of_the_demo_model_is_read_from_its_file() -> None:
    assert longest_token(demo_model_path()) == 162


@pytest.mark.parametrize("kind", ["bert", "t5", "something new"])
def test_longest_token_of_tokenizers_that_drop_text_is_a_guess(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(path, {"general.architecture": "x", "tokenizer.ggml.model": kind, "tokenizer.ggml.tokens": ["a", "ab"]})
    assert longest_token(path) == UNKNOWN_LONGEST
    assert longest_token(tmp_path / "none.gguf") == longest_token(None) == UNKNOWN_LONGEST


def test_a_model_without_tokens_in_its_file_is_guessed(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(path, {"general.architecture": "x", "tokenizer.ggml.model": "llama"})
    assert longest_token(path) == UNKNOWN_LONGEST
