"""The session that a client names is found in the shapes that the programs send, and nowhere else."""

from __future__ import annotations

import json

import pytest

from mistral_api.conversations.client_sessions import (
    ClientSession,
    find_client,
    find_client_session,
    make_session_id,
)
from mistral_api.wire import valid_session_id

UUID = "1cd8d913-f885-453f-b334-5ab7566779e5"
OTHER_UUID = "01a217be-ab98-7442-834f-0d8a4f74da05"
CODEX = {"originator": "codex-tui", "User-Agent": "codex-tui/0.171.0 (Debian 12.0.0; x86_64) xterm"}
CLAUDE_CODE = {"User-Agent": "claude-cli/2.1.197 (external, cli)", "x-app": "cli"}


def claude_code_user_id(session_id: object) -> str:
    return json.dumps({"device_id": "e6" * 32, "account_uuid": "", "session_id": session_id})


@pytest.mark.parametrize(
    ("headers", "payload", "client"),
    [
        (CLAUDE_CODE | {"X-Claude-Code-Session-Id": UUID}, {}, "claude-code"),
        (CLAUDE_CODE, {"metadata": {"user_id": claude_code_user_id(UUID)}}, "claude-code"),
        ({}, {"metadata": {"user_id": f"user_{'a1' * 32}_account__session_{UUID}"}}, "claude-code"),
        ({}, {"metadata": {"user_id": f"user_{'a1' * 32}_account_{OTHER_UUID}_session_{UUID}"}}, "claude-code"),
        (CODEX | {"session-id": OTHER_UUID, "thread-id": UUID}, {"prompt_cache_key": UUID}, "codex"),
        (CODEX | {"session-id": UUID}, {}, "codex"),
        ({"originator": "codex_exec", "conversation_id": UUID, "session_id": UUID}, {}, "codex"),
        ({"User-Agent": "codex_cli_rs/0.47.0 (Mac OS 15.0.0; arm64)"}, {"prompt_cache_key": UUID}, "codex"),
        (
            {"originator": "my_editor", "x-codex-window-id": f"{UUID}:0"},
            {"client_metadata": {"session_id": OTHER_UUID, "thread_id": UUID}},
            "codex",
        ),
        ({"X-OpenWebUI-Chat-Id": UUID, "X-OpenWebUI-User-Id": OTHER_UUID}, {}, "open-webui"),
        ({"X-LibreChat-Conversation-Id": UUID}, {}, "librechat"),
        ({"User-Agent": "opencode/1.18.33 ai-sdk/provider-utils/4.0.23", "x-session-id": UUID}, {}, "opencode"),
        ({"x-opencode-session": UUID, "x-opencode-request": "msg_1"}, {}, "opencode"),
    ],
)
def test_session_of_a_known_program_is_found(headers: dict[str, str], payload: dict[str, object], client: str) -> None:
    session = find_client_session(headers, payload)
    assert session == ClientSession(UUID, client)
    assert session.sends_whole_history


@pytest.mark.parametrize(
    ("headers", "payload"),
    [
        ({"X-Session-Id": UUID}, {}),
        ({"x-session-id": f" {UUID} "}, {}),
        ({"X-Conversation-Id": UUID}, {}),
        ({"x-litellm-session-id": UUID}, {}),
        ({}, {"metadata": {"session_id": UUID}}),
    ],
)
def test_session_of_an_unknown_client_says_nothing_of_its_history(
    headers: dict[str, str], payload: dict[str, object]
) -> None:
    session = find_client_session(headers, payload)
    assert session == ClientSession(UUID)
    assert not session.sends_whole_history


