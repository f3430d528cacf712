"""Chat templates that refuse some message lists, on the real engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from openai import BadRequestError
from openai.types.chat import ChatCompletion

from tests.support.chat_templates import STRICT_ROLE_ERROR, STRICT_TEMPLATE, STRICT_TURN_ERROR, TOOL_TEMPLATE
from tests.support.error_shape import assert_error_shape
from tests.support.openai_clients import openai_client
from tests.support.openai_schemas import validate
from tests.support.processes import Server, running_server, temporary_data_dir, wait_for

TOOL_TURN = [
    {"role": "user", "content": "What is 1 + 2?"},
    {"role": "assistant", "content": None, "tool_calls": [
        {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}]},
    {"role": "tool", "tool_call_id": "call_1", "content": "3"},
]  # fmt: skip
MIXED: list[Any] = [
    {"role": "system", "content": "Be kind."},
    {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
    {"role": "user", "content": "Hello."},
    {"role": "user", "content": [{"type": "text", "text": "It is"}, {"type": "text", "text": "me."}]},
    {"role": "assistant", "content": "Good"},
    {"role": "assistant", "content": "day."},
    {"role": "system", "content": "Now be loud."},
    {"role": "user", "content": "Well?"},
]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that the model server reads its template from."""
    file = tmp_path_factory.mktemp("templates") / "template.jinja"
    file.write_text(STRICT_TEMPLATE)
    return file


@pytest.fixture(scope="module")
def strict(template: Path) -> Iterator[Server]:
    """The stack with a template that allows only user and assistant turns; the last test replaces the template."""
    with temporary_data_dir() as data_dir:
        settings = {"CONTEXT_SIZE": "2048", "PARALLEL": "2", "LLAMA_ARG_CHAT_TEMPLATE_FILE": str(template)}
        with running_server(data_dir, **settings) as running:
            yield running


def _ask(server: Server, messages: list[Any], **fields: Any) -> requests.Response:
    body = {"messages": messages, "max_tokens": 2, "temperature": 0, **fields}
    return requests.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)


def test_roles_are_merged_for_a_strict_template_and_stored_as_sent(strict: Server) -> None:
    answer = _ask(strict, MIXED, session_id="mixed")
    usage = validate(ChatCompletion, answer.content).usage
    fitted = [
        {"role": "user", "content": "Be kind.\n\nBe brief.\n\nHello.\n\nIt is\nme."},
        {"role": "assistant", "content": "Good\n\nday."},
        {"role": "user", "content": "Now be loud.\n\nWell?"},
    ]
    assert usage is not None
    assert usage.prompt_tokens == strict.count_tokens(fitted)
    stored = requests.get(f"{strict.url}/v1/conversations/mixed", timeout=10).json()["messages"]
    assert [(each["role"], each["content"]) for each in stored[:-1]] == [
        (each["role"], each["content"]) for each in MIXED
    ]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("messages", "sentence"),
    [([{"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Hi"}], STRICT_TURN_ERROR),
     ([TOOL_TURN[0], {"role": "assistant", "content": "x"}, TOOL_TURN[2]], STRICT_ROLE_ERROR)],
    ids=["begins with an answer", "tool result"],
)  # fmt: skip
def test_messages_refused_by_the_template_are_a_400_with_its_own_sentence(
    strict: Server, messages: list[Any], sentence: str, stream: bool
) -> None:
    answer = _ask(strict, messages, stream=stream)
    assert answer.status_code == 400
    assert_error_shape(answer.json(), code="chat_template_error", param="messages", message=sentence)
    assert answer.headers["X-Error-Source"] == "model-server"


def test_token_count_uses_the_messages_merged_for_the_template(strict: Server) -> None:
    body = {"messages": [{"role": "user", "content": "Hello."}] * 2, "system": "Be kind.", "max_tokens": 2}
    counted = requests.post(f"{strict.url}/v1/messages/count_tokens", json=body, timeout=60)
    usage = requests.post(f"{strict.url}/v1/messages", json=body, timeout=60).json()["usage"]
    assert counted.json() == {"input_tokens": usage["input_tokens"] + usage["cache_read_input_tokens"]}


def test_openai_client_raises_bad_request_error_for_a_template_refusal(strict: Server) -> None:
    with openai_client(strict) as client:
        model = client.models.list().data[0].id
        with pytest.raises(BadRequestError) as refused:
            client.chat.completions.create(model=model, messages=[{"role": "assistant", "content": "Hi"}, MIXED[2]])
    assert (refused.value.code, refused.value.param) == ("chat_template_error", "messages")


def test_changed_chat_template_is_read_when_the_model_server_restarts(strict: Server, template: Path) -> None:
    before = strict.health()["model_server"]["pid"]
    template.write_text(TOOL_TEMPLATE)
    psutil.Process(before).kill()
    fitted = [
        {"role": "system", "content": "Be kind.\n\nBe brief."},
        {"role": "user", "content": "Hello.\n\nIt is\nme."},
        {"role": "assistant", "content": "Good\n\nday."},
        {"role": "user", "content": "Now be loud.\n\nWell?"},
    ]
    # Every request waits for the new server.
    wait_for(lambda: strict.health()["model_server"]["pid"] not in (before, None), "another model server")
    usage = _ask(strict, MIXED).json()["usage"]
    assert usage["prompt_tokens"] == strict.count_tokens(fitted)
    answered = [*MIXED[:4], *TOOL_TURN[1:], *MIXED[4:]]
    assert _ask(strict, answered).json()["usage"]["prompt_tokens"] == strict.count_tokens(
        [*fitted[:2], *TOOL_TURN[1:], *fitted[2:]]
    )
