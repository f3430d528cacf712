"""Who waits for a slot is told so, once it is certain that the answer comes; who cannot be answered is refused at once.

The application runs in the web server of this process, before the model server of the shared one. A test takes the
slots itself, so nothing has to be generated to keep them.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from typing import Any

import pytest
from sqlalchemy import Engine

from mistral_api import create_app
from mistral_api.event_loop.waiting import in_task
from mistral_api.generation.generator import Generator
from mistral_api.services import Services, services_of
from mistral_api.serving import heartbeat
from mistral_api.serving.web_server import WebServer, bind_listener
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.slot_gate import SlotGate
from tests.support.databases import empty_tables
from tests.support.owned_api import settings_beside
from tests.support.processes import Server, temporary_data_dir, wait_for

SLOTS = 4
CHAT = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2, "stream": True}


@dataclass
class Api:
    """The running application. ``MAX_WAITING`` is 3."""

    services: Services
    port: int

    @property
    def gate(self) -> SlotGate:
        return self.services.model_servers.main.slot_gate

    @contextlib.contextmanager
    def taken_slots(self) -> Iterator[Callable[[], None]]:
        """Take all slots until the end of the block, or until what is yielded is called."""
        wait_for(lambda: self.gate.idle, "the end of the last test")
        releases = [self.gate.enter("another", 1, UpstreamCall()) for _ in range(SLOTS)]

        def release() -> None:
            for each in releases:
                each()

        try:
            yield release
        finally:
            release()

    @contextlib.contextmanager
    def asked(self, path: str, body: dict[str, Any]) -> Iterator[HTTPResponse]:
        """Send a request, and yield its response once its head has come."""
        with contextlib.closing(self.send(path, body)) as connection:
            yield connection.getresponse()

    @contextlib.contextmanager
    def silent_until_released(self, path: str, body: dict[str, Any]) -> Iterator[HTTPResponse]:
        """Send a request while all slots are taken, see that it is told nothing meanwhile, and yield its response."""
        with self.taken_slots() as release, contextlib.closing(self.send(path, body)) as connection:
            assert connection.sock is not None
            connection.sock.settimeout(0.3)
            with pytest.raises(TimeoutError):
                connection.sock.recv(1)
            release()
            connection.sock.settimeout(30)
            yield connection.getresponse()

    def send(self, path: str, body: dict[str, Any]) -> HTTPConnection:
        """Send a request; return once it waits for a slot, or is answered."""
        waiting = self.gate.waiting
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        assert connection.sock is not None
        sock: socket.socket = connection.sock
        wait_for(lambda: self.gate.waiting > waiting or _is_answered(sock), "the request")
        return connection


def _is_answered(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False
    finally:
        connection.settimeout(30)


@pytest.fixture(scope="module")
def api(server: Server, database_engine: Engine) -> Iterator[Api]:
    empty_tables(database_engine)  # a key of another file's tests would be asked for
    with temporary_data_dir() as data_dir:
        settings = settings_beside(server, database_engine, data_dir, parallel=SLOTS, max_waiting=3)
        app = create_app(settings)
        services = services_of(app.extensions)
        services.start()
        listener = bind_listener("127.0.0.1", 0)
        web_server = WebServer(app, listener, settings)
        web_server.start()
        yield Api(services, listener.getsockname()[1])
        web_server.close()
        services.close()


@pytest.fixture(autouse=True)
def _short_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "HEARTBEAT_SECONDS", 0.05)


def _read_until(response: HTTPResponse, what: bytes) -> bytes:
    received = b""
    while what not in received:
        line = response.readline()
        assert line, received
        received += line
    return received


@pytest.mark.parametrize(
    ("path", "body", "end"),
    [
        ("/v1/chat/completions", CHAT, b"data: [DONE]"),
        ("/v1/completions", {"prompt": "Hi", "max_tokens": 2, "stream": True}, b"data: [DONE]"),
        ("/completion", {"prompt": "Hi", "n_predict": 2, "stream": True}, b'"stop":true'),
        ("/v1/responses", {"input": "Hi", "max_output_tokens": 16, "stream": True}, b"event: response."),
        ("/v1/messages", CHAT, b"event: message_stop"),
    ],
)
def test_a_stream_says_that_it_waits_and_goes_on(api: Api, path: str, body: dict[str, Any], end: bytes) -> None:
    with api.taken_slots() as release, api.asked(path, body) as response:
        assert (response.status, response.headers["X-Queue-Position"]) == (200, "1")
        assert response.headers["X-Session-Id"]
        said = _read_until(response, b": queued, position 1\n")
        assert b'data: {"type": "ping"}' in (said + response.read1(200)) or path != "/v1/messages"
        release()
        rest = response.read()
        assert end in rest
        assert b'"error":{' not in rest


def test_positions_are_told_as_they_change(api: Api) -> None:
    with (
        api.taken_slots(),
        contextlib.closing(api.send("/v1/chat/completions", CHAT)) as first,
        api.asked("/v1/chat/completions", CHAT) as second,
    ):
        assert second.headers["X-Queue-Position"] == "2"
        _read_until(second, b": queued, position 2\n")
        first.close()
        _read_until(second, b": queued, position 1\n")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", CHAT | {"stream": False}),
        ("/api/chat", {"messages": CHAT["messages"], "options": {"num_predict": 2}, "stream": True}),
    ],
)
def test_json_has_no_comments(api: Api, path: str, body: dict[str, Any]) -> None:
    with api.silent_until_released(path, body) as response:
        assert (response.status, response.headers["X-Queue-Position"]) == (200, "1")
        for line in response.read().splitlines():
            json.loads(line)


def test_who_need_not_wait_has_no_position(api: Api) -> None:
    with api.asked("/v1/chat/completions", CHAT) as response:
        assert response.status == 200
        assert "X-Queue-Position" not in response.headers


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        (
            "/v1/chat/completions",
            CHAT | {"messages": [{"role": "user", "content": "word " * 4000}]},
            "context_length_exceeded",
        ),
        ("/v1/completions", {"prompt": "word " * 4000, "stream": True}, "context_length_exceeded"),
        (
            "/v1/messages",
            {"messages": [{"role": "user", "content": "word " * 4000}], "max_tokens": 2, "stream": True},
            "context_length_exceeded",
        ),
    ],
)
def test_a_prompt_that_does_not_fit_is_refused_while_it_waits(
    api: Api, path: str, body: dict[str, Any], code: str
) -> None:
    with api.taken_slots(), api.asked(path, body) as response:
        assert response.status == 400
        assert json.loads(response.read())["error"]["code"] == code
        wait_for(lambda: api.gate.waiting == 0, "its place is free")


def test_nothing_is_said_of_a_grammar_that_may_be_none(api: Api) -> None:
    body = CHAT | {"grammar": "root ::= ("}
    with api.silent_until_released("/v1/chat/completions", body) as response:
        assert response.status == 400


@pytest.mark.parametrize("is_told", [False, True])
def test_a_client_that_leaves_frees_its_place_at_once(api: Api, is_told: bool) -> None:
    with api.taken_slots():
        with contextlib.closing(api.send("/v1/chat/completions", CHAT)) as connection:
            if is_told:
                with connection.getresponse() as response:
                    _read_until(response, b": queued")
            assert api.gate.waiting == 1
        wait_for(lambda: api.gate.waiting == 0, "its place is free")


def test_one_too_many_is_told_when_to_come_back(api: Api) -> None:
    with api.taken_slots(), contextlib.ExitStack() as waiting:
        for _ in range(3):
            waiting.enter_context(contextlib.closing(api.send("/v1/chat/completions", CHAT)))
        refused = api.gate.refused
        for path, field in (("/v1/chat/completions", "type"), ("/v1/messages", "type"), ("/api/chat", None)):
            with api.asked(path, CHAT) as response:
                assert response.status == 503
                assert 1 <= int(response.headers["Retry-After"]) <= 120
                error = json.loads(response.read())["error"]
                assert "Too many requests wait" in (error["message"] if field else error)
        assert api.gate.refused == refused + 3


def test_a_response_is_planned_outside_of_the_event_loop(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """It grows with the request: all others would have to wait for it."""
    plan_chat, in_tasks = Generator.plan_chat, list[bool]()

    def note(generator: Generator, *arguments: Any) -> Any:
        in_tasks.append(in_task())
        return plan_chat(generator, *arguments)

    monkeypatch.setattr(Generator, "plan_chat", note)
    with api.asked("/v1/responses", {"input": "Hi", "max_output_tokens": 16, "stream": True}) as response:
        assert response.status == 200
        response.read()
    assert in_tasks == [False]
