"""Whoever observes requests is told of each once, at its end, whatever its end was."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from flask import Flask, Response, g
from werkzeug.test import EnvironBuilder, run_wsgi_app

from mistral_api.errors import Forbidden
from mistral_api.observability.finished_request import FinishedRequest, FinishedRequests
from mistral_api.observability.open_request import OpenRequest
from mistral_api.observability.request_log import log_request, request_fields
from mistral_api.recording.exchange import Exchange
from mistral_api.security.access import Caller
from mistral_api.security.api_key import ALL_SCOPES, ApiKey
from mistral_api.serving.refusals import overloaded
from mistral_api.system.log_format import Fields, formatter
from mistral_api.web.errors import error_response
from mistral_api.web.finished_request import observe_requests, open_request
from mistral_api.web.request import register_request_ids

ROOT = Path(__file__).parent.parent.parent
KEY = ApiKey(UUID(int=7), "laptop", "me", "mla_12345678", ALL_SCOPES)


def _exchange(**more: object) -> Exchange:
    known = {"id": UUID(int=1), "created_at": datetime.now(UTC), "endpoint": "/v1/chat/completions", "owner": "me"}
    return Exchange(**known | more)  # type: ignore[arg-type]


@pytest.fixture
def told() -> list[FinishedRequest]:
    """The requests that the observer was told of."""
    return []


@pytest.fixture
def app(told: list[FinishedRequest]) -> Flask:
    """An application whose requests are observed."""
    app = Flask(__name__)
    register_request_ids(app)

    @app.get("/stream/<name>")
    def stream(name: str) -> Response:
        def events() -> Iterator[bytes]:
            yield b"one"
            open_request_now.note_exchange(_exchange(session_id=name, completion_tokens=3))
            yield b"two"

        open_request_now = open_request()
        open_request_now.caller = Caller("me", "192.0.2.7", local=False, key=KEY)
        return Response(events())

    @app.get("/fails")
    def fail() -> Response:
        raise SystemExit

    @app.get("/fixed")
    def fixed() -> str:
        g.known = True
        return "x"

    @app.errorhandler(Forbidden)
    def refuse(error: Forbidden) -> Response:
        return error_response(error)

    observe_requests(app, FinishedRequests(told.append))
    return app


def _begin(app: Flask, path: str) -> Iterator[bytes]:
    """Return the body of a response, of which nothing has been read."""
    return iter(app.wsgi_app(EnvironBuilder(path).get_environ(), lambda *_: lambda _data: None))


def test_stream_is_told_at_its_end_with_the_figures_of_its_exchange(app: Flask, told: list[FinishedRequest]) -> None:
    body = _begin(app, "/stream/s1")
    assert list(body) == [b"one", b"two"]
    assert told == []
    body.close()  # type: ignore[attr-defined]
    body.close()  # type: ignore[attr-defined]
    [finished] = told
    assert (finished.route, finished.path, finished.status) == ("/stream/<name>", "/stream/<name>", 200)
    assert (finished.session, finished.completion_tokens, finished.error_code) == ("s1", 3, None)
    assert (finished.key_name, finished.address) == ("laptop", "192.0.2.7")
    assert finished.duration_ms > 0


def test_client_that_left_is_told_with_the_status_that_was_sent(app: Flask, told: list[FinishedRequest]) -> None:
    body = _begin(app, "/stream/s1")
    assert next(body) == b"one"
    body.close()  # type: ignore[attr-defined]
    assert [(each.status, each.error_code) for each in told] == [(200, "client_closed_request")]


@pytest.mark.parametrize(
    ("method", "path", "route", "shown", "status"),
    [
        ("GET", "/fixed", "/fixed", "/fixed", 200),
        ("HEAD", "/fixed", "/fixed", "/fixed", 200),
        ("POST", "/fixed", None, "/fixed", 405),
        ("GET", "/no/such%0A" + "x" * 500, None, "/no/such\\n" + "x" * 91, 404),
    ],
)
def test_every_request_is_told_once(
    app: Flask, told: list[FinishedRequest], method: str, path: str, route: str | None, shown: str, status: int
) -> None:
    response = app.test_client().open(path, method=method)
    response.close()
    shown_id = response.headers["X-Request-Id"]
    [finished] = told
    assert (finished.request_id, finished.method) == (shown_id, method)
    assert (finished.route, finished.path, finished.status) == (route, shown, status)


def test_application_that_fails_is_told_as_500(app: Flask, told: list[FinishedRequest]) -> None:
    with pytest.raises(SystemExit):
        run_wsgi_app(app.wsgi_app, EnvironBuilder("/fails").get_environ())
    assert [(each.path, each.status) for each in told] == [("/fails", 500)]


def test_response_in_the_background_is_told_without_tokens_and_its_exchange_once(told: list[FinishedRequest]) -> None:
    request = OpenRequest(FinishedRequests(told.append), "POST")
    request.status = 200
    request.detach_exchange()
    request.finish(complete=True)
    request.note_exchange(_exchange(status=502, error_code="model_server_error", latency_ms=9.0, prompt_tokens=5))
    assert [(each.background, each.status, each.prompt_tokens) for each in told] == [(False, 200, None), (True, 502, 5)]
    assert told[1].duration_ms == 9.0
    assert told[1].error_code == "model_server_error"


def test_request_that_the_application_never_saw_has_its_route(app: Flask, told: list[FinishedRequest]) -> None:
    finished = FinishedRequests(told.append)
    observe_requests(app, finished)
    for path in ("/fixed", "/stream/x"):
        source = {"address": "192.0.2.7", "key": None, "method": "GET", "route": path, "request_id": "r"}
        finished.tell_refused(overloaded(), source)  # type: ignore[arg-type]
    assert [(each.route, each.path, each.status) for each in told] == [
        ("/fixed", "/fixed", 503),
        (None, "/stream/x", 503),
    ]
    assert {each.error_code for each in told} == {"overloaded"}


def test_observer_that_fails_costs_the_others_nothing(
    told: list[FinishedRequest], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_finished: FinishedRequest) -> None:
        raise ZeroDivisionError

    OpenRequest(FinishedRequests(fail, told.append), "GET").finish(complete=True)
    assert len(told) == 1
    assert "an observer of finished requests failed" in caplog.text


FINISHED = FinishedRequest(request_id="r 1", method="POST", route="/x", path="/x", status=200, duration_ms=12.345)


@pytest.mark.parametrize(
    ("route", "level"),
    [("/v1/chat/completions", "INFO"), ("/health/live", "DEBUG"), ("/health", "DEBUG"), ("/metrics", "DEBUG")],
)
def test_polls_are_logged_at_debug(route: str, level: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="mistral_api.access"):
        log_request(FinishedRequest(request_id="r", method="GET", route=route, path=route, status=200, duration_ms=1))
    assert [record.levelname for record in caplog.records] == [level]


def test_values_that_are_not_known_are_left_out() -> None:
    line = formatter("text", stacks=False).format(
        logging.LogRecord("n", logging.INFO, "", 1, Fields("request", request_fields(FINISHED)), (), None)
    )
    assert line.endswith('n: request_id="r 1" method=POST path=/x status=200 duration_ms=12.3')


def test_operation_document_lists_the_fields_of_a_request() -> None:
    table = (ROOT / "docs" / "operation.md").read_text().split("## Logs\n")[1].split("\n## ")[0]
    listed = [line.split("`")[1] for line in table.splitlines() if line.startswith("| `")]
    assert listed == list(request_fields(FINISHED))


def test_json_has_the_numbers_of_a_request_as_numbers() -> None:
    record = logging.LogRecord("n", logging.INFO, "", 1, Fields("request", request_fields(FINISHED)), (), None)
    found = json.loads(formatter("json", stacks=False).format(record))
    assert (found["message"], found["status"], found["duration_ms"]) == ("request", 200, 12.3)
