"""The bodies of refusals before a view: each API has its own shape of errors."""

from __future__ import annotations

import pytest

from mistral_api.generation.error_shapes import error_body
from mistral_api.serving.refusals import overloaded
from tests.support.error_shape import assert_error_shape


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
def test_anthropics_endpoints_refuse_in_anthropics_shape(path: str) -> None:
    body = error_body(overloaded(), path, "r")
    assert (body["type"], body["request_id"]) == ("error", "r")
    assert isinstance(body["error"], dict)
    assert body["error"]["type"] == "overloaded_error"


@pytest.mark.parametrize("path", ["", "/v1/chat/completions", "/v1/messagesque", "/apiary"])
def test_all_others_refuse_in_openais_shape(path: str) -> None:
    assert_error_shape(dict(error_body(overloaded(), path, "r")))


@pytest.mark.parametrize("path", ["/api/chat", "/api/unknown"])
def test_ollamas_endpoints_refuse_in_ollamas_shape(path: str) -> None:
    assert error_body(overloaded(), path, "r") == {"error": overloaded().message}
