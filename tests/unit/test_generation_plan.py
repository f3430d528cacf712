"""The upstream requests of a generation, and the stages that convert its stream."""

from __future__ import annotations

from typing import Any

import pytest

from mistral_api.errors import InvalidRequest
from mistral_api.generation.endpoint import CHAT, COMPLETION, Endpoint
from mistral_api.generation.plan import GenerationPlan, PlanRequest, UpstreamTraits, make_plan
from mistral_api.payload_types.chat import ChatMessage, Tool
from mistral_api.payload_types.completions import Delta

OURS = UpstreamTraits(supervised=True, llama_cpp=lambda: True, slots=4)
HELLO: list[ChatMessage] = [{"role": "user", "content": "Hello"}]
TOOLS: list[Tool] = [{"type": "function", "function": {"name": name}} for name in ("one", "two")]


def _fail_on_question(*_question: Any) -> Any:
    raise AssertionError("nothing has to be asked first")


def _plan(
    payload: Any, engine: UpstreamTraits = OURS, endpoint: Endpoint = CHAT, seed: int | None = 7
) -> GenerationPlan:
    return make_plan(endpoint, PlanRequest(payload, seed), engine, _fail_on_question)


@pytest.mark.parametrize(
    "fields", [{}, {"tools": TOOLS, "tool_choice": "auto"}, {"n": 1, "logprobs": False}, {"top_logprobs": 0}]
)
@pytest.mark.parametrize("stream", [True, False])
def test_plain_chat_needs_no_stages(fields: dict[str, Any], stream: bool) -> None:
    plan = _plan({"messages": HELLO, "stream": stream, **fields})
    assert plan.stages == []
    (request,) = plan.requests
    sent: Any = request
    assert {name: sent[name] for name in fields} == fields
    assert sent["stream"] is True


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("fields", [{}, {"n": 2}, {"logprobs": True}, {"tools": TOOLS, "tool_choice": "required"}])
def test_answer_of_no_tokens_says_nothing(limit: str, fields: dict[str, Any]) -> None:
    stage = _plan({"messages": HELLO, limit: 0, **fields}).stages[-1]
    said: list[Any] = [
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": None}, "finish_reason": None}]},
        {
            "choices": [
                {"index": 0, "delta": {"content": "Hi", "tool_calls": []}, "logprobs": {}, "finish_reason": None}
            ]
        },
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
        {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}},
    ]
    assert [changed for chunk in said for changed in stage.apply(chunk)] == [
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]},
        {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 0, "total_tokens": 3}},
    ]


@pytest.mark.parametrize("choice", ["required", TOOLS[1]])
@pytest.mark.parametrize("n", [1, 3])
def test_external_engine_gets_the_request_unchanged(choice: Any, n: int) -> None:
    engine = UpstreamTraits(supervised=False, llama_cpp=lambda: False, slots=None)
    payload = {"messages": HELLO, "tools": TOOLS, "tool_choice": choice, "n": n, "logprobs": True}
    for endpoint, body in ((CHAT, payload), (COMPLETION, {"prompt": "x", "echo": True, "logprobs": 1, "suffix": ""})):
        plan = _plan(body, engine, endpoint, seed=None)
        assert (plan.requests, plan.stages, plan.streamed) == ([body], [], False)


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_only_allowed_tools_are_sent_to_any_engine(mode: str) -> None:
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": TOOLS[1:]}}
    engine = UpstreamTraits(supervised=False, llama_cpp=lambda: False, slots=None)
    (sent,) = _plan({"messages": HELLO, "tools": TOOLS, "tool_choice": choice}, engine).requests
    assert (sent["tools"], sent["tool_choice"]) == (TOOLS[1:], mode)


def test_choices_beyond_the_slots_become_further_requests_with_consecutive_seeds() -> None:
    requests = _plan({"messages": HELLO, "n": 10}).requests
    assert [(sent["n"], sent["seed"]) for sent in requests] == [(4, 7), (4, 11), (2, 15)]
    unseeded = _plan({"messages": HELLO, "n": 5, "seed": -1}, seed=None).requests
    assert [(sent["n"], sent["seed"]) for sent in unseeded] == [(4, -1), (1, -1)]


def _forced(tools: list[Any]) -> dict[str, Any]:
    (sent,) = _plan({"messages": HELLO, "tools": tools, "tool_choice": "required"}).requests
    form: Any = sent["response_format"]
    return dict(form["json_schema"]["schema"])


