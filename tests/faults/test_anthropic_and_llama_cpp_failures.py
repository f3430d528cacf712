"""Other dialects than OpenAI's in front of a misbehaving model server: their clients get valid errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import requests
from anthropic import Anthropic, APIStatusError, GatewayTimeoutError, InternalServerError, ServiceUnavailableError
from anthropic.types import Message
from anthropic.types.shared import ErrorResponse
from ollama import ChatResponse, Client, ResponseError

from tests.support.error_shape import assert_error_shape
from tests.support.misbehaving_server import misbehaving_stack
from tests.support.openai_schemas import validate
from tests.support.processes import Server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The stack in front of a model server that misbehaves."""
    with misbehaving_stack() as running:
        yield running


@pytest.fixture
def claude(server: Server) -> Iterator[Anthropic]:
    """The anthropic package without retries."""
    with Anthropic(base_url=server.url, api_key="unused", max_retries=0, timeout=20) as made:
        yield made


@pytest.fixture
def llama(server: Server) -> Iterator[Client]:
    """The ollama package."""
    with Client(host=server.url, timeout=20) as made:
        yield made


HI = [{"role": "user", "content": "Hi"}]


def _body(model: str) -> dict[str, Any]:
    said = [{"role": "user", "content": "Hi"}]
    return {"model": model, "max_tokens": 9, "messages": said, "extra_body": {"session_id": model}}


def _stored(server: Server, session_id: str) -> list[tuple[str, str, str]]:
    messages = server.stored_messages(session_id)
    return [(each["role"], each["content"], each["status"]) for each in messages]


@pytest.mark.parametrize(
    ("model", "exception", "kind"),
    [
        ("silent", GatewayTimeoutError, "timeout_error"),
        ("breaks-500", InternalServerError, "api_error"),
        ("loading", ServiceUnavailableError, "overloaded_error"),
    ],
)
def test_anthropic_client_raises_its_own_exception_when_the_model_server_fails(
    server: Server, claude: Anthropic, model: str, exception: type[APIStatusError], kind: str
) -> None:
    with pytest.raises(exception) as failure:
        claude.messages.create(**_body(model))
    assert failure.value.type == kind
    assert failure.value.api_message
    assert failure.value.response.headers["X-Error-Source"] == "model-server"
    assert _stored(server, model) == [("user", "Hi", "failed")]


@pytest.mark.parametrize(
    ("model", "kind"),
    [("silent-stream", "timeout_error"), ("cut-stream", "api_error"), ("error-event", "api_error")],
)
def test_anthropic_client_raises_when_a_stream_fails_midway_and_the_text_is_stored(
    server: Server, claude: Anthropic, model: str, kind: str
) -> None:
    said: list[str] = []
    with pytest.raises(APIStatusError) as failure, claude.messages.stream(**_body(model)) as stream:
        said.extend(stream.text_stream)
    assert said == ["one"]
    assert failure.value.type == kind
    assert failure.value.api_message
    assert validate(ErrorResponse, failure.value.body)
    assert _stored(server, model) == [("user", "Hi", "complete"), ("assistant", "one", "interrupted")]


def test_anthropic_stream_renders_tool_calls_as_tool_use_blocks(server: Server, claude: Anthropic) -> None:
    with claude.messages.stream(**_body("calls-tools")) as stream:
        events = [event.type for event in stream]
        message = validate(
            Message, stream.get_final_message().model_dump(exclude={"content": {"__all__": {"parsed_output"}}})
        )
    assert [block.type for block in message.content] == ["text", "tool_use", "tool_use"]
    assert [block.input for block in message.content if block.type == "tool_use"] == [{"x": 1}, {}]
    assert events.count("content_block_start") == events.count("content_block_stop") == 3
    assert message.stop_reason == "tool_use"
    used = message.usage
    assert (used.input_tokens, used.cache_read_input_tokens, used.output_tokens) == (4, 3, 9)


def test_ollama_client_raises_with_the_status_when_the_model_server_fails(server: Server, llama: Client) -> None:
    for stream in (False, True):
        with pytest.raises(ResponseError, match="model server") as failure:
            list(llama.chat("breaks-500", HI, stream=stream))
        assert failure.value.status_code == 502
    answer = requests.post(f"{server.url}/api/chat", json={"model": "breaks-500", "messages": HI}, timeout=20)
    assert list(answer.json()) == ["error"]
    assert answer.headers["X-Error-Source"] == "model-server"


@pytest.mark.parametrize("model", ["cut-stream", "error-event"])
def test_ollama_client_raises_when_a_stream_fails_midway_and_the_text_is_stored(
    server: Server, llama: Client, model: str
) -> None:
    said: list[str | None] = []
    # The package has no parameter for fields of others.
    body = {"model": f"{model}:latest", "messages": HI, "session_id": f"ollama-{model}"}
    with pytest.raises(ResponseError) as failure:
        said.extend(
            part.message.content for part in llama._request(ChatResponse, "POST", "/api/chat", json=body, stream=True)
        )
    assert said == ["one"]
    assert failure.value.error
    assert _stored(server, f"ollama-{model}") == [("user", "Hi", "complete"), ("assistant", "one", "interrupted")]
    raw = requests.post(f"{server.url}/api/chat", json=body, timeout=20)
    first, last = map(orjson.loads, raw.content.splitlines())
    assert (raw.status_code, raw.headers["Content-Type"]) == (200, "application/x-ndjson")
    assert (first["message"]["content"], list(last)) == ("one", ["error"])


def test_ollama_stream_brings_each_tool_call_whole(llama: Client) -> None:
    parts = list(llama.chat("calls-tools", HI, stream=True))
    assert [part.message.content for part in parts] == ["Well.", "", ""]
    calls = parts[1].message.tool_calls or []
    assert [(call.function.name, call.function.arguments) for call in calls] == [("add", {"x": 1}), ("stop", {})]
    assert (parts[2].done, parts[2].prompt_eval_count, parts[2].eval_count) == (True, 7, 9)


def test_ollama_list_names_the_models_of_another_engine(server: Server, llama: Client) -> None:
    names = [model.model for model in llama.list().models]
    assert "fine:latest" in names
    shown = llama.show("fine")
    assert shown.capabilities == ["completion", "tools"]
    assert (shown.details and shown.details.family, shown.modelinfo) == ("", {"general.architecture": "unknown"})
    whole = llama.chat("fine:latest", HI)
    assert (whole.message.content, whole.done_reason, whole.eval_count) == ("fine", "stop", 1)


@pytest.mark.parametrize(
    ("model", "code"),
    [("silent-stream", "model_timeout"), ("cut-stream", "model_server_error"), ("no-done", "model_server_error")],
)
def test_llama_cpp_completion_stream_that_fails_ends_with_the_error(server: Server, model: str, code: str) -> None:
    session_id = f"native-{model}"
    body = {"model": model, "prompt": "Hi", "stream": True, "session_id": session_id}
    answer = requests.post(f"{server.url}/completion", json=body, timeout=20)
    first, last = [orjson.loads(event[6:]) for event in answer.content.split(b"\n\n") if event]
    assert first["content"] == "one"
    assert_error_shape(last, code=code)
    assert _stored(server, session_id) == [("user", "Hi", "complete"), ("assistant", "one", "interrupted")]


def test_apply_template_reports_a_model_server_failure(server: Server) -> None:
    for model, code in (("garbage", "model_server_error"), ("silent", "model_timeout")):
        body = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
        answer = requests.post(f"{server.url}/apply-template", json=body, timeout=20)
        assert answer.status_code == (504 if code == "model_timeout" else 502)
        assert_error_shape(answer.json(), code=code)
