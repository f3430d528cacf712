"""The examples of the description that this project began from: each works as it stands there, on embedded defaults.

They name a model that only some installations have; on others the demo model answers for it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import psycopg2.extensions
import pytest
import requests

from mistral_api.model_files.served_model import demo_model_path, stand_in_names
from mistral_api.settings import Settings, load_settings
from tests.support.processes import Server, running_api, wait_for

DEMO = demo_model_path().stem
NAMED = "mistral-7b-instruct"
CHAT = """
{
  "messages": [
    {"role": "user", "content": "Hello, how are you?"}
  ],
  "model": "mistral-7b-instruct",
  "temperature": 0.7,
  "max_tokens": 300,
  "session_id": "optional-session-id"
}
"""
COMPLETION = """
{
  "prompt": "The capital of France is",
  "model": "mistral-7b-instruct",
  "temperature": 0.7,
  "max_tokens": 100
}
"""
PYTHON = """
import requests

response = requests.post("http://localhost:9000/v1/chat/completions", json={
    "messages": [
        {"role": "user", "content": "Explain quantum computing"}
    ],
    "temperature": 0.7,
    "max_tokens": 500,
    "session_id": "my-session"
})

result = response.json()
print(result["choices"][0]["message"]["content"])
"""
CURL = """
curl -X POST "http://localhost:9000/v1/chat/completions" \\
     -H "Content-Type: application/json" \\
     -d '{
       "messages": [{"role": "user", "content": "Hello"}],
       "temperature": 0.7,
       "max_tokens": 100
     }'
"""
ENVIRONMENT = """
# Database
DATABASE_URL=postgresql://username:password@hostname:port/database_name

# API Server
API_HOST=0.0.0.0
API_PORT=9000

# Model Server
MODEL_SERVER_HOST=127.0.0.1
MODEL_SERVER_PORT=8081

