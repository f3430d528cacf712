"""The address of a client behind a proxy: believed only from trusted proxies, and never what a client wrote itself."""

from __future__ import annotations

import ipaddress

import pytest

from mistral_api.security.proxies import TrustedProxies, is_proxied
from tests.support.request_heads import request_head

PROXIES = TrustedProxies([ipaddress.ip_network("127.0.0.1"), ipaddress.ip_network("10.0.0.0/8")])
HEADERS = (
    "Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "CF-Connecting-IP",
    "True-Client-IP", "Fly-Client-IP", "CF-Ray",
)  # fmt: skip


@pytest.mark.parametrize("header", HEADERS)
def test_headers_of_proxies_show_that_a_client_is_elsewhere(header: str) -> None:
    assert is_proxied(request_head(headers={header: "for=192.168.1.7"}))
    assert not is_proxied(request_head())


@pytest.mark.parametrize(
    ("headers", "address"),
    [
        ({}, "127.0.0.1"),
        ({"X-Forwarded-For": "203.0.113.7"}, "203.0.113.7"),
        ({"X-Forwarded-For": "127.0.0.1, 203.0.113.7"}, "203.0.113.7"),
        ({"X-Forwarded-For": "6.6.6.6, 203.0.113.7, 10.1.2.3"}, "203.0.113.7"),
        ({"X-Forwarded-For": "203.0.113.7:51234"}, "203.0.113.7"),
        ({"X-Forwarded-For": "[2001:db8::7]:443"}, "2001:db8::7"),
        ({"X-Forwarded-For": "::ffff:203.0.113.7"}, "203.0.113.7"),
        ({"X-Forwarded-For": "10.1.2.3"}, "10.1.2.3"),
        ({"X-Forwarded-For": "10.9.9.9, 10.1.2.3"}, "10.9.9.9"),
        ({"X-Forwarded-For": "unknown"}, "127.0.0.1"),
        ({"X-Forwarded-For": ""}, "127.0.0.1"),
        ({"X-Forwarded-For": "203.0.113.7, rubbish"}, "127.0.0.1"),
        ({"Forwarded": 'for="[2001:db8::7]:4711";proto=https'}, "2001:db8::7"),
        ({"Forwarded": "for=6.6.6.6, For=203.0.113.7;by=10.0.0.1"}, "203.0.113.7"),
        ({"Forwarded": "for=_hidden"}, "127.0.0.1"),
        ({"X-Real-IP": "203.0.113.7"}, "203.0.113.7"),
        ({"CF-Connecting-IP": "203.0.113.7", "X-Forwarded-For": "6.6.6.6, 203.0.113.7"}, "203.0.113.7"),
    ],
)
def test_trusted_proxy_says_who_its_client_is(headers: dict[str, str], address: str) -> None:
    assert PROXIES.client_address(request_head(headers=headers)) == address


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Real-IP": "203.0.113.7", "X-Forwarded-For": "6.6.6.6"},
        {"CF-Connecting-IP": "6.6.6.6", "X-Forwarded-For": "203.0.113.7"},
        {"Forwarded": "for=6.6.6.6", "X-Real-IP": "203.0.113.7"},
    ],
)
def test_headers_that_contradict_each_other_are_not_believed(headers: dict[str, str]) -> None:
    assert PROXIES.client_address(request_head(headers=headers)) == "127.0.0.1"


def test_nobody_else_is_believed() -> None:
    head = request_head(peer="203.0.113.9", headers={"X-Forwarded-For": "127.0.0.1", "CF-Connecting-IP": "127.0.0.1"})
    assert PROXIES.client_address(head) == "203.0.113.9"
    assert TrustedProxies([]).client_address(head) == "203.0.113.9"


def test_connection_without_an_address_is_no_trusted_proxy() -> None:
    assert PROXIES.client_address(request_head(peer=None, headers={"X-Forwarded-For": "203.0.113.7"})) is None
