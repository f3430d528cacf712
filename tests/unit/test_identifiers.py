"""Identifiers, and the request ids that clients see."""

from __future__ import annotations

import re
import time

import pytest
from flask import Flask
from flask.testing import FlaskClient

from mistral_api.system.identifiers import new_id, new_session_id
from mistral_api.web.request import register_request_ids


def test_new_id_is_a_uuid7_with_its_time() -> None:
    before = time.time_ns() // 1_000_000
    made = new_id()
    assert (made.version, made.variant) == (7, "specified in RFC 4122")
    assert before <= made.int >> 80 <= time.time_ns() // 1_000_000


def test_new_ids_are_unique() -> None:
    assert len({new_id() for _ in range(10_000)}) == 10_000


def test_new_session_id_has_the_sess_prefix() -> None:
    assert re.fullmatch(r"sess_[0-9a-f]{32}", new_session_id())


@pytest.fixture
def client() -> FlaskClient:
    """A client of an application that has only request ids."""
    app = Flask(__name__)
    register_request_ids(app)
    return app.test_client()


def test_every_response_has_a_request_id(client: FlaskClient) -> None:
    assert re.fullmatch(r"[0-9a-f-]{36}", client.get("/nothing").headers["X-Request-Id"])


@pytest.mark.parametrize("given", ["abc", "x" * 128, "a/b:c"])
def test_valid_client_request_id_is_returned(client: FlaskClient, given: str) -> None:
    assert client.get("/", headers={"X-Request-Id": given}).headers["X-Request-Id"] == given


@pytest.mark.parametrize("given", ["", "two words", "x" * 129, "\u00e9"])
def test_invalid_client_request_id_is_replaced(client: FlaskClient, given: str) -> None:
    assert re.fullmatch(r"[0-9a-f-]{36}", client.get("/", headers={"X-Request-Id": given}).headers["X-Request-Id"])
