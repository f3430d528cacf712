"""Access rules: callers on this machine are allowed, remote ones only if the operator says so."""

from __future__ import annotations

import pytest
from flask import Flask, request

from mistral_api.errors import Forbidden, InvalidRequest, Unauthorized
from mistral_api.security.access import (
    Caller,
    is_loopback,
    require_access,
    require_admin,
    require_safe_listener,
)
from mistral_api.security.api_key import ALL_SCOPES
from mistral_api.settings import SettingError, Settings
from mistral_api.web.request import identify_caller


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.7", False),
        ("fe80::1%eth0", False),
        ("localhost.example.com", False),
    ],
)
def test_loopback_hosts_are_recognised(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_listening_beyond_loopback_requires_allow_anonymous() -> None:
    with pytest.raises(SettingError, match=r"^API_HOST: '0.0.0.0' .* set ALLOW_ANONYMOUS=true"):
        require_safe_listener(Settings(api_host="0.0.0.0"))
    require_safe_listener(Settings(api_host="0.0.0.0", allow_anonymous=True))
    require_safe_listener(Settings(api_host="127.0.0.1"))


def _require_access(settings: Settings) -> Caller:
    caller = identify_caller()
    require_access(caller, settings)
    return caller


def _require_admin() -> None:
    require_admin(identify_caller(), request.method, request.headers.get("Origin"), is_json=request.is_json)


@pytest.mark.parametrize(("address", "allowed"), [("127.0.0.1", True), ("::1", True), ("192.168.1.7", False)])
def test_remote_caller_is_refused_without_allow_anonymous(address: str, allowed: bool) -> None:
    with Flask(__name__).test_request_context(environ_base={"REMOTE_ADDR": address}):
        if allowed:
            assert _require_access(Settings()).owner == "local"
        else:
            with pytest.raises(Unauthorized, match="ALLOW_ANONYMOUS"):
                _require_access(Settings())
        assert _require_access(Settings(allow_anonymous=True)).address == address


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "Via", "X-Real-IP", "X-Forwarded-Proto"])
def test_caller_behind_a_proxy_is_not_local(header: str) -> None:
    with Flask(__name__).test_request_context(
        environ_base={"REMOTE_ADDR": "127.0.0.1"}, headers={header: "for=192.168.1.7"}
    ):
        assert identify_caller().local is False
        assert identify_caller().scopes == frozenset()


@pytest.mark.parametrize(
    ("address", "host", "admin"),
    [
        ("127.0.0.1", "localhost:9000", True),
        ("127.0.0.1", "127.0.0.1:9000", True),
        ("::1", "[::1]:9000", True),
        ("127.0.0.1", "rebound.example.com:9000", False),
        ("127.0.0.1", "[", False),
        ("192.168.1.7", "localhost:9000", False),
    ],
)
def test_local_caller_with_a_loopback_host_header_is_admin(address: str, host: str, admin: bool) -> None:
    with Flask(__name__).test_request_context(environ_base={"REMOTE_ADDR": address}, headers={"Host": host}):
        assert identify_caller().scopes == (ALL_SCOPES if admin else frozenset())


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ({"Content-Type": "application/json"}, None),
        ({"Content-Type": "application/json; charset=utf-8", "Origin": "http://localhost:9000"}, None),
        ({"Content-Type": "application/json", "Origin": "https://localhost.example.com"}, Forbidden),
        ({"Content-Type": "application/json", "Origin": "null"}, Forbidden),
        ({"Content-Type": "text/plain"}, InvalidRequest),
        ({}, InvalidRequest),
    ],
    ids=["a program", "our own page", "another page", "a file", "a form", "nothing said"],
)
def test_admin_requests_from_foreign_web_pages_are_refused(
    headers: dict[str, str], error: type[Exception] | None
) -> None:
    with Flask(__name__).test_request_context(
        method="POST", environ_base={"REMOTE_ADDR": "127.0.0.1"}, headers={"Host": "localhost"} | headers
    ):
        if error is None:
            _require_admin()
        else:
            with pytest.raises(error):
                _require_admin()
