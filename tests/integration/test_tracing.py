"""Traces by OpenTelemetry, from a client's request to a real receiver of OTLP over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
import requests

from tests.support.misbehaving_server import misbehaving_server
from tests.support.otlp_receiver import OtlpReceiver, ReceivedSpan, otlp_receiver
from tests.support.prepared_postgres import copy_prepared_postgres
from tests.support.processes import Server, is_live, launch_server, temporary_data_dir, wait_for

INTERNAL, SERVER, CLIENT = 1, 2, 3
SECRET_WORD = "rhododendron"


@dataclass
class TracedApi:
    """An API that sends its traces to a receiver, and what its model server was sent."""

    api: Server
    receiver: OtlpReceiver
    heads: list[dict[str, str]]

    def chat(self, trace_id: str, **fields: Any) -> requests.Response:
        """Send a chat within a trace of the client's."""
        messages = [{"role": "user", "content": f"Say {SECRET_WORD}."}]
        headers = {"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01", "tracestate": "vendor=1"}
        url = f"{self.api.url}/v1/chat/completions"
        answer = requests.post(url, json={"messages": messages, "model": "fine"} | fields, headers=headers, timeout=30)
        assert answer.content
        return answer

    def spans(self, trace_id: str, count: int) -> list[ReceivedSpan]:
        """Return the spans of a trace when so many have come."""

        def found() -> list[ReceivedSpan] | None:
            spans = [span for span in self.receiver.spans if span.trace_id == trace_id]
            return spans if len(spans) >= count else None

        spans: list[ReceivedSpan] = wait_for(found, f"{count} spans of {trace_id}")
        return spans

    def request_span(self, trace_id: str) -> ReceivedSpan:
        """Return the span of a request when it has come."""

        def found() -> ReceivedSpan | None:
            return next(
                (span for span in self.receiver.spans if (span.trace_id, span.kind) == (trace_id, SERVER)), None
            )

        span: ReceivedSpan = wait_for(found, f"the request of {trace_id}")
        return span


@pytest.fixture(scope="module")
def traced() -> Iterator[TracedApi]:
    """``bin/serve`` in front of a model server in the test."""
    heads: list[dict[str, str]] = []
    with misbehaving_server(heads=heads) as engine, otlp_receiver() as receiver, temporary_data_dir() as folder:
        settings = {
            "MODEL_SERVER_URL": engine,
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
        }
        copy_prepared_postgres(folder)
        with launch_server(folder, **settings) as api:
            wait_for(lambda: _is_live(api), "the API", 60)
            yield TracedApi(api, receiver, heads)


def _is_live(api: Server) -> bool:
    assert api.process.poll() is None, api.log()
    return is_live(api.url)


def test_request_continues_the_trace_of_its_client_and_the_model_server_continues_ours(traced: TracedApi) -> None:
    trace_id, session = uuid4().hex, "tracing:1"
    assert traced.chat(trace_id, session_id=session, stream=True).ok
    spans = traced.spans(trace_id, 6)
    by_name = {span.name: span for span in spans}
    request, inference = by_name["POST /v1/chat/completions"], by_name["chat fine"]

    assert (request.kind, request.parent_id) == (SERVER, "00f067aa0ba902b7")
    assert request.attributes == {
        "http.request.method": "POST",
        "url.scheme": "http",
        "url.path": "/v1/chat/completions",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
    }
    assert request.resource["service.name"] == "mistral-local-api"
    assert request.resource["deployment.environment.name"] == "test"

    assert (inference.kind, inference.parent_id, inference.events) == (CLIENT, request.span_id, ["first token"])
    attributes = dict(inference.attributes)
    assert 0 < attributes.pop("gen_ai.response.time_to_first_chunk") < 30
    assert attributes.pop("server.port") > 0
    assert attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "external",
        "gen_ai.request.model": "fine",
        "gen_ai.request.stream": True,
        "gen_ai.conversation.id": session,
        "gen_ai.usage.output_tokens": 1,
        "server.address": "127.0.0.1",
    }
    inner = sorted((span.name, *span.attributes.items()) for span in spans if span.kind == INTERNAL)
    assert inner == [
        ("journal", ("entry", "opening")),
        ("journal", ("entry", "outcome")),
        ("queue", ("wait", "slot")),
        ("queue", ("wait", "thread")),
    ]
    assert all(span.parent_id == request.span_id for span in spans if span.kind == INTERNAL)
    assert all(request.began <= span.began <= span.ended <= request.ended for span in spans)

    sent = traced.heads[-1]
    assert sent["traceparent"] == f"00-{trace_id}-{inference.span_id}-01"
    assert sent["tracestate"] == "vendor=1"
    assert not any(SECRET_WORD.encode() in body for body in traced.receiver.raw)


def test_counts_of_a_whole_answer_are_in_its_span(traced: TracedApi) -> None:
    trace_id = uuid4().hex
    assert traced.chat(trace_id).ok
    inference = next(span for span in traced.spans(trace_id, 6) if span.name == "chat fine")
    assert inference.attributes["gen_ai.usage.output_tokens"] == 1
    assert inference.attributes["gen_ai.usage.input_tokens"] == 1


def test_failures_name_their_code(traced: TracedApi) -> None:
    broken, refused = uuid4().hex, uuid4().hex
    assert traced.chat(broken, model="breaks-500").status_code == 502
    spans = traced.spans(broken, 6)
    assert {span.attributes["error.type"] for span in spans if span.failed} == {"model_server_error"}
    assert {span.kind for span in spans if span.failed} == {SERVER, CLIENT}

    assert traced.chat(refused, max_tokens="many").status_code == 400
    request = traced.request_span(refused)
    assert (request.attributes["http.response.status_code"], request.failed) == (400, False)
    assert request.attributes["error.type"]


def test_health_and_metrics_have_no_traces(traced: TracedApi) -> None:
    for path in ("/health/live", "/metrics"):
        assert requests.get(traced.api.url + path, timeout=10).ok
    marker = uuid4().hex
    traced.chat(marker)
    traced.spans(marker, 6)
    assert not {span.attributes.get("http.route") for span in traced.receiver.spans} & {"/health/live", "/metrics"}


def test_receiver_that_fails_costs_one_line_in_the_log(traced: TracedApi) -> None:
    traced.receiver.status = 500
    try:
        for _ in range(3):
            assert traced.chat(uuid4().hex).ok
        wait_for(lambda: "traces cannot be sent" in traced.api.log(), "the warning", 40)
        assert traced.api.log().count("traces cannot be sent") == 1
        assert "Traceback" not in traced.api.log()
    finally:
        traced.receiver.status = 200
