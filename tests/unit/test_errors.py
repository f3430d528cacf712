"""The error body and headers of every exception of ours."""

import inspect
from collections.abc import Iterator

import orjson
import pytest
from flask import Flask, g

from mistral_api import errors
from mistral_api.errors import ApiError, InvalidRequest, ModelLoading, error_event
from mistral_api.upstream import errors as translation  # noqa: F401 - its exceptions belong to the tree
from mistral_api.web.errors import error_response
from tests.support.error_shape import assert_error_shape


def _every_kind() -> list[type[ApiError]]:
    found, waiting = [], [ApiError]
    while waiting:
        kind = waiting.pop()
        found.append(kind)
        waiting += kind.__subclasses__()
    return found


@pytest.fixture
def _request() -> Iterator[None]:
    """A request of an API without a shape of its own."""
    with Flask("test_errors").test_request_context("/v1/chat/completions"):
        g.client_request_id = "req_1"
        yield


def _speaks_freely(kind: type[ApiError]) -> bool:
    """Whether the message is the only argument that is needed; the others have one of their own, or need more."""
    parameters = inspect.signature(kind).parameters.values()
    return {each.name for each in parameters if each.default is each.empty} - {"code"} == {"message"}


@pytest.mark.usefixtures("_request")
@pytest.mark.parametrize(
    "kind", [kind for kind in _every_kind() if _speaks_freely(kind)], ids=lambda kind: kind.__name__
)
def test_every_api_exception_renders_a_complete_error_body(kind: type[ApiError]) -> None:
    if "code" in inspect.signature(kind).parameters:
        error = kind("It went wrong.", code="some_code")
    response = error_response(error)
    assert response.status_code == error.status
    assert response.headers["X-Error-Source"] in ("api", "model-server")
    assert_error_shape(orjson.loads(response.data), message="It went wrong.", code="some_code")


def test_exception_tree_in_the_docstring_names_every_exception() -> None:
    documented = errors.__doc__ or ""
    for kind in _every_kind():
        if kind.__module__ == errors.__name__:
            assert kind.__name__ in documented


@pytest.mark.usefixtures("_request")
def test_retry_after_header_is_rounded_up_to_whole_seconds() -> None:
    assert error_response(ModelLoading("Loading.", retry_after=0.2)).headers["Retry-After"] == "1"
    assert error_response(ModelLoading("Loading.", retry_after=4.2)).headers["Retry-After"] == "5"


def test_stream_error_is_one_data_event() -> None:
    event = error_event(InvalidRequest("No.", param="n", code="invalid_value"))
    assert event.startswith(b"data: {")
    assert event.endswith(b"}\n\n")
    assert_error_shape(orjson.loads(event[6:]), param="n", code="invalid_value")
