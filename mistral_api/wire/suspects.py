"""The costliest parts of a constraint as constraints of their own: a trial of the whole may never come to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from mistral_api.payload_types import JsonObject
from mistral_api.wire.constraint_cost import FEW_ENUM_WORDS, LLGUIDANCE, is_harmless_part
from mistral_api.wire.repetition import parse_grammar, pattern_loops
from mistral_api.wire.schema_parts import SchemaTree
from mistral_api.wire.shapes import JsonSchema

# The most parts of a constraint that are tried on their own.
_MOST_SUSPECTS = 6
# Words with the same beginning stay possible for as long as it lasts.
_BEGINNING_LENGTH = 8
_WHOLE = "whole-schema"


class SuspectSchema(NamedTuple):
    """A part of a schema as a schema of its own. ``once``: a generation meets its costly part once, after a while."""

    schema: JsonObject
    once: bool = False


def suspect_schemas(schema: JsonSchema) -> list[SuspectSchema]:
    """Return the parts of a schema that are not harmless, first those that a generation may meet again and again."""
    tree = SchemaTree(schema)
    repeated = {id(part) for part in tree.repeated()}
    costly = [part for part in tree.parts[1:] if not is_harmless_part(tree, part)]
    found = [each for part in costly for each in _suspects_of(part, repeated=id(part) in repeated)]
    found = sorted(found, key=lambda suspect: suspect.once)[:_MOST_SUSPECTS]
    if any("$ref" in part for part in tree.parts):
        # Each carries the whole schema with it, in which its references lead where they did.
        whole = {"$defs": {_WHOLE: _moved(schema)}}
        found = [SuspectSchema(_moved(each.schema) | whole, each.once) for each in found]
    return found


def _suspects_of(part: JsonSchema, *, repeated: bool) -> Iterator[SuspectSchema]:
    """Yield a part. A long enum stands where it would stand in the whole schema, which makes a difference to it."""
    words = part.get("enum")
    if not isinstance(words, list) or len(words) <= FEW_ENUM_WORDS:
        yield SuspectSchema(dict(part))
    elif repeated or _most_that_begin_alike(words) > FEW_ENUM_WORDS:
        yield SuspectSchema({"type": "array", "items": part, "minItems": 1})
    else:
        yield SuspectSchema({"type": "object", "properties": {"x": part}, "required": ["x"]}, once=True)
    pattern = part.get("pattern")
    if isinstance(pattern, str):
        loops = pattern_loops(pattern)[:_MOST_SUSPECTS]
        yield from (SuspectSchema({"type": "string", "pattern": f"^{loop}$"}) for loop in loops)


def _most_that_begin_alike(words: list[Any]) -> int:
    return max(Counter(str(word)[:_BEGINNING_LENGTH] for word in words).values())


def _moved(value: Any) -> Any:
    """Return a copy of a schema, or of what stands in it, whose references begin where the whole schema is now.

    llama.cpp follows what looks like a reference in data too, so these are moved as well.
    """
    if isinstance(value, list):
        return [_moved(each) for each in value]
    if not isinstance(value, dict):
        return value
    moved = {name: _moved(each) for name, each in value.items()}
    reference = value.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/"):
        moved["$ref"] = f"#/$defs/{_WHOLE}{reference[1:]}"
    return moved


def suspect_grammars(text: str) -> list[str]:
    """Return grammars that begin with each repeated group of one in GBNF.

    A rule that is defined again replaces the first one (llama.cpp's ``add_rule``).
    """
    if text.lstrip().startswith(LLGUIDANCE):
        return []
    loops = dict.fromkeys(parse_grammar(text).loops())
    return [f"{text}\nroot ::= {loop}\n" for loop in list(loops)[:_MOST_SUSPECTS]]
