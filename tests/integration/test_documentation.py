"""``/openapi.json`` and ``/docs`` as they are served."""

from __future__ import annotations

import pytest
import requests

from tests.support.error_shape import assert_error_shape
from tests.support.processes import Server


def test_openapi_document_is_revalidated_by_etag(server: Server, http: requests.Session) -> None:
    first = http.get(f"{server.url}/openapi.json", timeout=10)
    assert first.json()["openapi"].startswith("3.1.")
    assert first.headers["Cache-Control"] == "no-cache"
    again = http.get(f"{server.url}/openapi.json", headers={"If-None-Match": first.headers["ETag"]}, timeout=10)
    assert (again.status_code, again.content) == (304, b"")


def test_docs_page_loads_nothing_from_other_hosts(server: Server, http: requests.Session) -> None:
    page = http.get(f"{server.url}/docs", timeout=10)
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'; script-src 'self';" in page.headers["Content-Security-Policy"]
    assert "://" not in page.text


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("start.js", "text/javascript; charset=utf-8"),
        ("swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
        ("swagger-ui.css", "text/css; charset=utf-8"),
        ("favicon-32x32.png", "image/png"),
    ],
)
def test_docs_page_assets_have_types_and_are_cached_for_a_day(
    server: Server, http: requests.Session, name: str, kind: str
) -> None:
    part = http.get(f"{server.url}/docs/{name}", timeout=10)
    assert (part.status_code, part.headers["Content-Type"]) == (200, kind)
    assert "max-age=86400" in part.headers["Cache-Control"]
    again = http.get(f"{server.url}/docs/{name}", headers={"If-None-Match": part.headers["ETag"]}, timeout=10)
    assert again.status_code == 304


@pytest.mark.parametrize("name", ["index.html", "swagger-ui.js", "..%2fdocument.py"])
def test_unknown_docs_assets_are_not_found(server: Server, http: requests.Session, name: str) -> None:
    answer = http.get(f"{server.url}/docs/{name}", timeout=10)
    assert answer.status_code == 404
    assert_error_shape(answer.json())


def test_numbers_beyond_64_bits_in_a_message_do_not_fail_later_reads(
    server: Server, http: requests.Session, session_id: str
) -> None:
    said = {"role": "user", "content": "Hi", "weight": 1e30}
    body = {"messages": [said], "max_tokens": 1, "session_id": session_id}
    assert http.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).status_code == 200

    shown = http.get(f"{server.url}/v1/conversations/{session_id}", timeout=10)
    assert (shown.status_code, shown.json()["messages"][0]["weight"]) == (200, 1e30)

    again = {"input": "And?", "conversation": session_id, "max_output_tokens": 16}
    assert http.post(f"{server.url}/v1/responses", json=again, timeout=60).status_code == 200
