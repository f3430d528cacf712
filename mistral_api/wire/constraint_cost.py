"""Bounds on what a JSON schema or a grammar costs llama.cpp while it generates.

llama.cpp checks each token of the vocabulary against every alternative that is open, between two tokens of any
generation: meanwhile all others wait. Measured on its server with a vocabulary of 49,000 tokens, for each token:

- an enum of 1,000 words takes 0.1 s, one of 9,000 words 1.3 s. One that stands in a property is met once, and takes
  0.4 s in all; in an array it is met again and again; as the whole schema of a chat it takes five times as long;
- an object with 500 optional properties 0.2 s, with 1,000 of them 0.7 s;
- 200 objects of 10 optional properties each in one ``anyOf`` 1.3 s.

How repetitions cost is said in ``repetition``.

There are two answers from here. What is surely too costly is refused (code ``constraint_too_costly``). Of the rest,
:func:`is_harmless_schema` tells what is surely harmless, as the schemas of ordinary clients are. What is neither is
tried out by ``constraints``.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import NoReturn

import orjson

from mistral_api.wire.field_errors import refuse
from mistral_api.wire.repetition import Ambiguity, parse_grammar, pattern_ambiguity, pattern_loops
from mistral_api.wire.schema_parts import UNIONS, SchemaTree
from mistral_api.wire.shapes import JsonSchema

TOO_COSTLY = "constraint_too_costly"
# What begins a grammar in the language of llguidance, which builds of llama.cpp with that library take as well.
LLGUIDANCE = "%llguidance"

# Above these a constraint is refused.
MOST_ALTERNATIVES = 1_000
MOST_ENUM_WORDS = 4_000
MOST_OPTIONAL_PROPERTIES = 500
MOST_PATTERN_CHARACTERS = 4_096
MOST_LOOPS = 12
# The counts of nested repetitions, multiplied.
MOST_COPIES = 1_000_000

# JSON has null, boolean, number, string, array and object, and JSON schemas have integer besides.
_TYPES = 7

# Up to these a schema is harmless.
FEW_ENUM_WORDS, _FEW_WORDS_IN_ALL = 300, 1_200
_FEW_WORDS_OF_WHOLE_SCHEMA = 100
_FEW_ALTERNATIVES, _FEW_ALTERNATIVES_IN_ALL = 12, 128
_FEW_OPTIONAL_PROPERTIES = 64
_FEW_VALUES_IN_ALL = 3_000
_FEW_LOOPS, _FEW_COPIES, _SHORT_PATTERN = 3, 300, 300
_LARGE_COUNT = 2_000
_COUNTS = ("minItems", "maxItems", "minProperties", "maxProperties", "minLength", "maxLength")


def _refuse(why: str, path: str = "") -> NoReturn:
    refuse(TOO_COSTLY, f"'{{param}}' would hold up the model server: {why}.", path)


def _list_size(part: JsonSchema, keyword: str) -> int:
    value = part.get(keyword)
    return len(value) if isinstance(value, list) else 0


def _enum_words(part: JsonSchema) -> int:
    """Return the words of an enum. llama.cpp makes all of them for each type that the schema has a list of."""
    return _list_size(part, "enum") * max(1, _list_size(part, "type"))


def _optional_properties(part: JsonSchema) -> int:
    properties, demanded = part.get("properties"), part.get("required")
    if not isinstance(properties, dict):
        return 0
    names = set(filter(lambda name: isinstance(name, str), demanded)) if isinstance(demanded, list) else set()
    return sum(name not in names for name in properties)


def check_part(part: JsonSchema, path: str) -> None:
    """Refuse a schema, one within a larger one, that is too costly by itself."""
    for keyword in ("enum", "anyOf", "oneOf", "allOf", "type"):
        if (size := _list_size(part, keyword)) > MOST_ALTERNATIVES:
            _refuse(f"{size} alternatives, and at most {MOST_ALTERNATIVES} are allowed", f"{path}.{keyword}")
    if (types := _list_size(part, "type")) > _TYPES:
        _refuse(f"{types} types, and JSON has {_TYPES} at most", f"{path}.type")
    if (optional := _optional_properties(part)) > MOST_OPTIONAL_PROPERTIES:
        why = f"{optional} optional properties in one object, and at most {MOST_OPTIONAL_PROPERTIES} are allowed"
        _refuse(why, f"{path}.properties")
    pattern = part.get("pattern")
    if isinstance(pattern, str):
        if len(pattern) > MOST_PATTERN_CHARACTERS:
            _refuse(f"at most {MOST_PATTERN_CHARACTERS} characters are allowed", f"{path}.pattern")
        _check_ambiguity(pattern_ambiguity(pattern), f"{path}.pattern")


def _check_ambiguity(found: Ambiguity, path: str = "") -> None:
    if found.loops > MOST_LOOPS:
        what = "repetitions that may take the same characters follow each other"
        _refuse(f"{what}, and at most {MOST_LOOPS} may", path)
    if found.copies > MOST_COPIES:
        _refuse(f"nested counts multiply to more than {MOST_COPIES}", path)


def check_enum_words(parts: list[JsonSchema]) -> None:
    """Refuse a schema, given as all its parts, whose enums have too many words in all."""
    words = sum(_enum_words(part) for part in parts)
    if words > MOST_ENUM_WORDS:
        _refuse(f"its enums have {words} values in all, and at most {MOST_ENUM_WORDS} are allowed")


def check_grammar_cost(text: str) -> None:
    """Refuse a grammar in GBNF that is surely too costly."""
    if text.lstrip().startswith(LLGUIDANCE):
        return
    grammar = parse_grammar(text)
    if (most := grammar.most_alternatives()) > MOST_ALTERNATIVES:
        _refuse(f"{most} alternatives at one place, and at most {MOST_ALTERNATIVES} are allowed")
    _check_ambiguity(grammar.ambiguity())


@dataclass(slots=True)
class _Totals:
    """What a schema has in all its parts."""

    words: int = 0
    alternatives: int = 0
    values: int = 0


def is_harmless_schema(tree: SchemaTree) -> bool:
    """Return whether a schema surely costs llama.cpp next to nothing."""
    beginnings, totals = tree.alternatives(tree.schema), _Totals()
    if beginnings is None or sum(map(_enum_words, beginnings)) > _FEW_WORDS_OF_WHOLE_SCHEMA:
        return False
    for part in tree.parts:
        totals.words += _enum_words(part)
        totals.alternatives += sum(_list_size(part, keyword) for keyword in UNIONS)
        totals.values += len(part)
        if not is_harmless_part(tree, part):
            return False
    few_choices = totals.words <= _FEW_WORDS_IN_ALL and totals.alternatives <= _FEW_ALTERNATIVES_IN_ALL
    return few_choices and totals.values <= _FEW_VALUES_IN_ALL


def is_harmless_part(tree: SchemaTree, part: JsonSchema) -> bool:
    """Return whether a part of a schema surely costs next to nothing by itself."""
    if _enum_words(part) > FEW_ENUM_WORDS or not _has_few_optional_properties(tree, part):
        return False
    if any(_list_size(part, keyword) > _FEW_ALTERNATIVES or _is_recursive_union(part, keyword) for keyword in UNIONS):
        return False
    if any(_is_large(part.get(keyword)) for keyword in _COUNTS):
        return False
    pattern = part.get("pattern")
    return not isinstance(pattern, str) or _is_harmless_pattern(pattern)


def _has_few_optional_properties(tree: SchemaTree, part: JsonSchema) -> bool:
    """Whether an object has few optional properties. llama.cpp makes one object of all that stand in ``allOf``."""
    merged = tree.alternatives(part) if _list_size(part, "allOf") else [part]
    return merged is not None and sum(map(_optional_properties, merged)) <= _FEW_OPTIONAL_PROPERTIES


def _is_recursive_union(part: JsonSchema, keyword: str) -> bool:
    """Whether two or more alternatives are references: what they lead to may be a union again."""
    value = part.get(keyword)
    return isinstance(value, list) and sum(isinstance(each, dict) and "$ref" in each for each in value) > 1


def _is_large(count: object) -> bool:
    return isinstance(count, int | float) and count > _LARGE_COUNT


def _is_harmless_pattern(pattern: str) -> bool:
    if len(pattern) > _SHORT_PATTERN:
        return False
    found = pattern_ambiguity(pattern)
    return found.loops <= _FEW_LOOPS and found.copies <= _FEW_COPIES and not pattern_loops(pattern)


def schema_digest(schema: JsonSchema) -> bytes:
    """Return 16 bytes by which a schema is known. The order of its keys counts: llama.cpp's grammar follows it."""
    try:
        return _digest(orjson.dumps(schema))
    except TypeError:  # numbers beyond 64 bits, and halves of surrogate pairs
        return _digest(json.dumps(schema).encode())


def grammar_digest(text: str) -> bytes:
    """Return 16 bytes by which a grammar is known."""
    return _digest(b"grammar:" + text.encode())


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()
