"""What clients send where nothing is meant, or in another spelling, is loaded as what it means, on every API."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mistral_api.conversations.item_parser import items_to_messages
from mistral_api.errors import InvalidRequest
from mistral_api.generation.anthropic_request import COUNT_TOKENS, MESSAGES
from mistral_api.generation.refusal_texts import refusals_as_text
from mistral_api.payload_types.chat import ChatMessage
from mistral_api.wire import ChatCompletionRequest, CompletionRequest, ItemsCreation, load
from mistral_api.wire.conversations import load_creation
from mistral_api.wire.embeddings import EmbeddingsRequest, RerankRequest
from mistral_api.wire.keys import KeyRequest, RotationRequest
from mistral_api.wire.llama_cpp import DetokenizeRequest, InfillRequest, LlamaCppCompletionRequest, TokenizeRequest
from mistral_api.wire.request_schema import RequestSchema
from mistral_api.wire.responses import UNSUPPORTED, InputTokensRequest, ResponseRequest
from mistral_api.wire.shapes import Integer

USER = {"role": "user", "content": "Hi"}
CHAT: dict[str, Any] = {"messages": [USER]}
# Each request of the API with a body, and a body that it takes.
REQUESTS: dict[str, tuple[RequestSchema[Any], dict[str, Any]]] = {
    "chat": (ChatCompletionRequest(), CHAT),
    "completions": (CompletionRequest(), {"prompt": "Hi"}),
    "responses": (ResponseRequest(), {"input": "Hi"}),
    "input_tokens": (InputTokensRequest(), {"input": "Hi"}),
    "messages": (MESSAGES.schema, CHAT | {"max_tokens": 5}),
    "embeddings": (EmbeddingsRequest(), {"input": "Hi"}),
    "rerank": (RerankRequest(), {"query": "Hi", "documents": ["a"]}),
    "completion": (LlamaCppCompletionRequest(), {"prompt": "Hi"}),
    "infill": (InfillRequest(), {"input_prefix": "a", "input_suffix": "b"}),
    "tokenize": (TokenizeRequest(), {"content": "Hi"}),
    "detokenize": (DetokenizeRequest(), {"tokens": [1]}),
    "keys": (KeyRequest(), {"name": "ada"}),
    "rotation": (RotationRequest(), {}),
}
INTEGERS = [
    pytest.param(schema, body, name, id=f"{api}.{name}")
    for api, (schema, body) in REQUESTS.items()
    for name, field in schema.fields.items()
    if isinstance(field.shape, Integer) or "logprobs" in name  # type: ignore[attr-defined]
    if not (name in UNSUPPORTED and "input" in schema.fields) and "integer" in str(field.shape.json_schema)  # type: ignore[attr-defined]
]
WITH_MODEL = [pytest.param(*each, id=api) for api, each in REQUESTS.items() if "model" in each[0].fields]
WITH_STOP = [pytest.param(*each, id=api) for api, each in REQUESTS.items() if "stop" in each[0].fields]


def _value_of(schema: RequestSchema[Any], name: str) -> int:
    """Return a number that a field takes."""
    bounds = str(schema.fields[name].shape.json_schema)  # type: ignore[attr-defined]
    return 1 if "'minimum'" in bounds or "minimum" not in bounds else 0


@pytest.mark.parametrize(("schema", "body", "name"), INTEGERS)
def test_a_whole_decimal_is_an_integer_and_another_is_none(
    schema: RequestSchema[Any], body: dict[str, Any], name: str
) -> None:
    number = _value_of(schema, name)
    change: dict[str, Any] = {"logprobs": True} if name == "top_logprobs" and "messages" in body else {}
    loaded = load(schema, body | change | {name: float(number)})
    assert loaded == load(schema, body | change | {name: number})
    assert type(loaded.get(name, number)) is int
    with pytest.raises(InvalidRequest) as caught:
        load(schema, body | change | {name: number + 0.5})
    assert (caught.value.param, caught.value.code) == (name, "invalid_type")
    with pytest.raises(InvalidRequest) as caught:  # as a number beyond 64 bits is decoded
        load(schema, body | change | {name: 1e30})
    assert (caught.value.param, caught.value.code) == (name, "integer_above_max_value")


def test_there_are_many_integers() -> None:
    assert len(INTEGERS) > 60


@pytest.mark.parametrize(
    ("schema", "body"),
    [
        (CompletionRequest(), {"prompt": [1.0, 2]}),
        (CompletionRequest(), {"prompt": [[1.0], [2, 3.0]]}),
        (EmbeddingsRequest(), {"input": [1, 2.0]}),
        (EmbeddingsRequest(), {"input": [[1.0, 2.0]]}),
        (LlamaCppCompletionRequest(), {"prompt": ["a", 1.0]}),
        (LlamaCppCompletionRequest(), {"prompt": [["a", 1.0], "b"]}),
        (InfillRequest(), {"input_prefix": [1.0], "input_suffix": "b"}),
        (DetokenizeRequest(), {"tokens": [1.0, 2]}),
        (TokenizeRequest(), {"content": ["a", 1.0]}),
        (ChatCompletionRequest(), CHAT | {"logit_bias": [[5.0, -1]]}),
        (ChatCompletionRequest(), CHAT | {"lora": [{"id": 1.0, "scale": 0.5}]}),
        (KeyRequest(), {"name": "ada", "limits": {"rpm": 5.0}}),
        (MESSAGES.schema, CHAT | {"max_tokens": 5, "thinking": {"type": "enabled", "budget_tokens": 8.0}}),
    ],
)
def test_whole_decimals_are_integers_within_arrays_and_objects(
    schema: RequestSchema[Any], body: dict[str, Any]
) -> None:
    loaded = load(schema, body)
    assert not [each for each in _numbers(loaded) if type(each) is float and each.is_integer()]
    with pytest.raises(InvalidRequest):
        load(schema, _with_halves(body))


def _numbers(value: Any) -> list[Any]:
    if isinstance(value, dict | list):
        return [each for part in (value.values() if isinstance(value, dict) else value) for each in _numbers(part)]
    return [value]


def _with_halves(value: Any) -> Any:
    """Return a value whose whole decimals have a half more."""
    if isinstance(value, dict):
        return {name: _with_halves(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_with_halves(each) for each in value]
    return value + 0.5 if type(value) is float and value.is_integer() else value


@pytest.mark.parametrize(("schema", "body"), WITH_MODEL)
def test_an_empty_model_is_the_default_one(schema: RequestSchema[Any], body: dict[str, Any]) -> None:
    assert "model" not in load(schema, body | {"model": ""})
    assert load(schema, body | {"model": "m"})["model"] == "m"


@pytest.mark.parametrize(("schema", "body"), WITH_STOP)
def test_empty_strings_end_nothing(schema: RequestSchema[Any], body: dict[str, Any]) -> None:
    assert "stop" not in load(schema, body | {"stop": ""})
    assert load(schema, body | {"stop": [""]})["stop"] == []
    assert load(schema, body | {"stop": ["a", "", "b"]})["stop"] == ["a", "b"]


def test_empty_stop_sequences_end_nothing() -> None:
    body = CHAT | {"max_tokens": 5}
    assert "stop" not in load(MESSAGES.schema, body | {"stop_sequences": [""]})
    assert load(MESSAGES.schema, body | {"stop_sequences": ["a", ""]})["stop"] == ["a"]


def test_no_probabilities_are_asked_for_in_any_spelling() -> None:
    for fields in ({"logprobs": False, "top_logprobs": 0}, {"top_logprobs": 0}, {"logprobs": None, "top_logprobs": 0}):
        assert "top_logprobs" not in load(ChatCompletionRequest(), CHAT | fields)
        assert load(ResponseRequest(), {"input": "Hi"} | fields)["input"] == "Hi"
        assert "logprobs" not in load(CompletionRequest(), {"prompt": "Hi"} | fields)
    with pytest.raises(InvalidRequest, match="got a boolean"):
        load(CompletionRequest(), {"prompt": "Hi", "logprobs": True})
    with pytest.raises(InvalidRequest):
        load(ChatCompletionRequest(), CHAT | {"logprobs": False, "top_logprobs": 1})


def test_a_probe_for_one_token_is_taken() -> None:
    assert load(ResponseRequest(), {"input": "Hi", "max_output_tokens": 1})["max_output_tokens"] == 1


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
NOTHING: tuple[dict[str, Any], ...] = ({}, {"content": None}, {"content": []}, {"content": ""})
ABOUT_NOTHING: tuple[dict[str, Any], ...] = (
    {},
    {"id": "msg_1"},
    {"tool_calls": []},
    {"tool_calls": None, "refusal": None, "reasoning_content": None},
    {"reasoning": None},
    {"reasoning": ""},
    {"reasoning_details": []},
    {"function_call": None, "audio": None, "annotations": []},
)


def _loaded(*messages: dict[str, Any]) -> list[ChatMessage]:
    return load(ChatCompletionRequest(), {"messages": [USER, *messages]})["messages"][1:]


@pytest.mark.parametrize("more", ABOUT_NOTHING)
@pytest.mark.parametrize("nothing", NOTHING)
def test_an_answer_may_say_nothing(nothing: dict[str, Any], more: dict[str, Any]) -> None:
    (message,) = _loaded({"role": "assistant"} | nothing | more)
    assert message["content"] == ""


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
@pytest.mark.parametrize("nothing", NOTHING)
def test_an_answer_may_be_reasoning_alone(nothing: dict[str, Any], name: str) -> None:
    (message,) = _loaded({"role": "assistant", name: "Hm."} | nothing)
    assert message["reasoning_content"] == "Hm."
    assert "reasoning" not in message
    assert not message.get("content")


@pytest.mark.parametrize("nothing", NOTHING)
@pytest.mark.parametrize("role", ["tool", "function"])
def test_a_tool_may_say_nothing(nothing: dict[str, Any], role: str) -> None:
    calling, result = _loaded(
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": role, "name": "f", "tool_call_id": "c"} | nothing,
    )
    assert calling["content"] is None
    assert result["content"] == ""


@pytest.mark.parametrize("role", ["user", "system", "developer"])
@pytest.mark.parametrize(("nothing", "code"), [({}, "missing_required_parameter"), ({"content": []}, "empty_array")])
def test_all_others_have_to_say_something(role: str, nothing: dict[str, Any], code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        _loaded({"role": role} | nothing)
    assert (caught.value.param, caught.value.code) == ("messages[1].content", code)


@pytest.mark.parametrize("kind", ["text", "input_text", "output_text"])
@pytest.mark.parametrize("role", ["user", "assistant"])
def test_texts_of_both_of_openais_apis_are_taken_in_both(kind: str, role: str) -> None:
    part = {"type": kind, "text": "Hello", "annotations": []}
    (message,) = _loaded({"role": role, "content": [part]})
    assert message["content"] in ([{"type": "text", "text": "Hello"}], [part])
    items: Any = load(ResponseRequest(), {"input": [{"role": role, "content": [part]}]})["input"]
    assert items_to_messages(items) == [{"role": role, "content": "Hello"}]


def test_refusals_are_what_was_said() -> None:
    refusing = {"type": "refusal", "refusal": "No."}
    messages = _loaded(
        {"role": "assistant", "content": [refusing]},
        {"role": "assistant", "content": [{"type": "text", "text": "Well"}, refusing]},
        {"role": "assistant", "content": None, "refusal": "No."},
        {"role": "assistant", "content": "Yes", "refusal": "No."},
        USER,
    )
    as_text = {"type": "text", "text": "No."}
    spoken = refusals_as_text(messages)
    assert [message["content"] for message in spoken] == [
        [as_text],
        [{"type": "text", "text": "Well"}, as_text],
        "No.",
        "Yes",
        "Hi",
    ]
    assert not [message for message in spoken if "refusal" in message]


@pytest.mark.parametrize(
    "tool", [("function", {"arguments": "{}"}), ("custom_tool", {"input": "x"})], ids=lambda tool: tool[0]
)
@pytest.mark.parametrize("nothing", NOTHING)
def test_items_may_say_nothing(nothing: dict[str, Any], tool: tuple[str, dict[str, Any]]) -> None:
    output = {"output": nothing["content"]} if "content" in nothing else {}
    kind, asked = tool
    items: list[dict[str, Any]] = [
        {"role": "assistant", "id": "msg_1"} | nothing,
        {"type": "message", "role": "assistant", "status": "incomplete"} | nothing,
        {"type": f"{kind}_call", "call_id": "c", "name": "f"} | asked,
        {"type": f"{kind}_call_output", "call_id": "c"} | output,
    ]
    all_loaded: Any = (
        load(ResponseRequest(), {"input": items})["input"],
        load_creation({"items": items})["items"],
        load(ItemsCreation(), {"items": items})["items"],
    )
    for loaded in all_loaded:
        messages = items_to_messages(loaded)
        assert [message["role"] for message in messages] == ["assistant", "assistant", "tool"]
        assert [message["content"] for message in messages] == ["", "", ""]


@pytest.mark.parametrize("nothing", NOTHING)
def test_anthropics_messages_may_say_nothing(nothing: dict[str, Any]) -> None:
    calling = {"type": "tool_use", "id": "c", "name": "f", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "c"} | nothing
    messages = [
        USER,
        {"role": "assistant"} | nothing,
        {"role": "user", "content": "Again"},
        {"role": "assistant", "content": [calling]},
        {"role": "user", "content": [result]},
    ]
    for loaded in (
        load(MESSAGES.schema, {"messages": messages, "max_tokens": 5}),
        COUNT_TOKENS.read({"messages": messages}),
    ):
        assert [message.get("content") for message in loaded["messages"]] == ["Hi", "", "Again", None, ""]


ODD: st.SearchStrategy[Any] = st.sampled_from(
    [None, "", [], [""], {}, 0, -1, 1.0, 1.5, 1e30, True, False, "\ufffd", [None], [[]], [{}], "x"]
)


@pytest.mark.parametrize(("schema", "body"), [pytest.param(*each, id=api) for api, each in REQUESTS.items()])
@given(data=st.data())
def test_odd_values_anywhere_are_taken_or_refused(
    schema: RequestSchema[Any], body: dict[str, Any], data: st.DataObject
) -> None:
    changes = data.draw(st.dictionaries(st.sampled_from(sorted(schema.fields)), ODD, max_size=3))
    message = data.draw(st.dictionaries(st.sampled_from(["content", "tool_calls", "reasoning", "refusal", "id"]), ODD))
    changed = body | ({"messages": [USER, {"role": "assistant"} | message]} if "messages" in body else {}) | changes
    try:
        load(schema, changed)
    except InvalidRequest as error:
        assert error.message  # noqa: PT017
