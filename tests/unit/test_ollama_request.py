"""Requests of Ollama's API become chats, completions and infills; each field arrives where it has its meaning."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from mistral_api.errors import InvalidRequest
from mistral_api.generation.ollama_context import encode_context
from mistral_api.generation.ollama_messages import chat_messages
from mistral_api.generation.ollama_request import OLLAMA_CHAT, generate_endpoint
from mistral_api.payload_types.chat import ChatPayload
from mistral_api.wire import load

HI = [{"role": "user", "content": "Hi"}]
SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
OPTIONS = {
    "num_keep": 5, "seed": 42, "num_predict": 100, "top_k": 20, "top_p": 0.9, "min_p": 0.1, "typical_p": 0.7,
    "repeat_last_n": 33, "temperature": 0.8, "repeat_penalty": 1.2, "presence_penalty": 1.5, "frequency_penalty": 1.0,
    "mirostat": 1, "mirostat_tau": 0.8, "mirostat_eta": 0.6, "penalize_newline": True, "stop": ["\n", "", "user:"],
    "numa": False, "num_ctx": 1024, "num_batch": 2, "num_gpu": 1, "main_gpu": 0, "use_mmap": True, "num_thread": 8,
}  # fmt: skip
SAMPLING = {
    "n_keep": 5, "seed": 42, "max_tokens": 100, "top_k": 20, "top_p": 0.9, "min_p": 0.1, "typical_p": 0.7,
    "repeat_last_n": 33, "temperature": 0.8, "repeat_penalty": 1.2, "presence_penalty": 1.5, "frequency_penalty": 1.0,
    "mirostat": 1, "mirostat_tau": 0.8, "mirostat_eta": 0.6, "stop": ["\n", "user:"],
}  # fmt: skip


def _chat(**fields: Any) -> ChatPayload:
    return load(OLLAMA_CHAT.schema, {"messages": HI} | fields)


def _generated(**fields: Any) -> tuple[str, ChatPayload]:
    """Return the path of the model server for a prompt, and what is asked there."""
    endpoint = generate_endpoint(fields)
    return endpoint.upstream_path, load(endpoint.schema, fields)


def test_ollama_options_get_their_names_in_llama_cpp_and_others_are_dropped() -> None:
    chat = _chat(options=OPTIONS, model="m", shown_model="M:latest")
    head = {"model": "m", "shown_model": "M:latest", "stream": True, "stream_options": {"include_usage": True}}
    assert chat == {**head, **SAMPLING, "messages": HI}


@pytest.mark.parametrize("limit", [0, -1, -2])
def test_ollama_limit_below_one_is_none(limit: int) -> None:
    assert "max_tokens" not in _chat(options={"num_predict": limit})
    assert _generated(prompt="a", suffix="b", options={"num_predict": limit})[1]["n_predict"] == -1


def test_ollama_limit_may_be_null() -> None:
    assert "max_tokens" not in _chat(options={"num_predict": None})


def test_ollama_stop_may_be_one_string_and_an_empty_one_is_none() -> None:
    assert _chat(options={"stop": "x"})["stop"] == ["x"]
    assert "stop" not in _chat(options={"stop": [""]})


def test_ollama_stream_is_the_default_and_has_no_options_when_it_is_off() -> None:
    assert _chat(stream=False) == {"stream": False, "messages": HI}


@pytest.mark.parametrize(
    ("wanted", "response_format"),
    [
        ("json", {"type": "json_object"}),
        (SCHEMA, {"type": "json_schema", "json_schema": {"name": "output", "strict": True, "schema": SCHEMA}}),
        ("", None),
        (None, None),
    ],
)
def test_ollama_format_becomes_the_response_format(wanted: Any, response_format: Any) -> None:
    assert _chat(format=wanted).get("response_format") == response_format


@pytest.mark.parametrize(
    ("think", "fields"),
    [
        (None, {}),
        (True, {"chat_template_kwargs": {"enable_thinking": True}}),
        (False, {"chat_template_kwargs": {"enable_thinking": False}}),
        ("high", {"reasoning_effort": "high", "chat_template_kwargs": {"enable_thinking": True}}),
    ],
)
def test_ollama_think_becomes_the_switch_of_templates(think: Any, fields: Any) -> None:
    chat = _chat(think=think, stream=False)
    assert chat == {"stream": False, "messages": HI, **fields}


def test_ollama_logprobs_and_truncation_are_those_of_a_chat() -> None:
    assert _chat(logprobs=True, top_logprobs=3, truncate=True, stream=False) == {
        "stream": False,
        "messages": HI,
        "logprobs": True,
        "top_logprobs": 3,
        "truncation": "auto",
    }
    assert _chat(top_logprobs=3, truncate=False, stream=False) == {
        "stream": False,
        "messages": HI,
        "truncation": "disabled",
    }


def test_results_of_ollama_tools_find_their_calls_by_id_name_and_order() -> None:
    def call(name: str, **fields: Any) -> Any:
        return {"function": {"name": name, "arguments": {"x": 1}}, **fields}

    messages: list[Any] = [
        {"role": "assistant", "tool_calls": [call("a"), call("b"), call("a"), call("c", id="own")]},
        {"role": "tool", "content": "of b", "tool_name": "b"},
        {"role": "tool", "content": "of c", "tool_call_id": "own"},
        {"role": "tool", "content": "of the first a"},
        {"role": "tool", "content": "of the second a", "tool_name": "a"},
        {"role": "tool", "content": "of nobody"},
    ]
    answer, *results = chat_messages(messages)
    calls = answer["tool_calls"] or []
    assert answer["content"] is None
    assert [each["function"] for each in calls] == [{"name": name, "arguments": '{"x":1}'} for name in "abac"]
    ids = [each["id"] for each in calls]
    assert [result["tool_call_id"] for result in results[:-1]] == [ids[1], "own", ids[0], ids[2]]
    assert results[-1]["tool_call_id"] not in ids
    # Mistral's templates refuse any other ids.
    assert all(each is not None and len(each) == 9 and each.isalnum() for each in ids[:3])


def test_ollama_messages_keep_thinking_images_and_text_arguments() -> None:
    png, jpeg = (base64.b64encode(head + bytes(20)).decode() for head in (b"\x89PNG", b"\xff\xd8\xff\xe0"))
    user, answer = chat_messages(
        [
            {"role": "user", "content": "Look", "images": [png, jpeg, "data:image/webp;base64,AA=="]},
            {
                "role": "assistant",
                "content": "I see",
                "thinking": "Hm",
                "tool_calls": [{"function": {"name": "f", "arguments": '{"a": 2}'}}],
            },
        ]
    )
    urls = [f"data:image/png;base64,{png}", f"data:image/jpeg;base64,{jpeg}", "data:image/webp;base64,AA=="]
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    assert user == {"role": "user", "content": [{"type": "text", "text": "Look"}, *parts]}
    assert (answer["content"], answer["reasoning_content"]) == ("I see", "Hm")
    assert (answer["tool_calls"] or [])[0]["function"]["arguments"] == '{"a": 2}'


@pytest.mark.parametrize("image", ["ü" * 12, "\u0663", "A", "=", "no base64 at all"])
def test_ollama_image_that_is_no_base64_is_left_to_the_model_server(image: str) -> None:
    (user,) = chat_messages([{"role": "user", "content": "", "images": [image]}])
    assert user["content"] == [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}}]


def test_ollama_prompt_with_system_and_context_is_a_chat() -> None:
    earlier: list[Any] = [
        {"role": "system", "content": "Old"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
    ]
    path, chat = _generated(prompt="c", system="New", context=encode_context(earlier), stream=False)
    assert path == "/v1/chat/completions"
    assert chat["messages"] == [
        {"role": "system", "content": "New"},
        *earlier[1:],
        {"role": "user", "content": "c"},
    ]
    assert _generated(prompt="c", context=[])[1]["messages"] == [{"role": "user", "content": "c"}]


def test_ollama_raw_prompt_is_a_completion_without_openais_limit() -> None:
    path, completion = _generated(prompt="Once", raw=True, stream=False, logprobs=True, top_logprobs=9, format="json")
    assert path == "/v1/completions"
    assert completion == {"stream": False, "prompt": "Once", "logprobs": 5, "json_schema": {"type": "object"}}
    assert _generated(prompt="Once", raw=True, options={"num_predict": 3})[1]["max_tokens"] == 3


def test_ollama_template_makes_a_raw_prompt() -> None:
    template = "{{ if .System }}<s>{{ .System }}</s>{{ end }}[{{ .Prompt }}]{{ .Response }}<end>"
    path, completion = _generated(prompt="p", system="s", template=template)
    assert (path, completion["prompt"]) == ("/v1/completions", "<s>s</s>[p]")


def test_ollama_suffix_is_an_infill() -> None:
    path, infill = _generated(prompt="def f(", suffix="return", options={"num_predict": 7}, stream=False)
    assert path == "/infill"
    assert infill == {"stream": False, "input_prefix": "def f(", "input_suffix": "return", "n_predict": 7}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"options": {"temperature": 3}}, "options.temperature"),
        ({"options": {"stop": 1}}, "options.stop"),
        ({"keep_alive": "soon"}, "keep_alive"),
        ({"keep_alive": []}, "keep_alive"),
        ({"think": "a lot"}, "think"),
        ({"format": "yaml"}, "format"),
        ({"format": {"type": "integer", "minimum": 2, "maximum": 1}}, "format"),
        ({"messages": [{"role": "robot"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "images": ["http://there/a.png"]}]}, "messages[0].images[0]"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages[0].tool_calls[0].function"),
        ({"tools": [{"function": {"name": "no spaces"}}]}, "tools[0].function.name"),
        ({"session_id": "no spaces"}, "session_id"),
        ({"top_logprobs": 21}, "top_logprobs"),
    ],
)
def test_wrong_field_of_an_ollama_chat_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        _chat(**fields)
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"raw": True, "system": "s"}, "system"),
        ({"raw": True, "context": [1]}, "context"),
        ({"raw": True, "images": ["AAAA"]}, "images"),
        ({"template": "{{ .Prompt }}", "context": [1]}, "context"),
        ({"template": "{{ range .Messages }}"}, "template"),
        ({"context": [1, 2, 3]}, "context"),
        ({"context": "text"}, "context"),
    ],
)
def test_wrong_field_of_an_ollama_prompt_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        _generated(prompt="p", **fields)
    assert refused.value.param == param


@pytest.mark.parametrize("keep_alive", ["5m", "1h30m", "-1s", "0", "24h", "-1", 300, -1, 0, 1.5, "1.5h"])
def test_every_duration_that_ollama_takes_is_taken(keep_alive: Any) -> None:
    assert _chat(keep_alive=keep_alive, stream=False) == {"stream": False, "messages": HI}
