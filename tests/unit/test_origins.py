"""Origin and Sec-Fetch-Site: which web pages may send requests, and which visits of links are no such thing."""

from __future__ import annotations

import pytest

from mistral_api.errors import Forbidden
from mistral_api.security.origins import OriginRule, is_preflight
from tests.support.request_heads import request_head

NAMED = "http://localhost:3000"
RULE = OriginRule([NAMED, "chrome-extension://abc", "http://[::1]:3000"], {"/docs"})
VISIT = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


def _refused(method: str = "POST", path: str = "/v1/chat/completions", **headers: str) -> bool:
    head = request_head(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    refused = False
    try:
        RULE.check(head)
    except Forbidden as error:
        refused = error.code == "origin_not_allowed"
    return refused


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example", "null", "", "http://localhost", "http://localhost:3001", "https://localhost:3000",
        "http://127.0.0.1:3000", "http://127.0.0.1:9000", "http://localhost:9000.evil.example", "file://",
        "http://localhost:3000.evil.example", "http://localhost:3000/", "HTTP://LOCALHOST:3000", "http://evil@localhost:9000",
        "chrome-extension://abcd", "http://localhost:30001", "http://localhost:9000, http://evil.example",
    ],
)  # fmt: skip
def test_foreign_origin_is_refused_whatever_the_method(origin: str) -> None:
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        assert _refused(method, Origin=origin)


@pytest.mark.parametrize("origin", [NAMED, "chrome-extension://abc", "http://[::1]:3000", "http://localhost:9000"])
def test_named_origins_and_our_own_are_let_in(origin: str) -> None:
    assert not _refused(Origin=origin)
    assert not _refused(Origin=origin, Sec_Fetch_Site="cross-site")


def test_own_origin_behind_a_proxy_is_the_host_that_the_proxy_was_asked_for() -> None:
    asked = {"Host": "127.0.0.1:9000", "X_Forwarded_Host": "api.example.com"}
    assert not _refused(Origin="https://api.example.com", **asked)
    assert not _refused(Origin="https://api.example.com", Host="api.example.com")
    assert _refused(Origin="https://evil.example", **asked)


def test_programs_that_are_no_browsers_are_let_in() -> None:
    assert not _refused()
    assert not _refused(Content_Type="text/plain")


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize(
    ("mode", "destination"), [("no-cors", "image"), ("no-cors", "script"), ("cors", "empty"), ("navigate", "iframe")]
)
def test_requests_of_foreign_sites_without_an_origin_are_refused(site: str, mode: str, destination: str) -> None:
    headers = {"Sec_Fetch_Site": site, "Sec_Fetch_Mode": mode, "Sec_Fetch_Dest": destination}
    assert _refused("GET", "/docs", **headers)
    assert _refused("GET", "/v1/models", **headers)


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_requests_of_our_pages_and_typed_addresses_are_let_in(site: str) -> None:
    assert not _refused("GET", "/v1/models", Sec_Fetch_Site=site, Sec_Fetch_Mode="navigate")


def test_only_a_visit_of_a_page_may_come_from_another_site() -> None:
    visit = {name.replace("-", "_"): value for name, value in VISIT.items()}
    assert not _refused("GET", "/docs", **visit)
    assert _refused("GET", "/v1/models", **visit)
    assert _refused("POST", "/docs", **visit)
    assert _refused("GET", "/docs", Origin="https://evil.example", **visit)


def test_preflights_are_told_from_other_requests_for_options() -> None:
    asked = {"Origin": NAMED, "Access-Control-Request-Method": "POST"}
    assert is_preflight(request_head("OPTIONS", headers=asked))
    assert not is_preflight(request_head("POST", headers=asked))
    assert not is_preflight(request_head("OPTIONS", headers={"Origin": NAMED}))
    assert not is_preflight(request_head("OPTIONS", headers={"Access-Control-Request-Method": "POST"}))
