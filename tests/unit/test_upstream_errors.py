"""Errors of the model server, translated to ours."""

import re
from ssl import SSLCertVerificationError, SSLEOFError

import orjson
import pytest

from mistral_api.errors import (
    ApiError,
    ModelLoading,
    ModelServerError,
    ModelServerFailed,
    ModelServerLost,
    ModelTimeout,
    ModelUnavailable,
    ModelUnusable,
)
from mistral_api.upstream.connection_errors import (
    BrokenResponse,
    ConnectionFailure,
    HostNotFound,
    NotConnected,
    Silence,
)
from mistral_api.upstream.errors import cancelled_error, translate_errors, upstream_error


def _body(message: str, kind: str = "server_error", **more: object) -> bytes:
    return orjson.dumps({"error": {"code": 500, "message": message, "type": kind, **more}})


@pytest.mark.parametrize(
    ("status", "message", "becomes", "code", "param"),
    [
        (400, "Field 'n': Value must be between 1 <= value <= 4, but got 5", 400, "invalid_value", "n"),
        (
            500,
            "image input is not supported - hint: you may need the mmproj",
            400,
            "unsupported_value",
            "messages",
        ),
        (500, "Failed to parse tools: Expected 'tools' to be an array", 400, "invalid_value", None),
        (500, "Compute error.", 502, "model_server_error", None),
        (503, "Loading model", 503, "model_loading", None),
        (501, "This server does not support embeddings. Start it with `--embeddings`", 400, "not_supported", None),
        (
            500,
            "input (16002 tokens) is too large to process. increase the physical batch size (current batch size: 128)",
            400,
            "context_length_exceeded",
            "input",
        ),
    ],
)
def test_model_server_error_keeps_its_meaning(
    status: int, message: str, becomes: int, code: str, param: str | None
) -> None:
    error = upstream_error(status, _body(message))
    assert (error.status, error.code, error.param, error.source) == (becomes, code, param, "model-server")


def test_overlong_prompt_is_reported_in_openais_words() -> None:
    error = upstream_error(400, _body("request exceeds", "exceed_context_size_error", n_prompt_tokens=4031, n_ctx=2048))
    assert (error.status, error.code, error.param) == (400, "context_length_exceeded", "messages")
    assert re.search(r"maximum context length is 2048 tokens.*resulted in 4031 tokens", error.message)


def test_overlong_embedding_input_is_reported_in_openais_words() -> None:
    said = "input (600 tokens) is larger than the max context size (512 tokens). skipping"
    error = upstream_error(400, _body(said, "exceed_context_size_error", n_prompt_tokens=600, n_ctx=512))
    assert re.search(r"maximum context length is 512 tokens.*your input resulted in 600 tokens", error.message)


@pytest.mark.parametrize("body", [b"", b"<html>Bad gateway</html>", b"[]", b'{"error": "text"}', b'"x"'])
def test_error_response_without_an_error_object_is_a_model_server_error(body: bytes) -> None:
    error = upstream_error(500, body)
    assert (error.status, error.code) == (502, "model_server_error")


@pytest.mark.parametrize(
    ("raised", "before", "after"),
    [
        (NotConnected("refused"), ModelUnavailable, ModelUnavailable),
        (HostNotFound("x"), ModelUnusable, ModelUnusable),
        (Silence("slow"), ModelTimeout, ModelTimeout),
        (BrokenResponse("half of it"), ModelServerLost, ModelServerError),
        (SSLCertVerificationError("no certificate"), ModelUnusable, ModelServerError),
        (SSLEOFError("closed"), ModelServerLost, ModelServerError),
        (ConnectionResetError(), ModelServerLost, ModelServerError),
    ],
)
def test_connection_error_is_translated_with_its_cause(
    raised: Exception, before: type[ApiError], after: type[ApiError]
) -> None:
    for answered, becomes in ((False, before), (True, after)):
        with pytest.raises(becomes) as translated_error, translate_errors(answered=answered):
            raise raised
        assert type(translated_error.value) is becomes
        assert translated_error.value.__cause__ is raised


def _every_error_class(root: type[Exception]) -> list[type[Exception]]:
    found = [root]
    for kind in root.__subclasses__():
        found += _every_error_class(kind)
    return found


@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("kind", _every_error_class(ConnectionFailure), ids=lambda kind: kind.__name__)
def test_every_failure_of_a_connection_is_translated(kind: type[Exception], answered: bool) -> None:
    error = kind.__new__(kind)
    with pytest.raises(ModelServerError), translate_errors(answered=answered):
        raise error


@pytest.mark.parametrize("status", [204, 206, 301, 304])
def test_an_answer_that_is_none_is_a_failure_of_the_model_server(status: int) -> None:
    error = upstream_error(status, b"")
    assert isinstance(error, ModelServerFailed)
    assert error.status == 502
    assert str(status) in error.message


def test_model_loading_counts_as_unavailable() -> None:
    assert issubclass(ModelLoading, ModelUnavailable)


def test_cancelled_call_error_states_the_reason() -> None:
    assert cancelled_error("client").status == 499
    assert (cancelled_error("shutdown").status, cancelled_error("shutdown").code) == (503, "overloaded")
