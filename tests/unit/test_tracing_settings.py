"""Which variables of OpenTelemetry turn traces on, and what is refused in one sentence."""

from __future__ import annotations

import importlib.util
import sys
import timeit
from contextlib import nullcontext

import click
import pytest
from flask.cli import FlaskGroup

from mistral_api import application
from mistral_api.errors import StartError
from mistral_api.settings import Settings
from mistral_api.tracing.opening import open_tracer, require_tracing, traces_endpoint
from mistral_api.tracing.trace import NO_TRACE, NO_TRACER

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"}


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": " "},
        ENDPOINT | {"OTEL_SDK_DISABLED": "true"},
        ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_traces_are_off(environment: dict[str, str]) -> None:
    assert traces_endpoint(environment) is None
    require_tracing(environment)
    assert open_tracer(environment, "llama.cpp", "http://localhost:8081") is NO_TRACER


@pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"])
def test_traces_are_on_with_an_endpoint(name: str) -> None:
    environment = {name: "http://localhost:4318"}
    assert traces_endpoint(environment) == (name, "http://localhost:4318")
    require_tracing(environment)


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "localhost:4318"}, "OTEL_EXPORTER_OTLP_ENDPOINT: the address is not allowed"),
        (ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc' is not supported"),
    ],
)
def test_what_cannot_be_sent_is_refused(environment: dict[str, str], sentence: str) -> None:
    with pytest.raises(StartError, match=sentence):
        require_tracing(environment)


def test_missing_packages_are_named_with_the_command_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(StartError) as caught:
        require_tracing(ENDPOINT)
    assert str(caught.value).endswith(
        f"run {sys.executable} -m pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http"
    )


class _PassedError(Exception):
    """The application has got past its requirements."""


@pytest.mark.parametrize(
    ("flask_command", "create", "is_server"),
    [(None, True, True), ("run", True, True), ("db", True, False), ("shell", False, False), (None, False, False)],
)
def test_servers_alone_need_traces_that_can_be_sent(
    monkeypatch: pytest.MonkeyPatch, flask_command: str | None, create: bool, is_server: bool
) -> None:
    def open_database(*_: object, **__: object) -> None:
        raise _PassedError

    monkeypatch.setattr(application, "open_database", open_database)
    for name, value in (ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}).items():
        monkeypatch.setenv(name, value)
    context = click.Context(FlaskGroup())
    context.invoked_subcommand = flask_command
    entered = nullcontext() if flask_command is None else context
    with entered, pytest.raises(StartError if is_server else _PassedError):
        application.create_app(Settings(), create=create)


def test_trace_that_is_off_costs_microseconds_a_request() -> None:
    def one_request() -> None:
        with NO_TRACE.span("queue", wait="slot"):
            NO_TRACE.begin_upstream()
        with NO_TRACE.span("journal", entry="opening"), NO_TRACE.span("journal", entry="outcome"):
            NO_TRACE.note_first_token()
        NO_TRACE.headers()

    assert min(timeit.repeat(one_request, number=1000, repeat=5)) / 1000 < 50e-6
