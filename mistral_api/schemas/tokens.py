"""Tokens, and the inputs that are text or tokens."""

from __future__ import annotations

from typing import Any

from mistral_api.schemas.fields import check_array, check_bounds, check_text
from mistral_api.schemas.issues import refuse_type


def is_token(value: Any) -> bool:
    """Whether a value may be the id of a token."""
    return isinstance(value, int) and not isinstance(value, bool)


def check_token(token: Any, path: str) -> None:
    """Refuse what cannot be the id of a token."""
    if not is_token(token):
        refuse_type("an integer", token, path)
    check_bounds(token, 0, 2**31 - 1, "integer", path)


def check_tokens(tokens: Any, low: int = 1, high: int | None = None, path: str = "") -> None:
    """Refuse what is no array of so many tokens."""
    check_array(tokens, low, high, path)
    for index, token in enumerate(tokens):
        check_token(token, f"{path}[{index}]")


def check_texts_or_tokens(value: Any, most: int, shortest: int = 0) -> None:
    """Refuse what is no string, array of strings, tokens, or array of arrays of tokens; a mixture is none of these.

    ``most``: of strings or arrays; ``shortest``: characters of a string.
    """
    if isinstance(value, str):
        check_text(value, shortest)
        return
    if not isinstance(value, list):
        refuse_type("a string or an array", value)
    check_array(value, 1)
    if is_token(value[0]):
        check_tokens(value)
        return
    check_array(value, 1, most)
    for index, each in enumerate(value):
        if isinstance(value[0], list):
            check_tokens(each, path=f"[{index}]")
        else:
            check_text(each, shortest, path=f"[{index}]")
