"""The ``ollama`` package, unchanged, against the real engine: what only knows Ollama works by changing an address."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Literal

import orjson
import psycopg2.extensions
import pytest
import requests
from ollama import AsyncClient, ChatResponse, Client, ResponseError
from pydantic import BaseModel

from tests.support.processes import Server, wait_for

MODEL = "SmolLM2-135M-Instruct.Q4_1:latest"
FRANCE = [
    {"role": "system", "content": "Answer in one sentence."},
    {"role": "user", "content": "What is the capital of France?"},
]
GREEDY = {"temperature": 0, "num_predict": 12, "num_ctx": 4096}


class Weather(BaseModel):
    """What a client wants to be told."""

    kind: Literal["rain", "sun"]
    degrees: int


@pytest.fixture
def llama(server: Server) -> Iterator[Client]:
    """The package pointed at the server."""
    with Client(host=server.url, timeout=60) as made:
        yield made


def _post(server: Server, path: str, **body: Any) -> requests.Response:
    """Send what the package has no parameter for."""
    return requests.post(f"{server.url}/api/{path}", json={"model": MODEL} | body, timeout=60)


def test_ollama_chat_is_answered_measured_and_recorded(
    server: Server, session_id: str, database: psycopg2.extensions.cursor
) -> None:
    raw = _post(server, "chat", messages=FRANCE, options=GREEDY, stream=False, session_id=session_id)
    answer = ChatResponse(**raw.json())
    assert "Paris" in (answer.message.content or "")
    assert (answer.model, answer.message.role, answer.done) == (MODEL, "assistant", True)
    assert answer.done_reason in ("stop", "length")
    assert answer.total_duration
    parts = (answer.load_duration or 0) + (answer.prompt_eval_duration or 0) + (answer.eval_duration or 0)
    assert abs(answer.total_duration - parts) <= 2
    assert answer.eval_duration > 1_000_000  # type: ignore[operator]  # in nanoseconds, by llama.cpp's own clock
    assert (raw.json()["session_id"], raw.headers["X-Session-Id"]) == (session_id, session_id)
    stored = server.stored_messages(session_id)
    assert [(each["role"], each["content"]) for each in stored] == [
        *((each["role"], each["content"]) for each in FRANCE),
        ("assistant", answer.message.content),
    ]

    def usage() -> Any:
        database.execute("SELECT * FROM api_usage WHERE session_id = %s", (session_id,))
        return database.fetchone()

    row = wait_for(usage, "the row of the request")
    assert (row["endpoint"], row["status"], row["stream"]) == ("/api/chat", 200, False)
    assert (row["prompt_tokens"], row["completion_tokens"]) == (answer.prompt_eval_count, answer.eval_count)
    assert row["model"] == MODEL.removesuffix(":latest")


def test_ollama_stream_says_the_same_as_the_whole(llama: Client) -> None:
    whole = llama.chat(MODEL, FRANCE, options=GREEDY)
    parts = list(llama.chat(MODEL, FRANCE, options=GREEDY, stream=True, keep_alive="5m", think=False))
    assert "".join(part.message.content or "" for part in parts) == whole.message.content
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    last = parts[-1]
    assert (last.done_reason, last.eval_count) == (whole.done_reason, whole.eval_count)
    assert last.prompt_eval_count == whole.prompt_eval_count
    assert all(datetime.fromisoformat(part.created_at or "").tzinfo is not None for part in parts)


async def test_ollama_async_client_streams_and_lists(server: Server) -> None:
    async with AsyncClient(host=server.url, timeout=60) as llama:
        assert [model.model for model in (await llama.list()).models] == [MODEL]
        parts = [part async for part in await llama.chat(MODEL, FRANCE, options=GREEDY, stream=True)]
    assert "Paris" in "".join(part.message.content or "" for part in parts)


def test_ollama_client_that_sends_its_history_again_continues_its_conversation(server: Server, llama: Client) -> None:
    asked = [{"role": "user", "content": "Name a colour of the rainbow."}]
    first = _post(server, "chat", messages=asked, options=GREEDY, stream=False)
    turns = [*asked, first.json()["message"], {"role": "user", "content": "Name another."}]
    with requests.post(
        f"{server.url}/api/chat", json={"model": MODEL, "messages": turns, "options": GREEDY}, timeout=60, stream=True
    ) as second:
        assert second.headers["Content-Type"] == "application/x-ndjson"
        assert second.headers["X-Session-Id"] == first.json()["session_id"]
        assert [orjson.loads(line)["done"] for line in second.iter_lines()][-1] is True
    stored = server.stored_messages(first.json()["session_id"])
    assert [each["role"] for each in stored] == ["user", "assistant", "user", "assistant"]


def test_ollama_session_of_a_header_is_kept(server: Server, session_id: str) -> None:
    with Client(host=server.url, timeout=60, headers={"X-Session-Id": session_id}) as llama:
        llama.chat("smollm2", [{"role": "user", "content": "Hello"}], options={"num_predict": 2})
    assert server.stored_messages(session_id)[0]["content"] == "Hello"


def test_ollama_format_is_kept_to(llama: Client) -> None:
    asked = [{"role": "user", "content": "How is the weather?"}]
    options = {"temperature": 0, "num_predict": 40}
    answer = llama.chat(MODEL, asked, format=Weather.model_json_schema(), options=options)
    assert Weather.model_validate_json(answer.message.content or "")
    parts = llama.generate(MODEL, "Weather?", format=Weather.model_json_schema(), options=options, stream=True)
    assert Weather.model_validate_json("".join(part.response or "" for part in parts))


def test_ollama_tool_round_trip_is_stored_as_tool_messages(server: Server, session_id: str) -> None:
    def get_weather(city: str) -> str:
        """Tell the weather.

        Args:
          city: Where.
        """
        return f"Rain in {city}."

    turns: list[Any] = [
        {"role": "user", "content": "How is the weather in Paris?"},
        {"role": "assistant", "tool_calls": [{"function": {"name": "get_weather", "arguments": {"city": "Paris"}}}]},
        {"role": "tool", "content": get_weather("Paris"), "tool_name": "get_weather"},
    ]
    with Client(host=server.url, timeout=60, headers={"X-Session-Id": session_id}) as llama:
        llama.chat(MODEL, turns, tools=[get_weather], options={"num_predict": 4})
    stored = server.stored_messages(session_id)
    assert [each["role"] for each in stored] == ["user", "assistant", "tool", "assistant"]
    assert stored[1]["tool_calls"][0]["function"] == {"name": "get_weather", "arguments": '{"city":"Paris"}'}
    assert stored[2]["content"] == "Rain in Paris."


def test_ollama_completion_continues_from_its_context(server: Server, llama: Client) -> None:
    first = llama.generate(MODEL, "My name is Ada.", system="Be brief.", options=GREEDY)
    assert first.response
    assert first.context
    parts = list(llama.generate(MODEL, "What is my name?", context=first.context, options=GREEDY, stream=True))
    assert len(parts[-1].context or []) > len(first.context)
    assert parts[-1].prompt_eval_count > first.prompt_eval_count  # type: ignore[operator]
    raw = _post(server, "generate", prompt="And now?", context=parts[-1].context, options=GREEDY, stream=False)
    stored = server.stored_messages(raw.json()["session_id"])
    assert [each["role"] for each in stored] == ["system", *["user", "assistant"] * 3]
    assert stored[1]["content"] == "My name is Ada."


def test_ollama_raw_and_templated_prompts_are_taken_as_they_are(server: Server, llama: Client) -> None:
    raw = llama.generate(MODEL, "The capital of France is", raw=True, options=GREEDY, logprobs=True, top_logprobs=2)
    assert "Paris" in (raw.response or "")
    assert raw.context is None
    assert [len(each.top_logprobs or []) for each in raw.logprobs or []] == [2] * (raw.eval_count or 0)
    template = "{{ if .System }}{{ .System }}\n{{ end }}The capital of {{ .Prompt }} is{{ .Response }}"
    filled = llama.generate(MODEL, "France", template=template, options=GREEDY)
    assert (filled.response, filled.prompt_eval_count) == (raw.response, raw.prompt_eval_count)
    chat = llama.chat(MODEL, FRANCE, options=GREEDY, logprobs=True, top_logprobs=1)
    assert "".join(each.token for each in chat.logprobs or []) == chat.message.content
    with pytest.raises(ResponseError, match="Infill is not supported"):
        llama.generate(MODEL, "def f(", suffix="return", options=GREEDY)


def test_ollama_chat_that_is_too_long_loses_its_oldest_turns_unless_it_may_not(server: Server) -> None:
    long = [{"role": "user", "content": "word " * 2100}, {"role": "assistant", "content": "Well."}]
    fields: dict[str, Any] = {"messages": [FRANCE[0], *long, FRANCE[1]], "options": GREEDY, "stream": False}
    answer = _post(server, "chat", **fields)
    assert answer.status_code == 200, answer.text
    assert "Paris" in answer.json()["message"]["content"]
    assert answer.json()["prompt_eval_count"] < 100
    refused = _post(server, "chat", **fields, truncate=False)
    assert refused.status_code == 400
    assert "maximum context length" in refused.json()["error"]


def test_ollama_probes_load_and_unload_without_generating(
    server: Server, llama: Client, database: psycopg2.extensions.cursor
) -> None:
    loaded, unloaded = llama.chat(MODEL, []), llama.generate(MODEL, keep_alive=0)
    assert (loaded.done_reason, loaded.message.content, loaded.done) == ("load", "", True)
    assert (unloaded.done_reason, unloaded.response) == ("unload", "")
    assert llama.ps().models
    answer = _post(server, "generate", keep_alive="0s")
    assert answer.json()["done_reason"] == "unload"

    def usage() -> Any:
        database.execute("SELECT * FROM api_usage WHERE request_id = %s", (answer.headers["X-Request-Id"],))
        return database.fetchone()

    row = wait_for(usage, "the row of the request")
    assert (row["endpoint"], row["status"], row["session_id"]) == ("/api/generate", 200, None)
    assert row["completion_tokens"] is None


def test_ollama_model_is_listed_shown_and_running(server: Server, llama: Client) -> None:
    (listed,), (running,) = llama.list().models, llama.ps().models
    assert listed.model == running.model == MODEL
    assert listed.size == running.size
    assert listed.digest == running.digest
    assert (running.size_vram, running.context_length) == (0, 2048)
    assert running.expires_at
    assert running.expires_at > datetime.now(UTC)
    for name in (MODEL, "smollm2:135m"):
        shown = llama.show(name)
        details, info = shown.details, shown.modelinfo or {}
        assert details is not None
        assert (details.format, details.family, details.parameter_size) == ("gguf", "llama", "134.52M")
        assert (info["general.architecture"], info["llama.context_length"]) == ("llama", 2048)
        assert "completion" in (shown.capabilities or [])
        assert "num_ctx                        2048" in (shown.parameters or "")
        assert "<|im_start|>" in (shown.template or "")
        assert f"FROM {MODEL}" in (shown.modelfile or "")
        assert str(server.data_dir.parent) not in shown.model_dump_json()
    # Some programs read this list, and then ask OpenAI's API for the model.
    body = {"model": MODEL, "messages": FRANCE, "max_tokens": 2}
    assert requests.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).status_code == 200
    version = requests.get(f"{server.url}/api/version", timeout=10).json()["version"]
    assert tuple(map(int, version.split("."))) >= (0, 6, 4)  # the least that GitHub Copilot takes
    for path in ("tags", "version", "ps"):
        assert requests.head(f"{server.url}/api/{path}", timeout=10).status_code == 200


def test_ollama_errors_are_one_sentence_with_the_status(server: Server, llama: Client) -> None:
    for stream in (False, True):
        with pytest.raises(ResponseError, match=r"not found.*'nope'") as missing:
            list(llama.chat("nope", FRANCE, stream=stream))
        assert missing.value.status_code == 404
    with pytest.raises(ResponseError, match=r"options\.temperature") as wrong:
        llama.chat(MODEL, FRANCE, options={"temperature": 9})
    assert wrong.value.status_code == 400
    images = [{"role": "user", "content": "Look", "images": [b"\x89PNG\r\n"]}]
    with pytest.raises(ResponseError, match=r"image input is not supported|takes no images"):
        llama.chat(MODEL, images)
    with pytest.raises(ResponseError, match="makes no embeddings"):
        llama.embed(MODEL, "text")
    assert list(llama.embed(MODEL, []).embeddings) == []
    for method, path, status in (("GET", "nothing", 404), ("GET", "chat", 405), ("POST", "chat", 400)):
        answer = requests.request(method, f"{server.url}/api/{path}", timeout=10)
        assert (answer.status_code, list(answer.json())) == (status, ["error"])


def test_ollama_pull_succeeds_for_the_model_that_is_served_and_nothing_changes_models(llama: Client) -> None:
    assert llama.pull(MODEL).status == "success"
    assert [progress.status for progress in llama.pull("smollm2", stream=True)] == ["success"]
    changes: list[Callable[[], object]] = [
        lambda: llama.pull("llama3.2"),
        lambda: llama.push(MODEL),
        lambda: llama.create("mine", from_=MODEL),
        lambda: llama.copy(MODEL, "mine"),
        lambda: llama.delete(MODEL),
    ]
    for change in changes:
        with pytest.raises(ResponseError, match=r"This server .*MODEL_PATH") as refused:
            change()
        assert refused.value.status_code == 400


def test_ollama_file_of_a_model_is_not_there(server: Server, http: requests.Session) -> None:
    found = http.head(f"{server.url}/api/blobs/sha256:{'0' * 64}", timeout=10)
    assert (found.status_code, found.content) == (404, b"")
