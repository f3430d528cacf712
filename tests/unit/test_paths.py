"""Every spelling of a path leads to the one name that it is routed, limited and measured by."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from mistral_api.security.access import Caller
from mistral_api.services import EXTENSION
from mistral_api.web import BLUEPRINTS
from mistral_api.web.errors import handle_errors
from mistral_api.web.openapi_document import build_document
from mistral_api.web.paths import answer_spellings
from mistral_api.web.request import register_request_ids
from mistral_api.wire.paths import ALIASES, canonical_path

CALLER = Caller("local", "127.0.0.1", local=True)


def _application() -> Flask:
    app = Flask("mistral_api", static_folder=None)
    for blueprint in BLUEPRINTS:
        app.register_blueprint(blueprint)
    register_request_ids(app)
    handle_errors(app)
    answer_spellings(app)
    app.extensions[EXTENSION] = SimpleNamespace(audit_log=SimpleNamespace(note=lambda *_: None))
    return app


APP = _application()
PATHS = sorted({rule.rule for rule in APP.url_map.iter_rules()})


@pytest.mark.parametrize("path", PATHS)
def test_every_route_has_its_own_name_and_is_found_with_slashes_too(path: str) -> None:
    assert canonical_path(path) == path
    assert canonical_path(f"{path}/") == path
    assert canonical_path(f"/{path}//") == path


@pytest.mark.parametrize(
    ("spelling", "path"),
    [
        *ALIASES.items(),
        ("/models/a/b", "/v1/models/a/b"),
        ("/responses/resp_1/cancel/", "/v1/responses/resp_1/cancel"),
        ("/responses/input_tokens", "/v1/responses/input_tokens"),
        ("/chat/completions/x/messages", "/v1/chat/completions/x/messages"),
    ],
)
def test_an_alias_leads_to_the_path_it_stands_for(spelling: str, path: str) -> None:
    assert canonical_path(spelling) == canonical_path(f"{spelling}/") == path


@pytest.mark.parametrize("path", ["/completions", "/completion", "/models/load", "/models/unload", "/modelsx", "/chat"])
def test_paths_of_llama_cpp_keep_their_meaning(path: str) -> None:
    assert canonical_path(path) == path


@given(st.text(st.sampled_from("/v1modelschat.rernkig"), max_size=30))
def test_a_name_is_its_own_name(path: str) -> None:
    name = canonical_path("/" + path)
    assert canonical_path(name) == name
    assert name.startswith("/")
    assert name == "/" or not name.endswith("/")


@pytest.mark.parametrize("path", PATHS)
def test_options_are_answered_without_a_body(path: str) -> None:
    concrete = path.replace("<int:slot>", "0").replace("<path:model_id>", "m")
    answer = APP.test_client().options(f"{concrete.replace('<', '').replace('>', '')}/")
    assert (answer.status_code, answer.data) == (204, b"")
    assert "OPTIONS" in answer.headers["Allow"]
    assert "Content-Type" not in answer.headers


def test_aliases_are_named_once_in_the_document() -> None:
    document = build_document(APP)
    assert not set(ALIASES) & set(document["paths"])
    assert all(alias in document["info"]["description"] for alias in ALIASES)
    assert set(ALIASES.values()) <= set(document["paths"])


BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "application/json, text/plain, */*"])
def test_programs_are_told_what_the_server_is(accept: str | None) -> None:
    answer = APP.test_client().get("/", headers={} if accept is None else {"Accept": accept})
    assert answer.status_code == 200
    body: dict[str, Any] = answer.get_json()
    assert list(body) == ["name", "version", "docs", "openapi", "health"]
    assert (body["docs"], body["openapi"], body["health"]) == ("/docs", "/openapi.json", "/health")


def test_a_browser_is_led_to_the_page() -> None:
    answer = APP.test_client().get("/", headers={"Accept": BROWSER})
    assert (answer.status_code, answer.headers["Location"]) == (302, "docs")
    assert "Accept" in answer.headers["Vary"]


@pytest.mark.parametrize("accept", ["*/*", BROWSER])
def test_whoever_looks_whether_somebody_is_there_finds_somebody(accept: str) -> None:
    answer = APP.test_client().head("/", headers={"Accept": accept})
    assert (answer.status_code, answer.data) == (200, b"")
