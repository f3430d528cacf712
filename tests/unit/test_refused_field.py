"""Which part of the client's request the model server refused, by what llama.cpp says and by what the client sent."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mistral_api.errors import ApiError, ModelServerRefused
from mistral_api.generation.anthropic_renderer import anthropic_error
from mistral_api.generation.refused_field import name_refused_field
from mistral_api.upstream.errors import context_exceeded, error_from

IMAGE = "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj"
AUDIO = "audio input is not supported - hint: if this is unexpected, you may need to provide the mmproj"
OTHER = "unsupported content[].type"
BAD_SCHEMA = {"type": "object", "properties": {"a": {"type": "foo"}}}
GOOD_SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
TEXT = {"type": "text", "text": "x"}
ANTHROPIC_IMAGE = {"type": "image", "source": {"type": "base64"}}
CHAT_IMAGE = {"type": "image_url", "image_url": {"url": "data:x"}}


def _chat(*content: object) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "hi"}, {"role": "user", "content": list(content)}]}


def _input(*content: object) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": "hi"}, {"role": "user", "content": list(content)}]}


def _refusal(message: str, **fields: object) -> ApiError:
    return error_from(400, {"message": message, "code": 400, "type": "invalid_request_error", **fields})


def _tools(*schemas: object) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": "f", "parameters": schema}} for schema in schemas]


def _responses_tools(*schemas: object) -> list[dict[str, Any]]:
    return [{"type": "function", "name": "f", "parameters": schema} for schema in schemas]


TOOL_SCHEMA = "JSON schema error at #/anyOf/1/properties/arguments/properties/a: unrecognized type foo"
SCHEMA = "JSON schema error at #/properties/a: unrecognized type foo"


@pytest.mark.parametrize(
    ("message", "body", "param"),
    [
        (IMAGE, _chat(TEXT, CHAT_IMAGE), "messages[1].content[1]"),
        (AUDIO, _chat(TEXT, {"type": "input_audio", "input_audio": {}}), "messages[1].content[1]"),
        (OTHER, _chat(TEXT, TEXT, {"type": "file", "file": {}}), "messages[1].content[2]"),
        (IMAGE, _chat(ANTHROPIC_IMAGE), "messages[1].content[0]"),
        (
            IMAGE,
            _chat({"type": "tool_result", "content": [TEXT, ANTHROPIC_IMAGE]}),
            "messages[1].content[0].content[1]",
        ),
        (
            IMAGE,
            _chat({"type": "document", "source": {"type": "content", "content": [ANTHROPIC_IMAGE]}}),
            "messages[1].content[0].source.content[0]",
        ),
        (IMAGE, _input({"type": "input_text"}, {"type": "input_image"}), "input[1].content[1]"),
        (OTHER, _input({"type": "input_file"}), "input[1].content[0]"),
        (
            IMAGE,
            {"input": [{"type": "function_call_output", "output": [{"type": "input_image"}]}]},
            "input[0].output[0]",
        ),
        (IMAGE, {"input": "go on", "previous_response_id": "resp_1"}, "input"),
        (IMAGE, _chat(TEXT), "messages"),
        ("Failed to load image or audio file", _chat(TEXT, CHAT_IMAGE), "messages[1].content[1]"),
        ("Failed to load image or audio file", _chat(CHAT_IMAGE, CHAT_IMAGE), "messages"),
        (TOOL_SCHEMA, {"tools": _tools(GOOD_SCHEMA, BAD_SCHEMA)}, "tools[1].function.parameters.properties.a"),
        (TOOL_SCHEMA, {"tools": _responses_tools(GOOD_SCHEMA, BAD_SCHEMA)}, "tools[1].parameters.properties.a"),
        (SCHEMA, {"tools": [{"name": "f", "input_schema": BAD_SCHEMA}]}, "tools[0].input_schema.properties.a"),
        (SCHEMA, {"functions": [{"name": "f", "parameters": BAD_SCHEMA}]}, "functions[0].parameters.properties.a"),
        (
            SCHEMA,
            {"response_format": {"json_schema": {"schema": BAD_SCHEMA}}, "tools": _tools(GOOD_SCHEMA)},
            "response_format.json_schema.schema.properties.a",
        ),
        (SCHEMA, {"text": {"format": {"schema": BAD_SCHEMA}}}, "text.format.schema.properties.a"),
        (SCHEMA, {"output_config": {"format": {"schema": BAD_SCHEMA}}}, "output_config.format.schema.properties.a"),
        ("JSON schema conversion failed:\nno reason", {"json_schema": GOOD_SCHEMA}, "json_schema"),
        ("JSON schema conversion failed:\nno reason", {"tools": _tools(GOOD_SCHEMA, GOOD_SCHEMA)}, "tools"),
        ("JSON schema error at #/anyOf/3: bad", {"json_schema": {"anyOf": [{}]}}, "json_schema"),
        ("Failed to initialize samplers: failed to parse grammar", {"grammar": "root ::= ("}, "grammar"),
        ("Failed to parse grammar", {"json_schema": GOOD_SCHEMA}, "json_schema"),
        ("Prompt contains invalid tokens", {"prompt": [1, 2, 9_999_999]}, "prompt[2]"),
        ("Prompt contains invalid tokens", {"prompt": [[1, 2], [9_999_999, 3]]}, "prompt[1][0]"),
        ("Prompt contains invalid tokens", {"input": [[1], [2, 9_999_999]]}, "input[1][1]"),
        (
            "Multimodal data provided, but model does not support multimodal requests.",
            {"prompt": ["a", {"prompt_string": "x", "multimodal_data": ["aaaa"]}]},
            "prompt[1].multimodal_data",
        ),
        (
            'invalid type for "enable_thinking" (expected boolean, got string)',
            _chat(TEXT) | {"chat_template_kwargs": {"enable_thinking": "x"}},
            "chat_template_kwargs.enable_thinking",
        ),
        (
            "Cannot set both add_generation_prompt and continue_final_message to true.",
            _chat(TEXT) | {"continue_final_message": True},
            "continue_final_message",
        ),
        ("Cannot have 2 or more assistant messages at the end of the list.", _chat(TEXT), "messages[1]"),
        (
            "Failed to parse tool call arguments as JSON: x",
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": "{"}}]}]},
            "messages[0].tool_calls[0].function.arguments",
        ),
        (
            "Failed to parse tool call arguments as JSON: x",
            {"input": [{"type": "function_call", "arguments": "{}"}, {"type": "function_call", "arguments": "{"}]},
            "input[1].arguments",
        ),
        (
            "Failed to parse tool call arguments as JSON: x",  # a custom tool's call, then calls as Ollama has them
            {
                "messages": [
                    {"tool_calls": [{"custom": {"input": "{"}}, {"function": {"name": "f"}}]},
                    {"tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]},
                ]
            },
            "messages",
        ),
        ("Infill is not supported by this model: prefix token is missing. ", {"input_prefix": "a"}, "model"),
        ("Field 'n_probs': number out of range", {"top_logprobs": 2}, "top_logprobs"),
        ("Field 'stop': number out of range", {"stop_sequences": ["a"]}, "stop_sequences"),
        ("Field 'response_format': bad", {"text": {"format": {}}}, "text.format"),
        ("Field 'seed': bad", {"messages": []}, None),
        ("Only user, assistant and tool roles are supported. Jinja Exception: no", _input(TEXT), "input"),
        ("something else", _chat(TEXT), None),
    ],
)
def test_refusal_names_the_part_of_the_client_s_own_request(
    message: str, body: dict[str, Any], param: str | None
) -> None:
    error = _refusal(message)
    assert isinstance(error, ModelServerRefused)
    for _ in range(2):  # a failure may pass two places that complete it
        name_refused_field(error, body)
        assert error.param == param


# What stands in requests of any of the APIs, in places where it may and may not.
KEYS = st.sampled_from(
    [
        *("messages", "input", "prompt", "images", "tool_calls", "function", "arguments", "content", "type", "tools"),
        *("functions", "parameters", "input_schema", "response_format", "json_schema", "schema", "text", "format"),
        *("output_config", "grammar", "source", "output", "name", "item", "custom", "multimodal_data"),
        *("chat_template_kwargs", "enable_thinking", "role"),
    ]
)
WORDS = st.sampled_from(["", "{", "{}", "image", "function_call", "file"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 9) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=25,
)
SENTENCES = st.sampled_from(
    [
        *(IMAGE, AUDIO, OTHER, TOOL_SCHEMA, SCHEMA, "JSON schema conversion failed:\nno reason"),
        *("Failed to parse grammar", "Failed to load image or audio file", "Prompt contains invalid tokens"),
        *("Multimodal data provided, but no", "Failed to parse tool call arguments as JSON: x"),
        *("Cannot have 2 or more assistant messages at the end", 'invalid type for "enable_thinking"'),
        *("Field 'response_format': bad", "Failed to parse messages", "else"),
    ]
)


@settings(max_examples=300)
@given(SENTENCES, st.dictionaries(KEYS, VALUES, max_size=5))
def test_no_body_keeps_a_refusal_from_the_client(message: str, body: dict[str, Any]) -> None:
    error = _refusal(message)
    assert isinstance(error, ModelServerRefused)
    name_refused_field(error, body)
    assert error.param is None or isinstance(error.param, str)


@pytest.mark.parametrize("field", ["messages", "input", "prompt", "input_prefix"])
def test_prompt_that_is_too_long_is_called_as_the_client_calls_it(field: str) -> None:
    error = _refusal("too long", type="exceed_context_size_error", n_ctx=2048, n_prompt_tokens=3000)
    assert isinstance(error, ModelServerRefused)
    name_refused_field(error, {field: "x"})
    assert (error.param, error.code) == (field, "context_length_exceeded")
    # The words by which clients recognise it.
    assert error.message.startswith("This model's maximum context length is 2048 tokens. However, ")
    assert error.message.endswith(f"Please reduce the length of the {field}.")


def test_input_that_is_known_to_be_too_long_keeps_its_index() -> None:
    error = context_exceeded(512, 600, what="'input[3]'", param="input[3]")
    name_refused_field(error, {"input": ["a", "b", "c", "d"]})
    assert error.param == "input[3]"


def test_anthropic_s_message_begins_with_the_path() -> None:
    error = _refusal(IMAGE)
    assert isinstance(error, ModelServerRefused)
    name_refused_field(error, _chat(ANTHROPIC_IMAGE))
    body = anthropic_error(error, 400)["error"]
    assert body["message"].startswith("messages.1.content.0: Unsupported value for 'messages.1.content.0': ")
    assert body["param"] == "messages[1].content[0]"
