"""The application behind Caddy and nginx with the configurations of ``deploy/``: HTTPS, streams, limits, addresses."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Iterator

import pytest

from mistral_api.embedded.postgres import start_embedded_postgres
from tests.support.databases import open_cursor
from tests.support.error_shape import assert_error_shape
from tests.support.https_proxies import NAME, PROXIES, Proxy, Reply, read_reply
from tests.support.marking_engine import CHUNKS_A_SECOND, MarkingEngine, marking_engine
from tests.support.processes import Server, running_server, temporary_data_dir, wait_for

pytestmark = pytest.mark.slow

KEY = "mla_" + "key-of-the-tests" * 2
AUTHORIZATION = {"Authorization": f"Bearer {KEY}"}
PATH = "/v1/chat/completions"
# What a client may say about its own address, in every header that some proxy uses for it.
FORGED = {
    "X-Forwarded-For": "203.0.113.7",
    "X-Real-IP": "203.0.113.7",
    "Forwarded": "for=203.0.113.7;proto=http;host=evil.example",
    "CF-Connecting-IP": "203.0.113.7",
    "True-Client-IP": "203.0.113.7",
    "X-Client-IP": "203.0.113.7",
    "Fly-Client-IP": "203.0.113.7",
    "X-Cluster-Client-IP": "203.0.113.7",
    "Fastly-Client-IP": "203.0.113.7",
}
MIB = 1 << 20


def chat(marker: str, **fields: object) -> bytes:
    """Return the body of a chat request with this marker."""
    return json.dumps({"messages": [{"role": "user", "content": f"marker-{marker} hello"}], **fields}).encode()


@pytest.fixture(scope="module")
def engine() -> Iterator[MarkingEngine]:
    """The steady stand-in engine."""
    with marking_engine() as running:
        yield running


@pytest.fixture(scope="module")
def api(engine: MarkingEngine) -> Iterator[Server]:
    """The stack, told which proxy it stands behind and by which name it is called."""
    settings = {"TRUSTED_PROXIES": "127.0.0.1", "ALLOWED_HOSTS": NAME, "ADMIN_API_KEY": KEY}
    with (
        temporary_data_dir() as data_dir,
        running_server(data_dir, MODEL_SERVER_URL=engine.url, **settings) as running,
    ):
        yield running


@pytest.fixture(scope="module", params=PROXIES)
def proxy(request: pytest.FixtureRequest, api: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Each of the proxies in front of the stack."""
    start = PROXIES[request.param]
    with start(tmp_path_factory.mktemp(request.param), f"127.0.0.1:{api.api_port}") as running:
        yield running


def test_chat_over_https_is_answered(proxy: Proxy) -> None:
    response = proxy.ask("POST", PATH, chat("plain", max_tokens=3), **AUTHORIZATION)
    assert (response.status, response.headers["Content-Type"]) == (200, "application/json")
    assert "marker-plain:2" in response.body.decode()


def test_first_chunk_arrives_before_the_last_is_made(proxy: Proxy, engine: MarkingEngine) -> None:
    with proxy.client() as connection:
        connection.request("POST", PATH, chat("hold-first", stream=True, max_tokens=3), AUTHORIZATION)
        with connection.getresponse() as response:
            assert response.headers["Content-Type"].startswith("text/event-stream")
            # The engine makes no further chunk until it is released, which a proxy that gathers chunks would prevent.
            assert b"marker-hold-first:0" in response.readline()
            engine.release()
            assert response.read().endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("stream", [True, False])
def test_generation_ends_when_its_client_leaves(proxy: Proxy, engine: MarkingEngine, stream: bool) -> None:
    broken = engine.counts()["broken"]
    with proxy.client() as connection:
        connection.request("POST", PATH, chat("leaves", stream=stream, max_tokens=3000), AUTHORIZATION)
        wait_for(lambda: engine.counts()["running"] == 1, "a generation")
        if stream:
            assert b"marker-leaves:0" in connection.getresponse().readline()
    wait_for(lambda: engine.counts()["broken"] == broken + 1, "the end of the generation", 20)


def test_responses_demand_https_for_a_year(proxy: Proxy) -> None:
    for path in ("/health/live", "/v1/models", "/nothing-here"):
        assert proxy.ask("GET", path).headers["Strict-Transport-Security"] == "max-age=31536000"


def test_plain_http_is_redirected_to_the_same_name(proxy: Proxy) -> None:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", proxy.http_port, timeout=10)) as connection:
        connection.request("GET", "/docs?a=b", headers={"Host": NAME})
        reply = read_reply(connection)
    assert (reply.status, reply.headers["Location"]) == (308, f"https://{NAME}/docs?a=b")


