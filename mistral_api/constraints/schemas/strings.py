"""Strings of a schema: their pattern, their format, and how long they are."""

from __future__ import annotations

from mistral_api.constraints.schemas.context import Bases, Context, holder
from mistral_api.constraints.schemas.errors import Impossible
from mistral_api.constraints.schemas.formats import FORMAT_PATTERNS
from mistral_api.constraints.schemas.values import Simple, Text, Value
from mistral_api.grammars.errors import Untranslatable
from mistral_api.grammars.gbnf import MOST_COUNT
from mistral_api.grammars.patterns import json_string_pattern, json_string_rules
from mistral_api.payload_types import JsonObject

# llama.cpp counts the two escapes of one character beyond the BMP as two, so that only these are exact.
_EXACT_LEAST = 1


def strings(context: Context, bases: Bases) -> Value:
    """Return the strings that fit these parts."""
    low, high = context.counts(bases, "minLength", "maxLength")
    if high is not None and low > high:
        raise Impossible(context.parts.place(holder(bases, "minLength")), "'minLength' is above 'maxLength'")
    found = _pattern(context, bases)
    if found is not None:
        part, keyword, pattern = found
        written = _translated(context, part, keyword, pattern, (low, high))
        if written is not None:
            if keyword == "format" or written != pattern or low or high is not None:
                context.changed()
            return Text(pattern, low, high, written)
        context.changed()
        if context.needs_grammar and _is_said_by_grammar(pattern, (low, high)):
            return Text(pattern, low, high)
    return _of_length(context, bases, low, high)


def _of_length(context: Context, bases: Bases, low: int, high: int | None) -> Value:
    """Return the strings of so many characters."""
    if not low and high is None:
        return Simple("string")
    if context.strictness.lenient:
        return Text("", low, high)
    if low > MOST_COUNT:
        context.give_up(holder(bases, "minLength"), "minLength", f"it has to be at most {MOST_COUNT}")
    if high is not None and high > MOST_COUNT:
        context.changed()
        high = MOST_COUNT
    if low <= _EXACT_LEAST:
        return Text("", low, high)
    context.changed()
    return Text("", low, high, json_string_pattern("", min_length=low, max_length=high))


def _pattern(context: Context, bases: Bases) -> tuple[JsonObject, str, str] | None:
    """Return the pattern that strings have to match, with the part and the keyword that say so.

    A format is enforced where no pattern stands beside it: those who write both mean the same. Where the strictness is
    lenient, llama.cpp's own patterns of some formats do.
    """
    patterns = [(base, base["pattern"]) for base in bases if has_pattern(context, base)]
    different = list(dict.fromkeys(pattern for _, pattern in patterns))
    if len(different) > 1:
        return patterns[1][0], "pattern", "^" + "".join(f"(?=[\\s\\S]*(?:{pattern}))" for pattern in different)
    if patterns:
        return patterns[0][0], "pattern", patterns[0][1]
    if context.strictness.lenient:
        return None
    formats = [(base, pattern) for base in bases if (pattern := pattern_of_format(base)) is not None]
    if len({pattern for _, pattern in formats}) > 1:
        context.give_up(formats[1][0], "format", "two formats cannot be enforced together")
    return (formats[0][0], "format", formats[0][1]) if formats else None


def pattern_of_format(base: JsonObject) -> str | None:
    """Return the pattern of the format that a part names; None where it names none that a pattern can say."""
    name = base.get("format")
    return FORMAT_PATTERNS.get(name) if isinstance(name, str) else None


def check_format(context: Context, base: JsonObject) -> None:
    """Give up a format that is no string: llama.cpp fails on it, whatever the type is."""
    if not isinstance(base.get("format", ""), str):
        context.changed()
        context.give_up(base, "format", "it has to be a string")


def has_pattern(context: Context, base: JsonObject) -> bool:
    """Return whether a part has a pattern; what is no string is given up."""
    if "pattern" not in base or isinstance(base["pattern"], str):
        return "pattern" in base
    context.changed()
    context.give_up(base, "pattern", "it has to be a string")
    return False


def _translated(
    context: Context, part: JsonObject, keyword: str, pattern: str, lengths: tuple[int, int | None]
) -> str | None:
    """Return a pattern for llama.cpp's converter; None where only a grammar can say it, or it is given up."""
    context.deadline.check()
    try:
        return json_string_pattern(pattern, min_length=lengths[0], max_length=lengths[1])
    except Untranslatable as error:
        if _is_said_by_grammar(pattern, lengths):
            context.may_use_grammar(part, keyword, error.reason)
        else:
            context.give_up(part, keyword, error.reason)
        return None


def _is_said_by_grammar(pattern: str, lengths: tuple[int, int | None]) -> bool:
    """Return whether rules say what is too long for a pattern."""
    try:
        json_string_rules("text", pattern, min_length=lengths[0], max_length=lengths[1])
    except Untranslatable:
        return False
    return True