# GPU Settings (RTX 3050)
GPU_LAYERS=20
CONTEXT_SIZE=32768
BATCH_SIZE=2048
THREADS=8
"""


def _for_server(server: Server, example: str) -> str:
    assert "http://localhost:9000" in example
    return example.replace("http://localhost:9000", f"http://localhost:{server.api_port}")


def _post(server: Server, path: str, body: str) -> requests.Response:
    return requests.post(server.url + path, data=body, headers={"Content-Type": "application/json"}, timeout=120)


def test_the_chat_completion_is_answered_by_the_model_that_is_there(server: Server, http: requests.Session) -> None:
    answer = _post(server, "/v1/chat/completions", CHAT)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["object"], body["model"], body["session_id"]) == ("chat.completion", DEMO, "optional-session-id")
    said = body["choices"][0]["message"]["content"]
    assert said.strip()
    history = http.get(f"{server.url}/v1/conversations/optional-session-id?limit=10", timeout=10).json()
    assert [(each["role"], each["content"]) for each in history["messages"][-2:]] == [
        ("user", "Hello, how are you?"),
        ("assistant", said),
    ]
    assert history["messages"][-1]["model"] == DEMO


def test_the_completion_is_answered_by_the_model_that_is_there(server: Server) -> None:
    answer = _post(server, "/v1/completions", COMPLETION)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["object"], answer.json()["model"]) == ("text_completion", DEMO)
    assert answer.json()["choices"][0]["text"].strip()


@pytest.mark.slow  # it asks for 500 tokens
def test_the_python_client_prints_the_answer(server: Server, tmp_path: Path) -> None:
    script = tmp_path / "client.py"
    script.write_text(_for_server(server, PYTHON))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert server.stored_messages("my-session")[-1]["content"].strip() == done.stdout.strip() != ""


def test_the_curl_command_shows_the_answer(server: Server) -> None:
    command = ["/bin/sh", "-c", _for_server(server, CURL)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert orjson.loads(done.stdout)["choices"][0]["message"]["content"].strip()


def test_the_bare_address_says_what_is_there(server: Server) -> None:
    command = ["curl", "-s", f"http://localhost:{server.api_port}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    assert orjson.loads(done.stdout)["docs"] == "/docs"
    assert requests.head(server.url, timeout=10).status_code == 200
    page = requests.get(server.url, headers={"Accept": "text/html,*/*;q=0.8"}, timeout=10)
    assert (page.status_code, page.url, "swagger-ui" in page.text) == (200, f"{server.url}/docs", True)


def test_health_statistics_and_tables_are_where_they_are_said_to_be(
    server: Server, http: requests.Session, database: psycopg2.extensions.cursor
) -> None:
    assert http.get(f"{server.url}/health", timeout=10).json()["status"] == "ok"
    body = {"messages": [{"role": "user", "content": "Hi"}], "model": NAMED, "max_tokens": 1}
    sent = http.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)

    def recorded() -> Any:
        query = "SELECT model, status FROM api_usage WHERE request_id = %s"
        database.execute(query, (sent.headers["X-Request-Id"],))
        return database.fetchone()

    # Statistics know the model that answered by its own name.
    assert tuple(wait_for(recorded, "the usage row").values()) == (DEMO, 200)
    stats = http.get(f"{server.url}/v1/stats?hours=24", timeout=20).json()
    assert (stats["window"]["hours"], stats["requests"]["succeeded"] > 0) == (24, True)
    assert NAMED not in [each["model"] for each in stats["by_model"]]
    assert NAMED not in http.get(f"{server.url}/metrics", timeout=20).text
    database.execute("SELECT session_id FROM conversations LIMIT 1")
    assert database.fetchone()


def test_the_list_of_models_has_what_is_served_alone(server: Server, http: requests.Session) -> None:
    listed = http.get(f"{server.url}/v1/models", timeout=10).json()["data"]
    assert [each["id"] for each in listed] == [DEMO]
    assert http.get(f"{server.url}/v1/models/{NAMED}", timeout=10).json()["id"] == DEMO
    unknown = http.post(f"{server.url}/v1/chat/completions", json=orjson.loads(CHAT) | {"model": "gpt-4o"}, timeout=10)
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/responses", {"input": "Hi", "max_output_tokens": 1}),
        ("/v1/messages", {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}),
        ("/completion", {"prompt": "Hi", "n_predict": 1}),
    ],
)
def test_the_model_stands_in_on_every_api(server: Server, path: str, body: dict[str, Any]) -> None:
    answer = requests.post(server.url + path, json=body | {"model": NAMED}, timeout=60)
    assert (answer.status_code, answer.json().get("model")) == (200, DEMO), answer.text


def test_only_the_demo_model_stands_in_for_the_one_of_the_examples() -> None:
    assert stand_in_names(Settings()) == {NAMED, f"{DEMO}:latest"}
    assert stand_in_names(Settings(model_path=Path("mine.gguf"))) == {"mine:latest"}
    assert stand_in_names(Settings(model_server_url="http://192.0.2.1:8080")) == frozenset()


def test_every_setting_of_the_example_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    given = dict(re.findall(r"^([A-Z_]+)=(.*)$", ENVIRONMENT, re.MULTILINE))
    # The server says of the template that it is one.
    given["DATABASE_URL"] = "postgresql://ada:secret@db.example.com:5432/records"
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    read = {name: str(getattr(settings, name.lower())) for name in given}
    assert read == given | {"DATABASE_URL": given["DATABASE_URL"].replace("://", "+psycopg2://")}


def test_any_model_answers_whatever_name_a_request_has(server: Server, data_dir: Path) -> None:
    settings = server.model_settings | {"ANY_MODEL": "true", "DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none"}
    hello = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    with running_api(data_dir, **settings) as api:
        for path, body in (("/v1/chat/completions", hello), ("/v1/messages", hello), ("/tokenize", {"content": "Hi"})):
            answer = requests.post(api.url + path, json=body | {"model": "gpt-4o"}, timeout=60)
            assert (answer.status_code, answer.json().get("model", DEMO)) == (200, DEMO), answer.text
        assert requests.get(f"{api.url}/v1/models/gpt-4o", timeout=10).json()["id"] == DEMO
        other = {"model": "llama3:8b", "stream": False}
        answer = requests.post(f"{api.url}/api/chat", json=hello | other, timeout=60)
        assert (answer.status_code, answer.json()["model"]) == (200, "llama3:8b")
        shown = requests.post(f"{api.url}/api/show", json=other, timeout=10)
        assert DEMO in shown.json()["modelfile"]
        assert requests.post(f"{api.url}/api/pull", json=other, timeout=10).json() == {"status": "success"}
        assert [each["id"] for each in requests.get(f"{api.url}/v1/models", timeout=10).json()["data"]] == [DEMO]
