"""Requests that change the model server: allowed for the owner on this machine, refused for web pages."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from tests.support.error_shape import assert_error_shape
from tests.support.processes import Server

CHANGES = [
    ("GET", "/slots"),
    ("POST", "/slots/0?action=erase"),
    ("POST", "/slots/0?action=save"),
    ("POST", "/slots/0?action=restore"),
    ("POST", "/props"),
    ("GET", "/lora-adapters"),
    ("POST", "/lora-adapters"),
    ("POST", "/models/load"),
    ("POST", "/models/unload"),
]
STRANGERS = {
    "through a proxy": ({"X-Forwarded-For": "203.0.113.7"}, 401, "invalid_api_key"),
    "through another proxy": ({"Forwarded": "for=203.0.113.7"}, 401, "invalid_api_key"),
    "under a name that leads here": ({"Host": "rebound.example.com"}, 421, "host_not_allowed"),
    "from a web page": ({"Origin": "https://example.com"}, 403, "origin_not_allowed"),
    "from a page of this machine": ({"Origin": "http://127.0.0.1:3000"}, 403, "origin_not_allowed"),
    "from a file": ({"Origin": "null"}, 403, "origin_not_allowed"),
}


def _ask(server: Server, method: str, path: str, body: Any = None, **headers: str) -> requests.Response:
    return requests.request(method, server.url + path, json={} if body is None else body, headers=headers, timeout=20)


@pytest.mark.parametrize("stranger", STRANGERS)
def test_admin_requests_from_proxies_other_hosts_and_web_pages_are_refused(server: Server, stranger: str) -> None:
    headers, status, code = STRANGERS[stranger]
    for method, path in CHANGES:
        answer = _ask(server, method, path, **headers)
        assert answer.status_code == status, path
        assert_error_shape(answer.json(), code=code, type="invalid_request_error")


def test_admin_requests_of_programs_need_no_content_type(server: Server) -> None:
    answer = requests.post(
        f"{server.url}/slots/0?action=erase", data="{}", headers={"Content-Type": "text/plain"}, timeout=20
    )
    assert answer.status_code == 200


def test_slots_are_listed_saved_erased_and_restored(server: Server) -> None:
    requests.post(f"{server.url}/completion", json={"prompt": "Once upon", "n_predict": 4, "id_slot": 2}, timeout=60)
    slots = _ask(server, "GET", "/slots").json()
    assert [slot["id"] for slot in slots] == [0, 1, 2, 3]
    saved = _ask(server, "POST", "/slots/2?action=save", {"filename": "mine.bin"}).json()
    assert saved["n_saved"] > 0
    assert (server.data_dir / "slots" / "mine.bin").stat().st_size == saved["n_written"]
    erased = _ask(server, "POST", "/slots/2?action=erase").json()
    assert erased["n_erased"] == saved["n_saved"]
    restored = _ask(server, "POST", "/slots/2?action=restore", {"filename": "mine.bin"}).json()
    assert restored["n_restored"] == saved["n_saved"]


@pytest.mark.parametrize(
    "name",
    [
        *("../mine.bin", "/etc/passwd", "a/b", "..", ".", ".hidden", "", "a\0b", "a\n", "mine.bin\0/../x"),
        *(
            "..\\mine.bin",
            "a\\b",
            "C:mine.bin",
            "C:\\mine.bin",
            "\\\\host\\share",
            "a:stream",
            "%2e%2e%2fa",
            "\uff0e\uff0e\uff0fa",
        ),
        *("a.kv", "caches.json", "a.forgotten"),  # the supervisor's own
    ],
)
def test_slot_save_and_restore_refuse_foreign_file_names(server: Server, name: str) -> None:
    for action in ("save", "restore"):
        answer = _ask(server, "POST", f"/slots/0?action={action}", {"filename": name})
        assert answer.status_code == 400
        assert_error_shape(answer.json(), param="filename", code="invalid_value")


def test_request_opens_no_file_as_a_lora_adapter(server: Server) -> None:
    """llama.cpp knows adapters by their number alone, and has none here; a path beside it means nothing."""
    adapters = [{"id": 0, "scale": 1.0, "path": "/etc/passwd"}, {"path": "../../adapter.gguf", "scale": 1.0}]
    for path, body in (
        ("/completion", {"prompt": "x", "n_predict": 1}),
        ("/v1/completions", {"prompt": "x", "max_tokens": 1}),
    ):
        answer = _ask(server, "POST", path, body | {"lora": adapters})
        assert answer.status_code in (200, 400), answer.text
        assert "passwd" not in answer.text
    assert _ask(server, "GET", "/lora-adapters").json() == []


def test_unsupported_model_server_admin_requests_are_refused_by_code(server: Server) -> None:
    for body in ({}, {"messages": 5}):
        assert_error_shape(_ask(server, "POST", "/props", body).json(), code="not_supported")
    assert _ask(server, "POST", "/models/load", {"model": "a"}).status_code == 404
    assert _ask(server, "GET", "/lora-adapters").json() == []
    assert _ask(server, "POST", "/lora-adapters", []).json() == {"success": True}
    assert_error_shape(_ask(server, "POST", "/lora-adapters", [5]).json(), param="[0]", code="invalid_type")
    assert_error_shape(_ask(server, "POST", "/slots/0?action=dance").json(), param="action", code="invalid_value")
