"""The doors of a running server: which hosts it answers to, and which web pages may send it requests."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import requests
from flask import Flask

from mistral_api.web import BLUEPRINTS
from tests.support.error_shape import assert_error_shape
from tests.support.processes import Server, running_api

NAMED = "http://localhost:3000"
FOREIGN = "https://evil.example"
CHAT = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization, content-type"}


@pytest.fixture(scope="module")
def open_server(server: Server) -> Iterator[Server]:
    """The API under ``waitress-serve``, with named origins and a named host."""
    settings = {"CORS_ORIGINS": f"{NAMED}, http://[::1]:3000", "ALLOWED_HOSTS": "api.example.com"}
    with running_api(server.data_dir, MODEL_SERVER_PORT=str(server.model_port), **settings) as api:
        yield api


def _routes() -> list[tuple[str, str]]:
    app = Flask("mistral_api", static_folder=None)
    for blueprint in BLUEPRINTS:
        app.register_blueprint(blueprint)
    paths = [(rule.methods or set(), re.sub("<int:[^>]*>", "1", rule.rule)) for rule in app.url_map.iter_rules()]
    return [(method, re.sub("<[^>]*>", "x", path)) for methods, path in paths for method in sorted(methods)]


ROUTES = [*_routes(), ("GET", "/"), ("GET", "/no/such/path"), ("PUT", "/health")]


def _ask(server: Server, method: str, path: str, **headers: str) -> requests.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.request(method, server.url + path, headers=named, json={}, timeout=20)


def test_every_route_refuses_other_hosts_and_pages_of_other_origins(server: Server, open_server: Server) -> None:
    for each in (server, open_server):
        for method, path in ROUTES:
            for headers, status, code in (
                ({"Host": "evil.example"}, 421, "host_not_allowed"),
                ({"Host": ""}, 421, "host_not_allowed"),
                ({"Origin": FOREIGN}, 403, "origin_not_allowed"),
                ({"Sec_Fetch_Site": "cross-site"}, 403, "origin_not_allowed"),
            ):
                answer = _ask(each, method, path, **headers)
                assert answer.status_code == status, (method, path, headers)
                assert "Access-Control-Allow-Origin" not in answer.headers
                if method != "HEAD" and isinstance(answer.json().get("error"), dict):  # Ollama's is a sentence
                    assert answer.json()["error"].get("code", code) == code


def test_page_of_another_site_cannot_write_into_a_conversation(server: Server) -> None:
    url, session = f"{server.url}/v1/chat/completions", "written-by-a-page"
    for headers in ({"Origin": FOREIGN}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = requests.post(
            url,
            data=b'{"messages": [{"role": "user", "content": "x"}], "session_id": "%s"}' % session.encode(),
            headers={"Content-Type": "text/plain"} | headers,
            timeout=20,
        )
        assert_error_shape(answer.json(), code="origin_not_allowed")
    assert requests.get(f"{server.url}/v1/conversations/{session}", timeout=20).status_code == 404


def test_program_without_a_content_type_is_served(server: Server) -> None:
    body = b'{"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}'
    headers = {"Content-Type": "application/x-www-form-urlencoded"}  # as `curl -d` sends it
    answer = requests.post(f"{server.url}/v1/chat/completions", data=body, headers=headers, timeout=60)
    assert answer.status_code == 200


def test_link_of_another_site_to_our_page_may_be_followed(server: Server) -> None:
    visit = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert requests.get(f"{server.url}/docs", headers=visit, timeout=20).status_code == 200
    assert requests.get(f"{server.url}/v1/models", headers=visit, timeout=20).status_code == 403


def test_pages_of_named_origins_are_told_that_they_may(open_server: Server) -> None:
    for origin in (NAMED, "http://[::1]:3000"):
        preflight = _ask(open_server, "OPTIONS", "/v1/chat/completions", Origin=origin, **PREFLIGHT)
        assert preflight.status_code == 200
        assert preflight.headers["Access-Control-Allow-Origin"] == origin
        assert preflight.headers["Access-Control-Allow-Credentials"] == "true"
        assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
        assert preflight.headers["Access-Control-Allow-Headers"] == "authorization, content-type"
        answer = requests.post(
            f"{open_server.url}/v1/chat/completions", json=CHAT, headers={"Origin": origin}, timeout=60
        )
        assert answer.status_code == 200
        assert answer.headers["Access-Control-Allow-Origin"] == origin
        assert "X-Session-Id" in answer.headers["Access-Control-Expose-Headers"]
        assert "Origin" in answer.headers["Vary"]


def test_errors_and_streams_can_be_read_by_named_origins(open_server: Server) -> None:
    failed = _ask(open_server, "POST", "/v1/chat/completions", Origin=NAMED)
    assert (failed.status_code, failed.headers["Access-Control-Allow-Origin"]) == (400, NAMED)
    stream = requests.post(
        f"{open_server.url}/v1/chat/completions", json=CHAT | {"stream": True}, headers={"Origin": NAMED}, timeout=60
    )
    assert stream.headers["Access-Control-Allow-Origin"] == NAMED
    assert stream.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("origin", [FOREIGN, "http://localhost:3001", "https://localhost:3000", "null"])
def test_pages_of_other_origins_are_told_nothing(open_server: Server, origin: str) -> None:
    preflight = _ask(open_server, "OPTIONS", "/v1/chat/completions", Origin=origin, **PREFLIGHT)
    assert preflight.status_code == 403
    assert not [name for name in preflight.headers if name.lower().startswith("access-control-")]


def test_server_without_named_origins_tells_no_page_anything(server: Server) -> None:
    own = f"http://127.0.0.1:{server.api_port}"
    answer = _ask(server, "GET", "/v1/models", Origin=own)
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.lower().startswith("access-control-")]


def test_named_host_is_answered_but_gives_no_trust(open_server: Server) -> None:
    assert _ask(open_server, "GET", "/health/live", Host="api.example.com").status_code == 200
    answer = _ask(open_server, "GET", "/v1/models", Host="api.example.com")
    assert_error_shape(answer.json(), code="invalid_api_key")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
