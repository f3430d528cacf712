"""Anthropic requests are translated to chat completion requests; what cannot be translated is refused by field."""

from __future__ import annotations

from typing import Any, cast

import pytest

from mistral_api.errors import InvalidRequest
from mistral_api.generation.anthropic_request import COUNT_TOKENS, MESSAGES
from mistral_api.generation.anthropic_tools import ignored_tools
from mistral_api.payload_types.anthropic import MessagesPayload
from mistral_api.wire import load

HI: dict[str, Any] = {"max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}]}
TOOL = {"name": "add", "description": "Adds.", "input_schema": {"type": "object"}}
SEARCH = {"type": "web_search_20250305", "name": "web_search"}
PNG = {"type": "base64", "media_type": "image/png", "data": "aGk="}


def _chat(**more: Any) -> Any:
    return load(MESSAGES.schema, HI | more)


def _user(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(blocks)}]}


def test_plain_anthropic_request_is_unchanged() -> None:
    assert _chat(seed=7, unheard_of=[1]) == HI | {"seed": 7, "unheard_of": [1]}


@pytest.mark.parametrize(
    ("stamp", "other"),
    [
        ("cc_version=2; cch=a5145;", "cc_version=2; cch=0bf3d;"),
        ("cc_version=2.1.197.68e; cc_entrypoint=cli;\n", "cc_version=2.1.197.9af; cc_entrypoint=cli;\n"),
    ],
)
def test_anthropic_system_prompt_comes_first_without_its_changing_billing_header(stamp: str, other: str) -> None:
    def system_message(stamp: str) -> Any:
        blocks = [f"x-anthropic-billing-header: {stamp}You help.", "Be brief."]
        return _chat(system=[{"type": "text", "text": block} for block in blocks])["messages"][0]

    assert system_message(stamp) == system_message(other)
    assert system_message(stamp)["role"] == "system"
    assert system_message(stamp)["content"].endswith("You help.\nBe brief.")


def test_anthropic_history_keeps_thinking_tool_calls_and_tool_results() -> None:
    turns = [
        {"role": "user", "content": "1 + 1?"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": ""},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "text", "text": "I add."},
                {"type": "tool_use", "id": "a", "name": "add", "input": {"x": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "And?"},
                {"type": "tool_result", "tool_use_id": "a", "content": "2"},
                {"type": "tool_result", "tool_use_id": "b", "is_error": True},
            ],
        },
    ]
    assert _chat(messages=turns)["messages"] == [
        {"role": "user", "content": "1 + 1?"},
        {
            "role": "assistant",
            "content": "I add.",
            "reasoning_content": "Hm.",
            "tool_calls": [{"id": "a", "type": "function", "function": {"name": "add", "arguments": '{"x":1}'}}],
        },
        {"role": "tool", "tool_call_id": "a", "content": "2"},
        {"role": "tool", "tool_call_id": "b", "content": "error"},
        {"role": "user", "content": "And?"},
    ]


def test_anthropic_images_and_documents_become_content_parts() -> None:
    document = {"type": "document", "title": "T", "source": {"type": "text", "media_type": "text/plain", "data": "D"}}
    found = {"type": "search_result", "title": "F", "source": "s", "content": [{"type": "text", "text": "R"}]}
    chat = _chat(**_user({"type": "image", "source": PNG}, document, found))
    image, *texts = chat["messages"][0]["content"]
    assert image == {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
    assert [part["text"] for part in texts] == ["T", "D", "F\ns", "R"]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        (
            {"type": "tool", "name": "add", "disable_parallel_tool_use": True},
            {"tool_choice": {"type": "function", "function": {"name": "add"}}, "parallel_tool_calls": False},
        ),
    ],
    ids=["auto", "any", "none", "tool"],
)
def test_anthropic_tools_and_tool_choice_are_translated(choice: dict[str, Any], expected: dict[str, Any]) -> None:
    chat = _chat(tools=[TOOL], tool_choice=choice)
    function = {"name": "add", "description": "Adds.", "parameters": {"type": "object"}}
    assert chat["tools"] == [{"type": "function", "function": function}]
    assert {name: chat[name] for name in expected} == expected


def _names(**more: Any) -> list[str]:
    return [tool["function"]["name"] for tool in _chat(**more).get("tools", [])]


def _deferred(name: str) -> dict[str, Any]:
    return TOOL | {"name": name, "defer_loading": True}


def test_tools_that_only_anthropic_could_run_are_left_out() -> None:
    servers = {"mcp_servers": [{"type": "url", "name": "x", "url": "https://example.com"}]}
    hosted = [SEARCH, {"type": "mcp_toolset", "mcp_server_name": "x"}, {"type": "code_execution_20260521", "name": "c"}]
    body = {"tools": [*hosted, TOOL]} | servers
    assert _names(**body, tool_choice={"type": "any"}) == ["add"]
    assert ignored_tools(cast("MessagesPayload", HI | body)) == (
        "web_search_20250305",
        "mcp_toolset",
        "code_execution_20260521",
        "mcp_servers",
    )
    alone = _chat(tools=hosted, tool_choice={"type": "auto"})
    assert not alone.keys() & {"tools", "tool_choice", "mcp_servers"}


