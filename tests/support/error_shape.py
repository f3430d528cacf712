"""Shapes that every answer of a kind must have."""

from typing import Any


def assert_error_shape(body: Any, **expected: str | None) -> None:
    """An OpenAI error: all four keys, message and type never empty; ``expected`` fields as given."""
    assert list(body) == ["error"]
    error = body["error"]
    assert sorted(error) == ["code", "message", "param", "type"]
    assert isinstance(error["message"], str)
    assert error["message"]
    assert isinstance(error["type"], str)
    for name in ("param", "code"):
        assert error[name] is None or isinstance(error[name], str)
    assert {name: error[name] for name in expected} == expected
