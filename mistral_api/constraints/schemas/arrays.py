"""Arrays of a schema: their items, and how many there are."""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from typing import Any

from mistral_api.constraints.schemas.context import Bases, Compiler, Context, holder
from mistral_api.constraints.schemas.errors import Impossible
from mistral_api.constraints.schemas.literals import identity
from mistral_api.constraints.schemas.values import ANY, Items, Simple, Subset, Value
from mistral_api.grammars.gbnf import MOST_COUNT
from mistral_api.payload_types import JsonObject

_MOST_UNIQUE = 20
_UNIQUE = f"items can be made to differ only where they are of a list of at most {_MOST_UNIQUE} values"
_UNIQUE_TOOL = "llama.cpp cannot enforce it in the arguments of a strict tool that the model may choose to call"
_CONTAINS = "llama.cpp cannot be made to put an item of some kind somewhere into an array"
_TUPLE = "items behind 'prefixItems' are not supported in the arguments of a strict tool that the model may choose"


def arrays(compiler: Compiler, bases: Bases) -> Value:
    """Return the arrays that fit these parts."""
    context = compiler.context
    low, high = _counts(context, bases)
    _refuse_contains(context, bases, low)
    lists = [_prefix(context, base) for base in bases]
    rests = [_rest(context, base, bool(prefix)) for base, prefix in zip(bases, lists, strict=True)]
    length = max(map(len, lists), default=0)
    prefix, rest = _compiled(compiler, lists, [each for each in rests if each is not None], length)
    if rest is None:
        high = len(prefix) if high is None else min(high, len(prefix))
        if low > high:
            raise Impossible(context.parts.place(bases[0]), "its arrays need an item that no value fits")
    items = Items(prefix, rest, low, high)
    unique = next((base for base in bases if base.get("uniqueItems") is True), None)
    if unique is not None and high not in (0, 1):
        subset = _subset(compiler, unique, items)
        if subset is not None:
            return subset
    if length:
        return _tuple(context, bases, items, rest_given=any(each is not None for each in rests))
    return Simple("array") if items == Items((), ANY) else items


def _counts(context: Context, bases: Bases) -> tuple[int, int | None]:
    """Return how many items there may be."""
    low, high = context.counts(bases, "minItems", "maxItems")
    if high is not None and low > high:
        raise Impossible(context.parts.place(holder(bases, "minItems")), "'minItems' is above 'maxItems'")
    if high is not None and high > MOST_COUNT:
        context.changed()
        high = MOST_COUNT
    if low > MOST_COUNT:
        context.give_up(holder(bases, "minItems"), "minItems", f"it has to be at most {MOST_COUNT}")
    return low, high


def _prefix(context: Context, base: JsonObject) -> list[Any]:
    """Return the schemas of the first items; in draft 7 and before, ``items`` holds them."""
    if isinstance(base.get("items"), list):
        return context.list_of(base, "items")
    return context.list_of(base, "prefixItems")


def _rest(context: Context, base: JsonObject, has_prefix: bool) -> JsonObject | bool | None:
    """Return the schema of all further items; None where a base says nothing of them."""
    if isinstance(base.get("items"), list):
        found = context.schema_of(base, "additionalItems")
    else:
        found = context.schema_of(base, "items")
    if found is not None and has_prefix:
        context.changed()
    if found is None and base.get("unevaluatedItems") is False:
        context.changed()
        return False
    return found


def _compiled(
    compiler: Compiler, lists: list[list[Any]], rests: list[JsonObject | bool], length: int
) -> tuple[tuple[Value, ...], Value | None]:
    """Return the items, as many as may stand at the beginning, and the further ones (None: there may be none)."""
    with compiler.inside():
        prefix: list[Value] = []
        for index in range(length):
            compiler.context.deadline.check()
            parts = [each[index] for each in lists if index < len(each)]
            item = _possible(compiler, [*parts, *(rests if len(parts) < len(lists) else [])])
            if item is None:
                return tuple(prefix), None
            prefix.append(item)
        return tuple(prefix), _possible(compiler, rests)


def _possible(compiler: Compiler, parts: Sequence[JsonObject | bool]) -> Value | None:
    try:
        return compiler.compile(parts)
    except Impossible:
        compiler.context.changed()
        return None


def _tuple(context: Context, bases: Bases, items: Items, *, rest_given: bool) -> Value:
    """Return a tuple as it can be written: llama.cpp knows only those of one length.

    Where a schema does not say what comes behind the first items, or that some may be missing, as many come as it
    names, or as it demands.
    """
    length = len(items.prefix)
    if rest_given and items.rest is not None and items.high != length:
        part = holder(bases, "prefixItems", "items")
        if context.may_use_grammar(part, "items", _TUPLE):
            return items
    wanted = max(items.low, length if items.high is None else min(length, items.high))
    if wanted != length:
        context.changed()
    further = [items.rest or ANY] * (wanted - length)
    return Items((*items.prefix[:wanted], *further), None, wanted, wanted)


def _subset(compiler: Compiler, part: JsonObject, items: Items) -> Value | None:
    """Return arrays whose items differ: of listed values each once, in their order. None where that is given up."""
    context = compiler.context
    listed = None if items.rest is None or items.prefix else compiler.listed(items.rest)
    if listed is None or len(listed) > _MOST_UNIQUE:
        context.give_up(part, "uniqueItems", _UNIQUE)
        return None
    if not context.may_use_grammar(part, "uniqueItems", _UNIQUE_TOOL):
        return None
    by_identity: dict[Hashable, str] = {}
    for text in listed:
        by_identity.setdefault(identity(json.loads(text)), text)
    different = tuple(by_identity.values())
    if items.low > len(different):
        raise Impossible(context.parts.place(part, "uniqueItems"), "there are too few different items")
    return Subset(different, items.low, items.high)


def _refuse_contains(context: Context, bases: Bases, low: int) -> None:
    for base in bases:
        if "contains" in base and base.get("minContains") != 0 and not (base["contains"] is True and low):
            context.give_up(base, "contains", _CONTAINS)
        elif "maxContains" in base and "contains" in base:
            context.give_up(base, "maxContains", _CONTAINS)
