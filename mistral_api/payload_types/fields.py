"""Copies of JSON objects with fewer fields. A copy has the type of its original, which a comprehension would lose."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any, TypeVar, cast

PayloadT = TypeVar("PayloadT", bound=Mapping[str, Any])


def omit(payload: PayloadT, names: Container[str]) -> PayloadT:
    """Return an object without these fields."""
    return cast("PayloadT", {name: value for name, value in payload.items() if name not in names})


def pick(payload: PayloadT, names: Iterable[str]) -> PayloadT:
    """Return those of these fields that an object has, in the order of the names."""
    return cast("PayloadT", {name: payload[name] for name in names if name in payload})


def without_nulls(payload: PayloadT, keep: str = "") -> PayloadT:
    """Return an object without its null fields but one: llama.cpp answers 500 to most nulls."""
    if None not in payload.values():
        return cast("PayloadT", dict(payload))
    return cast("PayloadT", {name: value for name, value in payload.items() if value is not None or name == keep})