def _tool(name: str, parameters: object, **more: object) -> Any:
    return {"type": "function", "function": {"name": name, "parameters": parameters, **more}}


def test_forced_call_keeps_the_names_of_very_many_tools() -> None:
    properties = {f"p{number}": {"type": "string"} for number in range(40)}
    calls = _forced([_tool(f"t{number}", {"type": "object", "properties": properties}) for number in range(128)])
    assert [each["properties"]["name"] for each in calls["anyOf"]] == [{"enum": [f"t{each}"]} for each in range(128)]
    assert list(calls["anyOf"][127]["properties"]["arguments"]["properties"]) == list(properties)


def test_forced_call_loosens_only_the_tool_that_cannot_be_enforced() -> None:
    never = {"type": "object", "properties": {"a": False}, "required": ["a"]}
    exact = {"type": "object", "properties": {"n": {"type": "boolean"}}, "required": ["n"]}
    calls = _forced([_tool("never", never), _tool("exact", exact, strict=True)])
    assert [each["required"] for each in calls["anyOf"]] == [["name", "arguments"]] * 2
    any_arguments, held = (each["properties"]["arguments"] for each in calls["anyOf"])
    assert any_arguments == {"type": "object"}
    assert (held["properties"], held["required"]) == (exact["properties"], ["n"])


def test_forced_call_of_a_strict_tool_that_cannot_be_enforced_is_refused() -> None:
    parameters = {"type": "object", "properties": {"a": {"type": "array", "contains": {"type": "null"}}}}
    tools = [TOOLS[0], _tool("f", parameters, strict=True)]
    for choice in ("required", {"type": "function", "function": {"name": "f"}}):
        with pytest.raises(InvalidRequest) as refused:
            _plan({"messages": HELLO, "tools": tools, "tool_choice": choice})
        assert refused.value.code == "invalid_json_schema"
        assert str(refused.value.param).endswith(".function.parameters.properties.a.contains")


def test_references_of_a_forced_call_are_sent_as_llama_cpp_resolves_them() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#"}}, "additionalProperties": False}
    tool = {"type": "function", "function": {"name": "deep", "parameters": node}}
    (sent,) = _plan({"messages": HELLO, "tools": [TOOLS[0], tool], "tool_choice": "required"}).requests
    form: Any = sent["response_format"]
    called = form["json_schema"]["schema"]["anyOf"][1]["properties"]
    ((name, definition),) = form["json_schema"]["schema"]["$defs"].items()
    assert sent["tool_choice"] == "none"
    assert (called["name"], called["arguments"]) == ({"enum": ["deep"]}, {"$ref": f"#/$defs/{name}"})
    assert definition["properties"] == {"next": {"$ref": f"#/$defs/{name}"}}


def test_deprecated_functions_are_sent_as_tools_and_returned_as_function_calls() -> None:
    called = {"role": "assistant", "content": None, "function_call": {"name": "one", "arguments": "{}"}}
    result = {"role": "function", "name": "one", "content": "1"}
    payload = {"messages": [*HELLO, called, result], "functions": [{"name": "one"}], "function_call": "auto"}
    plan = _plan(payload, UpstreamTraits(supervised=False, llama_cpp=lambda: False, slots=None))
    (sent,) = plan.requests
    assert (sent["tools"], sent["tool_choice"], plan.streamed) == (TOOLS[:1], "auto", True)
    messages: list[Any] = sent["messages"][1:]
    call, answer = messages
    assert call["tool_calls"][0]["function"] == called["function_call"]
    assert (answer["role"], answer["tool_call_id"]) == ("tool", call["tool_calls"][0]["id"])
    (stage,) = plan.stages
    delta: Delta = {"tool_calls": [{"index": 0, "id": "x", "function": {"name": "one", "arguments": ""}}]}
    (chunk,) = stage.apply({"choices": [{"index": 0, "delta": delta, "finish_reason": "tool_calls"}]})
    assert chunk["choices"][0] == {
        "index": 0,
        "delta": {"function_call": {"name": "one", "arguments": ""}},
        "finish_reason": "function_call",
    }


def test_other_engines_get_schemas_as_they_came() -> None:
    tool: Any = {"type": "function", "function": {"name": "f", "parameters": {"type": "array", "items": True}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "number", "minimum": 0}}}
    payload = {"messages": HELLO, "response_format": form, "tools": [tool]}
    (sent,) = _plan(payload, UpstreamTraits(supervised=False, llama_cpp=lambda: False, slots=None)).requests
    assert (sent["response_format"], sent["tools"]) == (form, [tool])
