"""The types of JSON data that crosses the network or is stored: TypedDicts, which are plain dicts at run time.

They name the fields that our code reads or makes. Data from elsewhere may have more fields, and these are passed on.
``wire`` declares what requests are checked for, and what ``/openapi.json`` says. A test compares the names of the
fields.

:data:`JsonObject` is for JSON that is truly free: metadata, arguments of tools, JSON schemas, fields that are passed
on, and what another program sent before anybody has checked it.

The functions copy objects with fewer fields. A copy has the type of its original, which a comprehension would lose.
"""

from __future__ import annotations

from collections.abc import Container, ItemsView, Iterable, Mapping, ValuesView
from typing import Any, Protocol, Self, TypeVar, cast

JsonObject = dict[str, Any]
PayloadT = TypeVar("PayloadT", bound=Mapping[str, Any])


def omit(payload: PayloadT, names: Container[str]) -> PayloadT:
    """Return an object without these fields."""
    return cast("PayloadT", {name: value for name, value in payload.items() if name not in names})


def only(payload: PayloadT, names: Container[str]) -> PayloadT:
    """Return an object with these of its fields alone, in its own order."""
    return cast("PayloadT", {name: value for name, value in payload.items() if name in names})


def pick(payload: PayloadT, names: Iterable[str]) -> PayloadT:
    """Return those of these fields that an object has, in the order of the names."""
    return cast("PayloadT", {name: payload[name] for name in names if name in payload})


class _JsonDict(Protocol):
    """What a dict and a TypedDict have in common."""

    def copy(self) -> Self: ...
    def items(self) -> ItemsView[str, Any]: ...
    def values(self) -> ValuesView[Any]: ...


_JsonDictT = TypeVar("_JsonDictT", bound=_JsonDict)


def without_nulls(payload: _JsonDictT, keep: str = "") -> _JsonDictT:
    """Return an object without its null fields but one: llama.cpp answers 500 to most nulls."""
    if None not in payload.values():
        return payload.copy()
    return cast("_JsonDictT", {name: value for name, value in payload.items() if value is not None or name == keep})