def test_another_name_gets_nothing_of_the_application(proxy: Proxy) -> None:
    with proxy.client() as connection:
        connection.request("GET", "/health/live", headers={"Host": "evil.example"})
        try:
            reply = read_reply(connection)
        except http.client.RemoteDisconnected:
            return
    assert reply.body == b""
    assert "X-Request-Id" not in reply.headers


def test_browsers_are_offered_http_2(proxy: Proxy) -> None:
    with proxy.connect(protocols=("h2", "http/1.1")) as connection:
        assert connection.selected_alpn_protocol() == "h2"


def test_health_is_shown_without_a_key(proxy: Proxy) -> None:
    assert proxy.ask("GET", "/health/live").status == 200


def test_stranger_without_a_key_is_refused_through_the_proxy(proxy: Proxy) -> None:
    reply = proxy.ask("POST", PATH, chat("stranger", max_tokens=1))
    assert reply.status == 401
    assert_error_shape(reply.json(), code="invalid_api_key")


def test_page_of_the_documentation_works_under_https(proxy: Proxy) -> None:
    assert proxy.ask("GET", "/docs", **AUTHORIZATION).status == 200
    document = proxy.ask("GET", "/openapi.json", **AUTHORIZATION).json()
    # Without servers, or with relative ones, a client takes the origin that it has the document from.
    assert all(server["url"].startswith("/") for server in document.get("servers", []))
    own = AUTHORIZATION | {"Origin": proxy.origin, "Sec_Fetch_Site": "same-origin", "Sec_Fetch_Mode": "cors"}
    assert proxy.ask("POST", PATH, chat("page", max_tokens=1), **own).status == 200


def _send_body(proxy: Proxy, length: int, *, chunked: bool) -> Reply:
    """Send a body of that length until the proxy takes no more, and return the response."""
    piece = b" " * MIB
    with proxy.client() as connection:
        connection.putrequest("POST", PATH)
        connection.putheader(*(("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(length))))
        connection.putheader("Authorization", AUTHORIZATION["Authorization"])
        connection.endheaders()
        try:
            for _ in range(length // MIB):
                connection.send(b"%x\r\n%b\r\n" % (MIB, piece) if chunked else piece)
            connection.send(b"0\r\n\r\n" if chunked else b" " * (length % MIB))
        except OSError:
            assert length > 20 * MIB
        return read_reply(connection)


@pytest.mark.parametrize("chunked", [False, True])
def test_body_that_is_too_large_is_refused_by_the_proxy(proxy: Proxy, chunked: bool) -> None:
    response = _send_body(proxy, 23 * MIB, chunked=chunked)
    assert response.status == 413
    assert_error_shape(response.json(), code="request_too_large")
    assert response.headers["X-Error-Source"] == "proxy"
    assert response.headers["Strict-Transport-Security"]


def test_body_just_above_the_bound_is_refused_by_the_application(proxy: Proxy) -> None:
    response = _send_body(proxy, 20 * MIB + 1, chunked=False)
    assert (response.status, response.headers["X-Error-Source"]) == (413, "api")


def test_errors_of_the_application_pass_unchanged(proxy: Proxy) -> None:
    response = proxy.ask("POST", PATH, b"{", **AUTHORIZATION)
    assert (response.status, response.headers["X-Error-Source"]) == (400, "api")


def test_recorded_address_is_the_clients_own_whatever_it_says(proxy: Proxy, api: Server) -> None:
    """Linux lets a client on this machine come from any address of 127.0.0.0/8."""
    # Headers are told apart by - and _ here, but no longer where WSGI makes variables of both.
    headers = FORGED | {"X_Forwarded_For": "203.0.113.7"} | AUTHORIZATION
    session = f"address-{proxy.https_port}"
    with proxy.client(source="127.0.0.77") as connection:
        connection.request("POST", PATH, chat("address", max_tokens=1, session_id=session), headers)
        assert read_reply(connection).status == 200
    running = start_embedded_postgres(api.data_dir)
    query = "SELECT client_address FROM api_usage WHERE session_id = %s"
    with open_cursor(running.url) as cursor:

        def addresses() -> list[str]:
            cursor.execute(query, (session,))
            return [str(row[0]) for row in cursor.fetchall()]

        assert wait_for(addresses, "the record") == ["127.0.0.77"]


def test_stream_keeps_its_pace(proxy: Proxy) -> None:
    with proxy.client() as connection:
        connection.request("POST", PATH, chat("pace", stream=True, max_tokens=100), AUTHORIZATION)
        with connection.getresponse() as response:
            times = [time.monotonic() for line in response if b"marker-pace" in line]
    assert len(times) == 100
    assert times[-1] - times[0] > 50 / CHUNKS_A_SECOND, "the chunks were held back, and came together"
