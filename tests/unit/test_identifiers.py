"""Identifiers and the request ids that clients see."""

from __future__ import annotations

import re
import time

import pytest
from flask import Flask
from flask.testing import FlaskClient

from mistral_api.system.identifiers import new_id, new_session_id
from mistral_api.web.request import register_request_ids


def test_identifiers_are_version_7_and_carry_their_time() -> None:
    before = time.time_ns() // 1_000_000
    made = new_id()
    assert (made.version, made.variant) == (7, "specified in RFC 4122")
    assert before <= made.int >> 80 <= time.time_ns() // 1_000_000


def test_identifiers_are_all_different() -> None:
    assert len({new_id() for _ in range(10_000)}) == 10_000


def test_a_session_that_nobody_named_has_a_name_of_its_own() -> None:
    assert re.fullmatch(r"sess_[0-9a-f]{32}", new_session_id())


@pytest.fixture
def client() -> FlaskClient:
    """A client of an application that has request ids and nothing else."""
    app = Flask(__name__)
    register_request_ids(app)
    return app.test_client()


def test_every_answer_carries_an_id(client: FlaskClient) -> None:
    assert re.fullmatch(r"[0-9a-f-]{36}", client.get("/nothing").headers["X-Request-Id"])


@pytest.mark.parametrize("given", ["abc", "x" * 128, "a/b:c"])
def test_an_acceptable_id_of_the_client_comes_back(client: FlaskClient, given: str) -> None:
    assert client.get("/", headers={"X-Request-Id": given}).headers["X-Request-Id"] == given


@pytest.mark.parametrize("given", ["", "two words", "x" * 129, "\u00e9"])
def test_any_other_id_is_replaced(client: FlaskClient, given: str) -> None:
    assert re.fullmatch(r"[0-9a-f-]{36}", client.get("/", headers={"X-Request-Id": given}).headers["X-Request-Id"])


def test_a_path_cannot_write_lines_of_its_own_into_the_log(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="mistral_api.access"):
        client.get("/first%0ASECOND")
    assert "/first\\nSECOND 404" in caplog.text
