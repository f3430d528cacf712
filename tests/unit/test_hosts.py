"""The Host header: which names are answered, so that nobody's page can have its own name lead here."""

from __future__ import annotations

import pytest

from mistral_api.errors import MisdirectedRequest
from mistral_api.security.hosts import HostRule
from tests.support.request_heads import request_head

ALWAYS = (
    "localhost", "LOCALHOST:9000", "localhost.", "api.localhost", "127.0.0.1", "127.0.0.1:9000", "[::1]:9000", "[::1]",
    "192.168.1.7:9000", "[fe80::1%eth0]:9000", "[::ffff:127.0.0.1]",
)  # fmt: skip
NEVER = (
    "", " ", ".", ":9000", "evil.example", "evil.example:9000", "localhost.evil.example", "127.0.0.1.evil.example",
    "127.1", "0x7f.0.0.1", "2130706433", "017700000001", "localhost:port", "localhost:123456", "user@localhost",
    "localhost/evil.example", "localhost\\evil.example", "localhost evil.example", "localhost,evil.example",
    "localhost, localhost", "[::1", "::1", "[localhost]", "http://localhost", "l\u00f6calhost", "localhost\n",
)  # fmt: skip


def _check(rule: HostRule, host: str | None, **headers: str) -> None:
    rule.check(request_head(headers={"Host": host or ""} | headers))


@pytest.mark.parametrize("host", ALWAYS)
def test_names_of_loopback_and_addresses_are_answered(host: str) -> None:
    _check(HostRule(["0.0.0.0"]), host)


@pytest.mark.parametrize("host", NEVER)
def test_other_names_and_malformed_hosts_are_refused(host: str) -> None:
    rule = HostRule(["127.0.0.1"])
    for _ in range(2):  # what was refused once is refused again
        with pytest.raises(MisdirectedRequest) as caught:
            _check(rule, host)
        assert (caught.value.status, caught.value.code) == (421, "host_not_allowed")


def test_request_without_a_host_is_refused() -> None:
    head = request_head()
    with pytest.raises(MisdirectedRequest):
        HostRule([]).check(type(head)("GET", "/", "127.0.0.1", lambda _: None))


def test_named_hosts_are_answered_in_any_case_and_with_any_port() -> None:
    rule = HostRule(["api.example.com", ".lan.example.com", "*.home.arpa", "mybox"])
    for host in ("API.example.com", "api.example.com.:9000", "a.lan.example.com", "a.b.home.arpa", "mybox:80"):
        _check(rule, host)
    for host in ("example.com", "xapi.example.com", "lan.example.com", "xlan.example.com", "home.arpa", "mybox.evil"):
        with pytest.raises(MisdirectedRequest, match="ALLOWED_HOSTS"):
            _check(rule, host)


def test_any_host_is_answered_only_where_the_operator_says_so() -> None:
    rule = HostRule(["*"])
    _check(rule, "evil.example")
    with pytest.raises(MisdirectedRequest):
        _check(rule, "")


@pytest.mark.parametrize("forwarded", ["evil.example", "localhost, evil.example", "evil.example:443"])
def test_host_that_a_proxy_was_asked_for_is_checked_too(forwarded: str) -> None:
    rule = HostRule(["api.example.com"])
    _check(rule, "127.0.0.1:9000", **{"X-Forwarded-Host": "api.example.com"})
    with pytest.raises(MisdirectedRequest):
        _check(rule, "127.0.0.1:9000", **{"X-Forwarded-Host": forwarded})


def test_memory_of_answered_hosts_is_bounded() -> None:
    rule = HostRule([".example.com"])
    for number in range(3000):
        _check(rule, f"{number}.example.com")
    assert len(rule._answered) <= 1000