def test_tools_that_anthropic_has_defined_and_the_client_runs_become_functions() -> None:
    tools: list[dict[str, Any]] = [
        {"type": "bash_20250124", "name": "bash"},
        {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool", "max_characters": 100},
        {"type": "memory_20250818", "name": "memory"},
        {"type": "computer_20250124", "name": "computer", "display_width_px": 800, "display_height_px": 600},
    ]
    assert ignored_tools(cast("MessagesPayload", HI | {"tools": tools})) == ()
    functions = [tool["function"] for tool in _chat(tools=tools)["tools"]]
    assert [function["name"] for function in functions] == [tool["name"] for tool in tools]
    fields = [list(function["parameters"]["properties"])[:2] for function in functions]
    assert fields == [["command", "restart"], ["command", "path"], ["command", "path"], ["action", "coordinate"]]


def test_deferred_tool_is_shown_once_a_message_refers_to_it() -> None:
    tools = [TOOL, _deferred("found"), _deferred("brought"), _deferred("hidden")]
    found = {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "tool_reference", "tool_name": "found"}]}
    turns = [
        *HI["messages"],
        {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "add", "input": {}}]},
        {"role": "user", "content": [found]},
    ]
    assert _names(tools=tools) == ["add"]
    assert _names(tools=tools, messages=turns) == ["add", "found"]
    assert _chat(tools=tools, messages=turns)["messages"][-1]["content"] == "The tool found is available now."

    def change(kind: str, name: str) -> dict[str, Any]:
        block = {"type": kind, "tool": {"type": "tool_reference", "name": name}}
        return {"role": "system", "content": [block]}

    changed = [*turns, change("tool_addition", "brought"), change("tool_removal", "add")]
    assert _names(tools=tools, messages=changed) == ["found", "brought"]
    assert _names(tools=tools, tool_choice={"type": "tool", "name": "hidden"}) == ["add", "hidden"]
    hosted = {"type": "tool_search_tool_regex_20251119", "name": "tool_search_tool_regex"}
    assert _names(tools=[*tools, hosted]) == ["add", "found", "brought", "hidden"]


def test_what_anthropics_servers_did_in_an_earlier_answer_is_left_out() -> None:
    answer = [
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "x"}},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
        {"type": "text", "text": "Found."},
    ]
    summary = [{"type": "compaction", "content": "We spoke."}]
    turns = [{"role": "assistant", "content": summary}, *HI["messages"], {"role": "assistant", "content": answer}]
    contents = [message["content"] for message in _chat(messages=turns)["messages"]]
    assert contents == ["We spoke.", "Hi", "Found."]


def test_anthropic_fields_are_renamed_or_dropped() -> None:
    chat = _chat(
        stop_sequences=["END"],
        stream=True,
        thinking={"type": "enabled", "budget_tokens": 1024},
        output_config={"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}},
        metadata={"user_id": None},
        service_tier="auto",
        cache_control={"type": "ephemeral"},
        context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        betas=["claude-code-20250219"],
        thread={"type": "create"},
        fallbacks="default",
    )
    assert (chat["stop"], chat["verbose"], chat["stream_options"]) == (["END"], True, {"include_usage": True})
    assert (chat["thinking_budget_tokens"], chat["reasoning_effort"]) == (1024, "low")
    assert chat["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert not chat.keys() & {"metadata", "service_tier", "cache_control", "thinking", "output_config"}
    assert not chat.keys() & {"context_management", "betas", "thread", "fallbacks"}


@pytest.mark.parametrize(
    ("more", "param", "code"),
    [
        ({"max_tokens": None}, "max_tokens", "missing_required_parameter"),
        ({"messages": []}, "messages", "empty_array"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
        (_user({"type": "text"}), "messages[0].content[0].text", "missing_required_parameter"),
        (_user({"type": "text", "text": 5}), "messages[0].content[0].text", "invalid_type"),
        (_user({"type": "tool_use", "id": "a"}), "messages[0].content[0].type", "not_supported"),
        (
            _user({"type": "image", "source": {"type": "file", "file_id": "f"}}),
            "messages[0].content[0].source.type",
            "not_supported",
        ),
        (
            _user({"type": "document", "source": PNG}),
            "messages[0].content[0].source.type",
            "not_supported",
        ),
        ({"tools": [{"type": "function", "name": "a"}]}, "tools[0].type", "not_supported"),
        ({"tools": [SEARCH], "tool_choice": {"type": "any"}}, "tools[0].type", "not_supported"),
        (
            {"tools": [TOOL, SEARCH], "tool_choice": {"type": "tool", "name": "web_search"}},
            "tools[1].type",
            "not_supported",
        ),
        ({"tools": [{"name": "a b", "input_schema": {}}]}, "tools[0].name", "invalid_value"),
        ({"tools": [TOOL | {"name": "a" * 129}]}, "tools[0].name", "string_above_max_length"),
        ({"tools": [{"name": "a"}]}, "tools[0].input_schema", "missing_required_parameter"),
        ({"tool_choice": {"type": "any"}}, "tool_choice", "invalid_value"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "sub"}}, "tool_choice", "invalid_value"),
        ({"tools": [TOOL | {"defer_loading": True}], "tool_choice": {"type": "any"}}, "tool_choice", "invalid_value"),
        ({"mcp_servers": [5]}, "mcp_servers[0]", "invalid_type"),
        ({"thread": {"type": "continue", "previous_message_id": "msg_1"}}, "thread.type", "not_supported"),
        ({"compaction": {"type": "summarize"}}, "compaction.type", "not_supported"),
        ({"n": 2}, "n", "integer_above_max_value"),
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens", "missing_required_parameter"),
        ({"repeat_last_n": 2**30}, "repeat_last_n", "integer_above_max_value"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_anthropic_request_is_refused_by_field(more: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        _chat(**more)
    assert (refused.value.param, refused.value.code) == (param, code)


def test_demand_of_a_call_where_all_tools_are_deferred_says_so() -> None:
    with pytest.raises(InvalidRequest, match="'defer_loading' wait"):
        _chat(tools=[TOOL | {"defer_loading": True}], tool_choice={"type": "any"})


def test_anthropic_token_count_needs_no_max_tokens() -> None:
    assert COUNT_TOKENS.read({"messages": HI["messages"]}) == {"messages": HI["messages"]}
