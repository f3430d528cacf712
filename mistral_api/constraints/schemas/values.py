"""What a JSON schema allows, as sets of values that can be written as a schema for llama.cpp or as a grammar."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import TypeAlias

from mistral_api.payload_types import JsonObject

# Numbers are written with at most 15 digits before the point: more are not exact in a double.
LARGEST = 10**15 - 1


@dataclass(frozen=True, slots=True)
class Simple:
    """All values of a JSON type; ``integer`` and ``any`` are types here too."""

    kind: str


ANY = Simple("any")


@dataclass(frozen=True, slots=True)
class Literals:
    """These values, as compact JSON text."""

    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class IntegerRange:
    """Integers between bounds, both included. None: no bound."""

    low: int | None
    high: int | None


@dataclass(frozen=True, slots=True)
class Bound:
    """A bound of numbers, and whether it is itself left out."""

    value: Decimal
    exclusive: bool = False


@dataclass(frozen=True, slots=True)
class NumberRange:
    """Numbers between bounds. Only a grammar can say so."""

    low: Bound | None
    high: Bound | None


@dataclass(frozen=True, slots=True)
class Text:
    """Strings that a pattern matches somewhere, of so many characters.

    ``written``: the pattern, with the bounds in it, as llama.cpp's converter takes it; None where it needs none.
    """

    pattern: str = ""
    low: int = 0
    high: int | None = None
    written: str | None = None


@dataclass(frozen=True, slots=True)
class Items:
    """Arrays that begin with values of ``prefix``, in this order; further ones are of ``rest``.

    ``low`` and ``high`` bound how many there are in all. None as ``rest``: there are no further ones.
    """

    prefix: tuple[Value, ...]
    rest: Value | None
    low: int = 0
    high: int | None = None


@dataclass(frozen=True, slots=True)
class Subset:
    """Arrays of some of these values, each once, in this order. Only a grammar can say so."""

    texts: tuple[str, ...]
    low: int = 0
    high: int | None = None


@dataclass(frozen=True, slots=True)
class Property:
    """A property of an object."""

    name: str
    value: Value
    required: bool


@dataclass(frozen=True, slots=True)
class Fields:
    """Objects with these properties, in this order, and further ones of ``extra``, of any name but ``forbidden``.

    ``extra_names``: the strings that may be their names. ``low`` and ``high`` bound how many further ones there are.
    ``closed``: the schema itself says that there are no further ones.
    """

    properties: tuple[Property, ...] = ()
    extra: Value | None = None
    extra_names: Text | None = None
    low: int = 0
    high: int | None = None
    closed: bool = False
    forbidden: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Union:
    """Values of any of these."""

    choices: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Reference:
    """The value of a definition, by its number."""

    number: int


Value: TypeAlias = Simple | Literals | IntegerRange | NumberRange | Text | Items | Subset | Fields | Union | Reference


def union_of(choices: list[Value]) -> Value:
    """Return what has the values of all of these; literals that follow each other are joined."""
    joined: list[Value] = []
    for each in choices:
        for choice in each.choices if isinstance(each, Union) else (each,):
            last = joined[-1] if joined else None
            if isinstance(choice, Literals) and isinstance(last, Literals):
                joined[-1] = Literals(tuple(dict.fromkeys((*last.texts, *choice.texts))))
            elif choice not in joined:
                joined.append(choice)
    return joined[0] if len(joined) == 1 else Union(tuple(joined))


@dataclass(slots=True)
class Program:
    """A compiled schema: the value that is wanted, and the definitions by their numbers.

    ``notes``: the description and other annotations of a definition. ``faithful``: llama.cpp's converter enforces the
    schema as it was written. ``needs_grammar``: it has parts that only a grammar can say.
    """

    root: Reference
    definitions: dict[int, Value]
    notes: dict[int, JsonObject] = field(default_factory=dict)
    faithful: bool = True
    needs_grammar: bool = False