@pytest.mark.parametrize(
    ("headers", "payload"),
    [
        ({}, {}),
        ({}, {"prompt_cache_key": UUID}),
        ({"User-Agent": "OpenAI/Python 2.8.0", "session-id": UUID, "thread-id": UUID}, {"prompt_cache_key": UUID}),
        ({}, {"metadata": {"user_id": "customer-17"}}),
        ({}, {"metadata": {"user_id": "user_of_the_account_with_session_1"}}),
        ({}, {"metadata": {"user_id": "{not json"}}),
        ({}, {"metadata": {"user_id": "{}"}}),
        ({}, {"metadata": {"user_id": claude_code_user_id(17)}}),
        ({}, {"metadata": {"user_id": 17, "session_id": ["a"]}}),
        ({}, {"metadata": "text", "client_metadata": None}),
        (CODEX, {"prompt_cache_key": None, "client_metadata": "text"}),
        ({"x-claude-code-agent-id": "a1"}, {}),
        ({"Helicone-Session-Id": UUID, "Mcp-Session-Id": UUID}, {}),
        ({"X-OpenWebUI-Chat-Id": "local:Jx0NAAAB"}, {}),
        ({"X-OpenWebUI-Chat-Id": f"temporary:{UUID}"}, {}),
        ({"X-OpenWebUI-Chat-Id": f"channel:{UUID}"}, {}),
    ],
)
def test_request_that_names_no_session_has_none(headers: dict[str, str], payload: dict[str, object]) -> None:
    assert find_client_session(headers, payload) is None


@pytest.mark.parametrize(
    "value",
    [
        "",
        "  ",
        "new",
        "NEW",
        "PENDING",
        "null",
        "None",
        "undefined",
        "{{LIBRECHAT_BODY_CONVERSATIONID}}",
        "{{CHAT_ID}}",
        "${SESSION_ID}",
        "<session id>",
        "00000000-0000-0000-0000-000000000000",
    ],
)
def test_value_that_says_there_is_no_session_is_passed_over(value: str) -> None:
    assert find_client_session({"X-LibreChat-Conversation-Id": value}, {}) is None
    assert find_client_session({"X-Session-Id": value, "X-Conversation-Id": "c1"}, {}) == ClientSession("c1")


def test_subagents_of_claude_code_have_conversations_of_their_own() -> None:
    headers = CLAUDE_CODE | {"X-Claude-Code-Session-Id": UUID, "x-claude-code-agent-id": "a9f"}
    assert find_client_session(headers, {}) == ClientSession(f"{UUID}:a9f", "claude-code")


def test_operators_headers_come_first_and_in_their_order() -> None:
    headers = {"X-Session-Id": "s", "X-Task-Id": "t", "X-Chat-Id": "c", "X-OpenWebUI-Chat-Id": "w"}
    assert find_client_session(headers, {}, ("X-Chat-Id", "X-Task-Id")) == ClientSession("c", "open-webui")
    assert find_client_session(headers, {}, ("X-None", "x-task-id")) == ClientSession("t", "open-webui")
    assert find_client_session(headers, {}) == ClientSession("s", "open-webui")


def test_header_of_a_program_comes_before_a_common_one() -> None:
    headers = {"X-Conversation-Id": "common", "x-litellm-session-id": "gateway", "X-OpenWebUI-Chat-Id": "chat"}
    assert find_client_session(headers, {}) == ClientSession("chat", "open-webui")


@pytest.mark.parametrize(
    ("headers", "client"),
    [
        ({"user-agent": "QwenCode/0.15.10 (linux; x64)"}, "qwen-code"),
        ({"User-Agent": "claude-cli/1.0.60 (external, cli)"}, "claude-code"),
        ({"Originator": "codex_vscode"}, "codex"),
        ({"User-Agent": "OpenAI/Python 2.8.0"}, None),
        ({"User-Agent": "my-codex/1.0"}, None),
        ({}, None),
    ],
)
def test_program_is_known_by_its_headers(headers: dict[str, str], client: str | None) -> None:
    assert find_client(headers) == client


@pytest.mark.parametrize(
    "value",
    [
        "a b",
        "chat/17",
        "Grüße",
        "日本語",
        "x" * 129,
        "x" * 100_000,
        "a\ud800",
        "-",
        "user@example.com",
        "\x00\x01",
        "{{a",
    ],
)
def test_any_other_value_becomes_a_valid_session_id(value: str) -> None:
    session_id = make_session_id(value)
    assert session_id is not None
    assert valid_session_id(session_id)
    assert make_session_id(value) == session_id


def test_values_that_look_alike_stay_apart() -> None:
    values = ["chat/17", "chat 17", "chat-17", "chat//17", "日本", "日本語", "x" * 129, "x" * 130]
    assert len({make_session_id(value) for value in values}) == len(values)


def test_mapped_value_stays_readable() -> None:
    session_id = make_session_id("team a/chat 17")
    assert session_id is not None
    assert session_id.startswith("team-a-chat-17-")
