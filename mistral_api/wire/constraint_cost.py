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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

import orjson

from mistral_api.payload_types import JsonObject
from mistral_api.wire.field_errors import refuse
from mistral_api.wire.repetition import Ambiguity, parse_grammar, pattern_ambiguity, pattern_loops
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

# Up to these a schema is harmless.
_FEW_ENUM_WORDS, _FEW_WORDS_IN_ALL = 300, 1_200
_FEW_WORDS_OF_WHOLE_SCHEMA = 100
_FEW_ALTERNATIVES, _FEW_ALTERNATIVES_IN_ALL = 12, 128
_FEW_OPTIONAL_PROPERTIES = 64
_FEW_VALUES_IN_ALL = 3_000
_FEW_LOOPS, _FEW_COPIES, _SHORT_PATTERN = 3, 300, 300
_LARGE_COUNT = 2_000
_COUNTS = ("minItems", "maxItems", "minProperties", "maxProperties", "minLength", "maxLength")
_UNIONS = ("anyOf", "oneOf")
# The most parts of a constraint that are tried on their own.
_MOST_SUSPECTS = 6
_DEFINITIONS = ("$defs", "definitions")


def _refuse(why: str, path: str = "") -> NoReturn:
    refuse(TOO_COSTLY, f"'{{param}}' would hold up the model server: {why}.", path)


def _list_size(part: JsonSchema, keyword: str) -> int:
    value = part.get(keyword)
    return len(value) if isinstance(value, list) else 0


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


def check_enum_words(parts: list[tuple[JsonSchema, str]]) -> None:
    """Refuse a schema, given as all its parts, whose enums have too many words in all."""
    words = sum(_list_size(part, "enum") for part, _ in parts)
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


def is_harmless_schema(parts: list[JsonSchema]) -> bool:
    """Return whether a schema, given as all its parts, the whole one first, surely costs llama.cpp next to nothing."""
    if _list_size(parts[0], "enum") > _FEW_WORDS_OF_WHOLE_SCHEMA:
        return False
    totals = _Totals()
    for part in parts:
        totals.words += _list_size(part, "enum")
        totals.alternatives += sum(_list_size(part, keyword) for keyword in _UNIONS)
        totals.values += len(part)
        if not _is_harmless_part(part):
            return False
    few_choices = totals.words <= _FEW_WORDS_IN_ALL and totals.alternatives <= _FEW_ALTERNATIVES_IN_ALL
    return few_choices and totals.values <= _FEW_VALUES_IN_ALL


def _is_harmless_part(part: JsonSchema) -> bool:
    if _list_size(part, "enum") > _FEW_ENUM_WORDS or _optional_properties(part) > _FEW_OPTIONAL_PROPERTIES:
        return False
    if any(_list_size(part, keyword) > _FEW_ALTERNATIVES or _is_recursive_union(part, keyword) for keyword in _UNIONS):
        return False
    if any(_is_large(part.get(keyword)) for keyword in _COUNTS):
        return False
    pattern = part.get("pattern")
    return not isinstance(pattern, str) or _is_harmless_pattern(pattern)


def _is_recursive_union(part: JsonSchema, keyword: str) -> bool:
    """Whether two or more alternatives are references: what they lead to may be a union again."""
    value = part.get(keyword)
    return isinstance(value, list) and sum(isinstance(each, dict) and "$ref" in each for each in value) > 1


def _is_large(count: object) -> bool:
    return isinstance(count, int | float) and count > _LARGE_COUNT


def _is_harmless_pattern(pattern: str) -> bool:
    found = pattern_ambiguity(pattern)
    few = found.loops <= _FEW_LOOPS and found.copies <= _FEW_COPIES
    return few and len(pattern) <= _SHORT_PATTERN and not pattern_loops(pattern)


class SuspectSchema(NamedTuple):
    """A part of a schema as a schema of its own. ``once``: a generation meets its costly part once, after a while."""

    schema: JsonObject
    once: bool = False


def suspect_schemas(
    schema: JsonSchema, parts: list[JsonSchema], is_repeated: Callable[[JsonSchema], bool]
) -> list[SuspectSchema]:
    """Return the parts of a schema that are not harmless. A trial of the whole schema may never come to them.

    ``is_repeated``: whether a generation may meet a part again and again.
    """
    definitions: JsonObject = {name: schema[name] for name in _DEFINITIONS if name in schema}
    costly = [part for part in parts[1:] if not _is_harmless_part(part)]
    found = [each for part in costly for each in _suspects_of(part, repeated=is_repeated(part))]
    return [SuspectSchema(definitions | each.schema, each.once) for each in found[:_MOST_SUSPECTS]]


def _suspects_of(part: JsonSchema, *, repeated: bool) -> Iterator[SuspectSchema]:
    """Yield a part. A long enum stands where it would stand in the whole schema, which makes a difference to it."""
    if _list_size(part, "enum") <= _FEW_ENUM_WORDS:
        yield SuspectSchema(dict(part))
    elif repeated:
        yield SuspectSchema({"type": "array", "items": part, "minItems": 1})
    else:
        yield SuspectSchema({"type": "object", "properties": {"x": part}, "required": ["x"]}, once=True)
    pattern = part.get("pattern")
    if isinstance(pattern, str):
        loops = pattern_loops(pattern)[:_MOST_SUSPECTS]
        yield from (SuspectSchema({"type": "string", "pattern": f"^{loop}$"}) for loop in loops)


def suspect_grammars(text: str) -> list[str]:
    """Return grammars that begin with each repeated group of one in GBNF, which a trial of it may never come to.

    A rule that is defined again replaces the first one (llama.cpp's ``add_rule``).
    """
    if text.lstrip().startswith(LLGUIDANCE):
        return []
    loops = dict.fromkeys(parse_grammar(text).loops())
    return [f"{text}\nroot ::= {loop}\n" for loop in list(loops)[:_MOST_SUSPECTS]]


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
