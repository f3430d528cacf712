"""Who calls, and with which scopes: on this machine and elsewhere, behind a proxy, with and without keys."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

import pytest

from mistral_api.errors import Forbidden, Unauthorized, Unavailable
from mistral_api.security.access import AccessRule, Caller, require_scope
from mistral_api.security.api_key import ADMIN, ALL_SCOPES, DEFAULT_SCOPES, GRAMMAR, HISTORY, INFERENCE, new_secret
from mistral_api.security.gate import Gate
from mistral_api.security.key_ring import KeyRing
from mistral_api.settings import Settings
from mistral_api.system.addresses import is_loopback
from tests.support.keys import key_record, key_ring
from tests.support.request_heads import request_head

NO_KEYS = key_ring()
SECRET, ADA = key_record("ada", (INFERENCE, GRAMMAR))
OTHER_SECRET, BOB = key_record("bob", owner="family")
KEYS = key_ring(ADA, BOB)
STRANGER = "203.0.113.7"
PROXIED = {"X-Forwarded-For": STRANGER}


def _identify(
    ring: KeyRing, peer: str | None = "127.0.0.1", headers: Mapping[str, str] | None = None, **settings: Any
) -> Caller:
    return AccessRule(Settings(**settings), ring).identify(request_head(peer=peer, headers=headers))


def _bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


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


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", None])
def test_without_keys_this_machine_is_the_owner_with_every_scope(peer: str | None) -> None:
    caller = _identify(NO_KEYS, peer)
    assert (caller.owner, caller.scopes, caller.local, caller.key) == ("local", ALL_SCOPES, True, None)


def test_without_keys_whatever_key_is_sent_is_ignored() -> None:
    for headers in (_bearer("sk-anything"), {"Authorization": "Basic dTpw"}, _bearer("a") | {"x-api-key": "b"}):
        assert _identify(NO_KEYS, headers=headers).owner == "local"


@pytest.mark.parametrize(
    ("peer", "headers"),
    [
        (STRANGER, {}),
        ("192.168.1.7", _bearer("sk-anything")),
        ("127.0.0.1", PROXIED),
        ("127.0.0.1", {"Via": "1.1 proxy"}),
        ("127.0.0.1", {"CF-Connecting-IP": STRANGER}),
        ("127.0.0.1", {"Host": "api.example.com"}),
        ("127.0.0.1", {"Host": "192.168.1.7:9000"}),
    ],
)
def test_without_keys_strangers_are_refused_unless_all_are_served(peer: str, headers: dict[str, str]) -> None:
    with pytest.raises(Unauthorized, match="no API keys yet"):
        _identify(NO_KEYS, peer, headers)
    caller = _identify(NO_KEYS, peer, headers, allow_anonymous=True)
    assert (caller.owner, caller.scopes, caller.local) == ("local", DEFAULT_SCOPES, False)


@pytest.mark.parametrize("headers", [_bearer(SECRET), {"Authorization": f"bearer  {SECRET} "}, {"x-api-key": SECRET}])
def test_key_says_whose_request_it_is_and_what_it_may_do(headers: dict[str, str]) -> None:
    for peer in ("127.0.0.1", STRANGER):
        caller = _identify(KEYS, peer, headers)
        assert (caller.owner, caller.address, caller.key) == ("ada", peer, ADA.key)
        assert caller.scopes == {INFERENCE, GRAMMAR}
    assert _identify(KEYS, headers=_bearer(OTHER_SECRET)).owner == "family"


def test_once_keys_exist_this_machine_needs_one_too() -> None:
    for headers in ({}, PROXIED, {"Authorization": ""}, {"Authorization": "Bearer "}, {"x-api-key": " "}):
        with pytest.raises(Unauthorized, match="provide an API key"):
            _identify(KEYS, headers=headers)


def test_loopback_trust_gives_this_machine_every_scope_and_nobody_else_any() -> None:
    caller = _identify(KEYS, loopback_trust=True)
    assert (caller.owner, caller.scopes) == ("local", ALL_SCOPES)
    assert _identify(KEYS, headers=_bearer(SECRET), loopback_trust=True).owner == "ada"
    for peer, headers in ((STRANGER, {}), ("127.0.0.1", PROXIED), ("127.0.0.1", {"Host": "api.example.com"})):
        with pytest.raises(Unauthorized):
            _identify(KEYS, peer, headers, loopback_trust=True)
    with pytest.raises(Unauthorized):
        _identify(KEYS, headers=_bearer(new_secret()), loopback_trust=True)


def test_anonymous_callers_beside_keys_have_data_of_their_own() -> None:
    caller = _identify(KEYS, STRANGER, allow_anonymous=True)
    assert (caller.owner, caller.scopes) == ("anonymous", DEFAULT_SCOPES)
    with pytest.raises(Unauthorized):
        _identify(KEYS, STRANGER, _bearer(new_secret()), allow_anonymous=True)


@pytest.mark.parametrize(
    "headers",
    [
        _bearer(SECRET) | {"x-api-key": OTHER_SECRET},
        _bearer(SECRET) | {"x-api-key": "x"},
        {"Authorization": f"Basic {SECRET}", "x-api-key": SECRET},
        {"Authorization": SECRET},
        _bearer(f"{SECRET}, Bearer {SECRET}"),
        _bearer("' OR 1=1 --"),
        _bearer(SECRET[:-1]),
        _bearer(SECRET.swapcase()),
    ],
)
def test_contradicting_malformed_and_unknown_keys_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(Unauthorized) as caught:
        _identify(KEYS, headers=headers)
    assert SECRET not in caught.value.message


def test_same_key_in_both_headers_is_one_key() -> None:
    assert _identify(KEYS, headers=_bearer(SECRET) | {"x-api-key": SECRET}).owner == "ada"


def test_nobody_is_trusted_while_it_is_unknown_whether_keys_exist() -> None:
    for peer in ("127.0.0.1", STRANGER):
        with pytest.raises(Unavailable) as caught:
            _identify(KeyRing(), peer)
        assert caught.value.code == "database_unavailable"


def test_trusted_proxy_says_the_address_and_makes_nobody_local() -> None:
    proxies = (ipaddress.ip_network("127.0.0.1"),)
    assert _identify(KEYS, headers=_bearer(SECRET) | PROXIED, trusted_proxies=proxies).address == STRANGER
    with pytest.raises(Unauthorized):
        _identify(NO_KEYS, headers={"X-Forwarded-For": "127.0.0.1"}, trusted_proxies=proxies)


def test_missing_scope_is_refused_by_name() -> None:
    caller = _identify(KEYS, headers=_bearer(SECRET))
    require_scope(caller, INFERENCE)
    for scope in (HISTORY, ADMIN):
        with pytest.raises(Forbidden, match=f"the scope '{scope}'") as caught:
            require_scope(caller, scope)
        assert caught.value.code == "insufficient_scope"


def test_public_paths_and_preflights_need_no_key_and_give_no_scope() -> None:
    gate = Gate(Settings(cors_origins=("http://localhost:3000",)), KEYS)
    preflight = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
    for head in (request_head(path="/"), request_head(path="/health"), request_head("OPTIONS", headers=preflight)):
        assert gate.admit(head).scopes == frozenset()
    assert gate.admit(request_head(path="/health/live", headers=_bearer("wrong"))).key is None
    assert gate.admit(request_head(path="/health", headers=_bearer(SECRET))).key == ADA.key
    for path in ("/healthy", "/v1/models", "/docs", "/unknown"):
        with pytest.raises(Unauthorized):
            gate.admit(request_head(path=path))


def _identify_unconfirmed(ring: KeyRing, headers: Mapping[str, str] | None = None, **more: Any) -> Caller:
    rule = AccessRule(Settings(**more), ring, lambda: True)
    return rule.identify(request_head(peer="127.0.0.1", headers=headers))


def test_new_server_whose_database_is_away_serves_this_machine_without_the_rights_of_an_operator() -> None:
    unknown = KeyRing()
    for headers in ({}, _bearer("no-key-of-ours")):
        caller = _identify_unconfirmed(unknown, headers)
        assert (caller.owner, caller.scopes) == ("local", DEFAULT_SCOPES)
    assert _identify_unconfirmed(unknown, loopback_trust=True).scopes == ALL_SCOPES
    for headers in (_bearer(SECRET), PROXIED):  # a key that may be in force; somebody elsewhere
        with pytest.raises(Unavailable):
            _identify_unconfirmed(unknown, headers)


def test_server_that_knows_of_keys_serves_nobody_without_one() -> None:
    for ring in (KEYS, KeyRing("a-secret-of-the-operator")):
        with pytest.raises(Unauthorized):
            _identify_unconfirmed(ring)
