"""The shape that every error body has."""

from typing import Any


def assert_error_shape(body: Any, **expected: str | None) -> None:
    """Check that a body is an OpenAI error with all four keys, and that ``expected`` fields have these values."""
    assert list(body) == ["error"]
    error = body["error"]
    assert sorted(error) == ["code", "message", "param", "type"]
    assert isinstance(error["message"], str)
    assert error["message"]
    assert isinstance(error["type"], str)
    for name in ("param", "code"):
        assert error[name] is None or isinstance(error[name], str)
    assert {name: error[name] for name in expected} == expected
