"""The wall around the model servers: who reaches their ports, and what their processes know of us."""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from mistral_api.control.server_key import key_file
from mistral_api.control.server_spec import EMBEDDING_SERVER, MAIN_SERVER
from mistral_api.control.status import State, read_status
from mistral_api.model_files.served_model import demo_model_path
from mistral_api.settings import Settings
from mistral_api.supervisor.http_client import HttpClient
from tests.support.processes import Server, free_port, read_key, running_server, temporary_data_dir, wait_for

PAGE = "http://evil.example"
# A marker in each variable that a model server must not know. The last one looks like one of llama.cpp's.
MARKER = "M4rker-of-a-secret"
SECRETS = {
    "ADMIN_API_KEY": MARKER,
    "HF_TOKEN": MARKER,
    "OPENAI_API_KEY": MARKER,
    "AWS_SECRET_ACCESS_KEY": MARKER,
    "HTTP_PROXY": f"http://user:{MARKER}@127.0.0.1:9",
    "LLAMA_CLOUD_API_KEY": MARKER,
}
OWN_KEY = {"Authorization": f"Bearer {MARKER}"}
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
# What generates, shows or changes anything, by method and path.
CLOSED = [
    ("POST", "/completion"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/embeddings"),
    ("POST", "/tokenize"),
    ("POST", "/props"),
    ("POST", "/slots/0?action=save"),
    ("POST", "/slots/0?action=erase"),
    ("POST", "/lora-adapters"),
    ("POST", "/models/load"),
    ("GET", "/slots"),
    ("GET", "/props"),
    ("GET", "/metrics"),
    ("GET", "/v1/models"),
    ("GET", "/models"),
    ("GET", "/lora-adapters"),
    ("GET", "/"),
]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="reads /proc, and kills processes")


@pytest.fixture(scope="module")
def embedding_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def walled(embedding_port: int) -> Iterator[Server]:
    """A stack with both model servers, whose environment is full of secrets."""
    embedding = {"EMBEDDING_MODEL_PATH": str(demo_model_path()), "EMBEDDING_SERVER_PORT": str(embedding_port)}
    limits = {"CONTEXT_SIZE": "2048", "EMBEDDING_CONTEXT_SIZE": "256"}
    with temporary_data_dir() as data_dir, running_server(data_dir, **embedding, **limits, **SECRETS) as running:
        running.wait_for_embedding_server()
        yield running


def _addresses(walled: Server, embedding_port: int) -> list[str]:
    return [walled.model_url, f"http://127.0.0.1:{embedding_port}"]


@pytest.mark.parametrize("key", [None, "wrong", ""])
def test_local_user_without_the_key_gets_nothing_from_a_model_server(
    walled: Server, embedding_port: int, key: str | None
) -> None:
    headers = {} if key is None else {"Authorization": f"Bearer {key}", "X-Api-Key": key}
    for url in _addresses(walled, embedding_port):
        for method, path in CLOSED:
            answer = requests.request(method, url + path, json={"prompt": "x"}, headers=headers, timeout=10)
            assert answer.status_code == (404 if path == "/" else 401), (method, path, answer.text)
        health = requests.get(f"{url}/health", timeout=10)
        assert (health.status_code, health.json()) == (200, {"status": "ok"})  # all that remains


@pytest.mark.parametrize("origin", [PAGE, "http://localhost:3000", "null"])
def test_web_page_reads_nothing_and_generates_nothing_on_a_model_server(
    walled: Server, embedding_port: int, origin: str
) -> None:
    asking = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    for url in _addresses(walled, embedding_port):
        answers = [
            requests.options(f"{url}/v1/chat/completions", headers={"Origin": origin, **asking}, timeout=10),
            requests.get(f"{url}/health", headers={"Origin": origin}, timeout=10),
            requests.post(f"{url}/completion", data="{}", headers={"Origin": origin}, timeout=10),
        ]
        for answer in answers:
            assert answer.headers.get("Access-Control-Allow-Origin") not in (origin, "*")
            assert answer.headers.get("Access-Control-Allow-Credentials") != "true"
        assert answers[-1].status_code == 401


def _server_processes(data_dir: Path) -> list[psutil.Process]:
    found = []
    for server in (MAIN_SERVER, EMBEDDING_SERVER):
        status = read_status(data_dir, server)
        assert status is not None
        found.append(psutil.Process(status.pid))
    return found


