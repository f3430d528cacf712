"""What Caddy and nginx, with the configurations of ``deploy/``, send to the application, and what they keep from it.

A bare socket stands for the application, so that every byte which reaches it can be seen.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import time
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

from mistral_api.security import proxies
from mistral_api.settings import Settings
from tests.integration.test_https_proxies import FORGED
from tests.support.error_shape import assert_error_shape
from tests.support.https_proxies import DEPLOY, NAME, PROXIES, Proxy, caddy, nginx, read_reply
from tests.support.processes import free_port

pytestmark = pytest.mark.slow

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SECRET = "mla_this-is-a-secret"


@pytest.fixture
def upstream() -> Iterator[socket.socket]:
    """A listening socket in the place of the application."""
    with socket.create_server(("127.0.0.1", free_port())) as listener:
        listener.settimeout(5)
        yield listener


@pytest.fixture(params=PROXIES)
def proxy(request: pytest.FixtureRequest, upstream: socket.socket, tmp_path: Path) -> Iterator[Proxy]:
    """Each of the proxies in front of that socket."""
    with PROXIES[request.param](tmp_path, f"127.0.0.1:{upstream.getsockname()[1]}") as running:
        yield running


@pytest.fixture(params=PROXIES)
def lonely_proxy(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Proxy]:
    """Each of the proxies in front of a port where nobody listens."""
    with PROXIES[request.param](tmp_path, f"127.0.0.1:{free_port()}") as running:
        yield running


def _accept(upstream: socket.socket) -> socket.socket:
    connection, _ = upstream.accept()
    connection.settimeout(5)
    return connection


def _read_head(connection: socket.socket) -> tuple[bytes, Message]:
    """Return the request line and the headers of the next request."""
    received = b""
    while b"\r\n\r\n" not in received:
        piece = connection.recv(65536)
        assert piece, received
        received += piece
    line, _, rest = received.partition(b"\r\n")
    return line, message_from_bytes(rest)


def test_application_learns_the_clients_address_scheme_and_host_from_the_proxy_alone(
    proxy: Proxy, upstream: socket.socket
) -> None:
    forged = FORGED | {"X-Forwarded-Proto": "http", "X-Forwarded-Host": "evil"}
    with proxy.client(source="127.0.0.9") as client:
        client.request("GET", "/v1/models", headers=forged)
        with _accept(upstream) as connection:
            line, headers = _read_head(connection)
            connection.sendall(ANSWER)
            assert read_reply(client).status == 200
    assert line == b"GET /v1/models HTTP/1.1"
    host = f"{NAME}:{proxy.https_port}"
    expected = {
        "Host": [host],
        "X-Forwarded-For": ["127.0.0.9"],
        "X-Forwarded-Proto": ["https"],
        "X-Forwarded-Host": [host],
        "X-Real-IP": ["127.0.0.9"],
    }
    assert {name: headers.get_all(name) for name in expected} == expected
    assert "203.0.113.7" not in headers.as_string()


def test_connections_to_the_application_are_used_again(proxy: Proxy, upstream: socket.socket) -> None:
    with proxy.client() as first:
        first.request("GET", "/health/live")
        with _accept(upstream) as connection:
            assert _respond(connection, first) == b"ok"
            with proxy.client() as second:
                second.request("GET", "/health/live")
                assert _respond(connection, second) == b"ok"


def _respond(connection: socket.socket, client: http.client.HTTPConnection) -> bytes:
    """Answer the next request on the connection to the application; return what the client gets."""
    assert "close" not in _read_head(connection)[1].get("Connection", "")
    connection.sendall(ANSWER)
    return read_reply(client).body


def test_slow_body_occupies_nothing_in_the_application(proxy: Proxy, upstream: socket.socket) -> None:
    with proxy.client() as client:
        client.putrequest("POST", "/v1/chat/completions")
        client.putheader("Content-Length", "20000")
        client.endheaders(b"x" * 10_000)
        upstream.settimeout(1)
        with pytest.raises(TimeoutError):
            upstream.accept()
        client.send(b"x" * 10_000)
        upstream.settimeout(5)
        with _accept(upstream) as connection:
            assert _read_head(connection)[1]["Content-Length"] == "20000"
            connection.sendall(ANSWER)
            assert read_reply(client).status == 200


def test_application_that_is_away_is_an_error_of_the_proxy(lonely_proxy: Proxy) -> None:
    path = "/v1/conversations?q=a-word-of-mine"
    reply = lonely_proxy.ask("GET", path, Authorization=f"Bearer {SECRET}", X_Api_Key=SECRET)
    assert reply.status == 502
    assert_error_shape(reply.json(), code="unavailable")
    assert (reply.headers["X-Error-Source"], reply.headers["Retry-After"]) == ("proxy", "5")
    assert "mla_" not in lonely_proxy.log()


def test_caddys_log_has_no_query(tmp_path: Path) -> None:
    with PROXIES["caddy"](tmp_path, f"127.0.0.1:{free_port()}") as proxy:
        proxy.ask("GET", "/v1/conversations?q=a-word-of-mine")
        assert "/v1/conversations" in proxy.log()
        assert "a-word-of-mine" not in proxy.log()


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_caddy_issues_certificates_for_this_machine_itself(tmp_path: Path, upstream: socket.socket, name: str) -> None:
    """A client that asks for an address says no name in its TLS greeting (RFC 6066, section 3)."""
    with caddy(tmp_path, f"127.0.0.1:{upstream.getsockname()[1]}", name) as proxy, proxy.client() as client:
        client.request("GET", "/health/live")
        with _accept(upstream) as connection:
            _read_head(connection)
            connection.sendall(ANSWER)
            reply = read_reply(client)
    assert reply.status == 200
    # HSTS for localhost would hold for whatever else listens there.
    assert (reply.headers["Strict-Transport-Security"] is None) == (name == "localhost")


def test_nginxs_access_log_has_no_query(tmp_path: Path, upstream: socket.socket) -> None:
    with nginx(tmp_path, f"127.0.0.1:{upstream.getsockname()[1]}") as proxy, proxy.client() as client:
        client.request("GET", "/v1/conversations?q=a-word-of-mine")
        with _accept(upstream) as connection:
            assert _respond(connection, client) == b"ok"
    assert " GET /v1/conversations 200 2 " in proxy.log()
    assert "a-word-of-mine" not in proxy.log()


def test_nginx_bounds_the_open_requests_of_an_address(tmp_path: Path, upstream: socket.socket) -> None:
    with nginx(tmp_path, f"127.0.0.1:{upstream.getsockname()[1]}") as proxy, contextlib.ExitStack() as stack:
        for _ in range(32):
            stack.enter_context(proxy.client()).request("GET", "/v1/models")
            stack.enter_context(_accept(upstream))
        refused = proxy.ask("GET", "/v1/models")
        assert refused.status == 429
        assert_error_shape(refused.json(), code="rate_limit_exceeded")
        assert refused.headers["Retry-After"] == "5"
        other = stack.enter_context(proxy.client(source="127.0.0.50"))
        other.request("GET", "/v1/models")
        assert _respond(stack.enter_context(_accept(upstream)), other) == b"ok"


@pytest.mark.parametrize("plain", [False, True], ids=["https", "http"])
def test_header_that_does_not_end_is_cut_off(proxy: Proxy, plain: bool) -> None:
    connection = socket.create_connection(("127.0.0.1", proxy.http_port), timeout=45) if plain else proxy.connect()
    begun = time.monotonic()
    with connection:
        connection.settimeout(45)
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: " + NAME.encode() + b"\r\nX-Slow: ")
        with contextlib.suppress(ConnectionError):
            while connection.recv(65536):
                pass
    assert 5 < time.monotonic() - begun < 40


def test_every_header_that_may_name_a_client_is_overwritten_or_removed() -> None:
    caddyfile, site = (DEPLOY / "Caddyfile").read_text(), (DEPLOY / "nginx.conf").read_text()
    for variable in proxies._LISTS + proxies._SINGLE:
        name = variable.replace("_", "-").lower()
        assert f"proxy_set_header {name} " in site.lower(), name
        if name != "x-forwarded-for":  # Caddy sets it by itself
            assert re.search(rf"header_up -?{name}\b", caddyfile.lower()), name


def test_bounds_agree_with_the_default_settings() -> None:
    defaults = Settings()
    caddyfile, site = (DEPLOY / "Caddyfile").read_text(), (DEPLOY / "nginx.conf").read_text()
    mebibytes = defaults.max_request_bytes // (1 << 20) + 1
    assert caddyfile.count(f"MISTRAL_API_MAX_BODY:{mebibytes << 20}}}") == 2
    assert f"client_max_body_size {mebibytes}m;" in site
    hours = re.findall(r"(?:response_header_timeout|\tread_timeout|proxy_read_timeout) (\d+)h", caddyfile + site)
    assert len(hours) == 3
    assert all(int(each) * 3600 > defaults.model_read_seconds + defaults.model_wait_seconds for each in hours)
    address = f"127.0.0.1:{defaults.api_port}"
    assert f"MISTRAL_API_UPSTREAM:{address}" in caddyfile
    assert f"server {address};" in site
