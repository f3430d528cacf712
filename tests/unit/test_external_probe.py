"""Why the model server of MODEL_SERVER_URL cannot be used, as its requests and /health say it."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mistral_api.errors import ModelUnavailable
from mistral_api.system.addresses import without_credentials
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.external_probe import probe_external
from mistral_api.upstream.outage import Outage
from tests.support.certificates import make_certificate
from tests.support.model_server_clients import client_of

MODELS = '{"object": "list", "data": [{"id": "m", "owned_by": "llamacpp"}]}'


class _Handler(BaseHTTPRequestHandler):
    """Answers each path as ``answers`` of the server says; all others with 404."""

    def log_message(self, format: str, *arguments: object) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        answers: dict[str, tuple[int, str]] = self.server.answers  # type: ignore[attr-defined]
        status, body = answers.get(self.path, (404, "not found"))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()


@contextlib.contextmanager
def _answering(answers: dict[str, tuple[int, str]], tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Run a server with these answers, and give its host and port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.answers = answers  # type: ignore[attr-defined]
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)


@contextlib.contextmanager
def _unused_address() -> Iterator[str]:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, and not listening
        yield f"127.0.0.1:{nobody.getsockname()[1]}"


@pytest.mark.parametrize(
    ("answers", "state", "cause"),
    [
        ({"/health": (200, ""), "/v1/models": (200, MODELS), "/props": (200, "{}")}, "ready", None),
        ({"/v1/models": (200, '{"data": []}')}, "ready", None),
        ({"/health": (200, "OK")}, "ready", None),
        ({"/health": (503, "Loading model")}, "loading", "is being loaded"),
        ({"/health": (200, ""), "/v1/models": (401, "")}, "unreachable", "MODEL_SERVER_API_KEY must have it"),
        ({"/v1/models": (200, MODELS), "/props": (401, "")}, "unreachable", "MODEL_SERVER_API_KEY must have it"),
        ({}, "unreachable", "is no OpenAI server: it answers 404"),
        ({"/v1/models": (200, "<html>")}, "unreachable", "is no OpenAI server: its /v1/models is no list"),
        ({"/v1/models": (500, "")}, "unreachable", "answers 500 to /v1/models"),
    ],
)
def test_state_of_an_engine_of_others_follows_from_its_answers(
    answers: dict[str, tuple[int, str]], state: str, cause: str | None
) -> None:
    with _answering(answers) as address, client_of(f"http://{address}") as client:
        found = probe_external(client)
    assert found.state == state
    assert found.cause is None if cause is None else cause in (found.cause or "")


def _cause_of_request(url: str, **settings: float) -> str:
    """Return why a request fails, which must be at once and be 503, and must not name the address."""
    with client_of(url, **settings) as client:
        began = time.monotonic()
        with pytest.raises(ModelUnavailable) as failed:
            client.request("/v1/chat/completions", {}, UpstreamCall())
        assert time.monotonic() - began < 5
        probed = probe_external(client)
    assert failed.value.status == 503
    assert "127.0.0.1" not in failed.value.message
    assert probed.state == "unreachable"
    return failed.value.message


def test_connection_that_is_refused_is_said_at_once() -> None:
    with _unused_address() as address:
        assert _cause_of_request(f"http://{address}") == "The model server does not answer: connection refused."


def test_name_that_does_not_resolve_is_said_at_once() -> None:
    assert "its name does not resolve" in _cause_of_request("http://no-such-host.invalid:8000")


def test_wrong_key_and_another_program_are_said_at_once() -> None:
    with _answering({"/v1/chat/completions": (401, ""), "/v1/models": (401, "")}) as address:
        assert "MODEL_SERVER_API_KEY" in _cause_of_request(f"http://{address}")
    with _answering({}) as address:
        assert "no OpenAI server: it answers 404" in _cause_of_request(f"http://{address}")


def test_failures_of_tls_are_said_at_once(tmp_path: Path) -> None:
    _, tls = make_certificate(tmp_path, "localhost")
    with _answering({}, tls) as address:
        assert "TLS: its certificate is not trusted (self-signed certificate" in _cause_of_request(f"https://{address}")
    with _answering({}) as address:
        assert "TLS: it does not speak TLS" in _cause_of_request(f"https://{address}")


def test_server_that_accepts_nothing_is_given_up_after_model_connect_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as stack:
        address = full.getsockname()
        for _ in range(4):  # fill its queue: the system answers no further one
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)
        cause = _cause_of_request(f"http://127.0.0.1:{address[1]}", model_connect_seconds=0.3)
    assert cause == "The model server does not answer: no connection in time."


def test_server_that_was_there_a_moment_ago_is_waited_for() -> None:
    outage = Outage("http://gpu:8000", wait_seconds=0.2)
    outage.note_answer()
    outage.note_failure(ModelUnavailable("It is away."))
    assert outage.reason_not_to_wait() is None
    time.sleep(0.25)
    assert outage.reason_not_to_wait() == "It is away."
    outage.note_answer()
    assert outage.reason_not_to_wait() is None


def test_log_of_an_outage_has_a_line_at_its_begin_and_at_its_end(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage("http://Ann:word@gpu:8000", wait_seconds=1)
    for _ in range(2):
        outage.note_failure(ModelUnavailable("It is away."))
    for _ in range(2):
        outage.note_answer()
    from_the_start = Outage("http://other:8000", wait_seconds=1)
    from_the_start.note_failure(ModelUnavailable("It is away."), probing=True)
    from_the_start.note_answer()
    assert [record.getMessage() for record in caplog.records] == [
        "the model server http://gpu:8000 cannot be used: It is away.",
        "the model server http://gpu:8000 answers again",
    ]
    assert without_credentials("https://a:b@[::1]:1/x?key=c") == "https://[::1]:1/x"


def test_scrape_that_gets_no_answer_is_no_outage(caplog: pytest.LogCaptureFixture) -> None:
    with contextlib.ExitStack() as stack:
        with _answering({"/metrics": (200, "tokens 1")}) as address:
            client = stack.enter_context(client_of(f"http://{address}"))
            assert client.get_text("/metrics", (5, 5), 100) == "tokens 1"
        with pytest.raises(ModelUnavailable):
            client.get_text("/metrics", (0.5, 0.5), 100)
    assert not caplog.records
