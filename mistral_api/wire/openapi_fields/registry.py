"""Which field class allows what: one describer a class, asked for by exact class.

A subclass that checks otherwise has to be described anew: what its parent allows says nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from marshmallow.fields import Field

from mistral_api.wire.json_schema import Shape

F = TypeVar("F", bound=Field[Any])
DESCRIBERS: dict[type[Field[Any]], Callable[[Any], Shape]] = {}


def describes(kind: type[F]) -> Callable[[Callable[[F], Shape]], Callable[[F], Shape]]:
    """Make a function the describer of a field class: from a field of that class to the JSON schema of its values."""

    def registered(describer: Callable[[F], Shape]) -> Callable[[F], Shape]:
        DESCRIBERS[kind] = describer
        return describer

    return registered


def fixed(kind: type[Field[Any]], shape: Shape) -> None:
    """Describe a field class whose fields all allow the same."""
    DESCRIBERS[kind] = lambda _field: shape


def shape_of(field: Field[Any]) -> Shape:
    """The JSON schema of the values that a field allows, null aside. Raises TypeError for a class nobody described."""
    describer = DESCRIBERS.get(type(field))
    if describer is None:
        raise TypeError(f"{type(field).__qualname__} has no description in mistral_api/wire/openapi_fields/.")
    return describer(field)