def test_model_server_process_knows_no_setting_and_no_secret_but_its_own_key(walled: Server) -> None:
    main, embedding = _server_processes(walled.data_dir)
    for process, server in ((main, MAIN_SERVER), (embedding, EMBEDDING_SERVER)):
        environment, words = process.environ(), " ".join(process.cmdline())
        assert environment["LLAMA_API_KEY"] == read_key(walled.data_dir, server)
        assert MARKER not in repr(environment) + words
        assert read_key(walled.data_dir, server) not in words
        assert not {"DATABASE_URL", "DATA_DIR", "API_PORT", "THREADS", "MODEL_SERVER_PORT"} & environment.keys()
        assert environment["PATH"]
    assert read_key(walled.data_dir) != read_key(walled.data_dir, EMBEDDING_SERVER)


def test_key_is_the_owners_alone_and_in_no_log(walled: Server) -> None:
    for server in (MAIN_SERVER, EMBEDDING_SERVER):
        path, key = key_file(walled.data_dir, server), read_key(walled.data_dir, server)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert len(key) >= 43  # 256 bits
        assert key not in walled.log()
        for log in (walled.data_dir / "logs").iterdir():
            assert key not in log.read_text(errors="replace")


def test_restart_changes_the_key_and_requests_go_on(walled: Server, embedding_port: int) -> None:
    """A request that is sent while the server is away is answered by the next one, with its new key."""
    old = [read_key(walled.data_dir, server) for server in (MAIN_SERVER, EMBEDDING_SERVER)]
    for process in _server_processes(walled.data_dir):
        process.kill()
    answer = requests.post(f"{walled.url}/v1/chat/completions", json=HELLO, headers=OWN_KEY, timeout=60)
    assert answer.status_code == 200, answer.text
    embedded = requests.post(f"{walled.url}/v1/embeddings", json={"input": "Hi"}, headers=OWN_KEY, timeout=60)
    assert embedded.status_code == 200, embedded.text
    new = [read_key(walled.data_dir, server) for server in (MAIN_SERVER, EMBEDDING_SERVER)]
    assert not set(old) & set(new)
    for url, key in zip(_addresses(walled, embedding_port), old, strict=True):
        refused = requests.get(f"{url}/slots", headers={"Authorization": f"Bearer {key}"}, timeout=10)
        assert refused.status_code == 401
    wait_for(lambda: walled.health()["model_server"]["state"] == "ready", "a ready model server")
    assert walled.health()["model_server"]["slots"] == {"total": 4, "busy": 0}


def test_model_servers_listen_on_unix_sockets_alone(data_dir: Path) -> None:
    own = {"MODEL_SERVER_HOST": "unix", "EMBEDDING_SERVER_HOST": "unix", "CONTEXT_SIZE": "2048"}
    with running_server(data_dir, EMBEDDING_MODEL_PATH=str(demo_model_path()), **own) as running:
        running.wait_for_embedding_server()
        for process in _server_processes(data_dir):
            assert not [each for each in process.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
        assert _generates(running)
        status = read_status(data_dir)
        assert status is not None
        assert status.url == f"unix://{data_dir}/run/model-server.sock"

        settings = Settings(data_dir=data_dir, model_server_host="unix", model_server_api_key="wrong")
        assert HttpClient(settings).request("GET", "/slots", seconds=5)[0] == 401

        psutil.Process(status.pid).kill()  # which leaves the socket's file behind
        assert _generates(running)
        after = read_status(data_dir)
        assert after is not None
        assert (after.state, after.restarts) == (State.READY, 1)


def _generates(running: Server) -> bool:
    asked = [("/v1/chat/completions", HELLO), ("/v1/embeddings", {"input": "Hi"})]
    answers = [requests.post(running.url + path, json=body, timeout=60) for path, body in asked]
    return [each.status_code for each in answers] == [200, 200]


def test_key_of_the_operator_is_used_by_a_supervised_server(data_dir: Path) -> None:
    with running_server(data_dir, MODEL_SERVER_API_KEY="of-the-operator", CONTEXT_SIZE="2048") as running:
        assert requests.post(f"{running.url}/v1/chat/completions", json=HELLO, timeout=60).status_code == 200
        for key, status in (("of-the-operator", 200), ("another", 401)):
            answer = requests.get(f"{running.model_url}/slots", headers={"X-Api-Key": key}, timeout=10)
            assert answer.status_code == status
