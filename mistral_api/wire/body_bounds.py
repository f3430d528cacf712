"""Bounds of a JSON body as a whole, and its decoding: how deep, how many values, how many keys an object, none twice.

They bound what a body costs, here and in the model server. Seen on llama.cpp: it finds a key by comparing it with all
others of the object, so 80 000 keys take it 31 s.

What stands outside of strings tells the counts and the depth before anything is decoded. It is found by C code of bytes
alone, in time that grows with the size of the body, whatever is in it: a message or an image of a megabyte costs less
than its decoding. Python loops run over decoded objects and arrays, never over bytes.

orjson keeps the last of two equal keys, other parsers the first, so that a check may see another value than the model
server. An object has a key twice where the decoded body has fewer keys than it has colons outside of strings.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import orjson

from mistral_api.errors import MalformedRequest
from mistral_api.wire.body_repair import decode_repaired, without_halves
from mistral_api.wire.constraints import levels
from mistral_api.wire.field_errors import add_key, quote_value

# orjson reads 1024 levels and writes 254; the model server and our records wrap what they get.
MOST_LEVELS = 100
# Room for the tokens of an embeddings request (OpenAI takes 300 000 in all), and for a chat of 10 000 messages.
MOST_VALUES = 2**19
MOST_KEYS = 2**17
MOST_KEYS_AN_OBJECT = 1024

# What the bodies of other encodings begin with.
_GZIP, _UTF16 = b"\x1f\x8b", (b"\xff\xfe", b"\xfe\xff")
_TO_PARENTHESES = bytes.maketrans(b"[{]}", b"(())")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))


def load_body(content: bytes) -> Any:
    """Return a decoded body that is within the bounds. Raises MalformedRequest, which names the field where it can."""
    pieces = _pieces(content)
    outside = b"".join(pieces[::2])
    keys = outside.count(b":")
    _check_counts(outside, keys)
    _check_depth(outside, pieces)
    del pieces, outside
    try:
        body: Any = orjson.loads(content)
    except orjson.JSONDecodeError:
        body, content = _decode_repaired(content)
    if keys:
        _check_objects(body, keys, content)
    return body


def _pieces(content: bytes) -> list[bytes]:
    """Return the body cut at the quotes of its strings: by turns what stands outside of strings, and a string.

    In what is no JSON at all the pieces mean nothing; it is refused when it is decoded.
    """
    if b"\\" in content and b'\\"' in content:
        # Backslashes pair off from the left; a quote after one that is left over is part of the string.
        content = content.replace(b"\\\\", b"").replace(b'\\"', b"")
    if content.count(b'"') > 2 * (MOST_VALUES + MOST_KEYS):
        _refuse_many_values()
    return content.split(b'"')


def _check_counts(outside: bytes, keys: int) -> None:
    if outside.count(b",") + outside.count(b"[") + outside.count(b"{") > MOST_VALUES:
        _refuse_many_values()
    if keys > MOST_KEYS:
        raise MalformedRequest(
            f"The request body is too large: expected at most {MOST_KEYS} keys in all its objects, but got {keys}.",
            code="object_above_max_properties",
        )


def _refuse_many_values() -> NoReturn:
    raise MalformedRequest(
        f"The request body is too large: expected at most {MOST_VALUES} values in it.", code="array_above_max_length"
    )


def _check_depth(outside: bytes, pieces: list[bytes]) -> None:
    """Refuse a body that is nested too deeply. Each round takes away the innermost brackets."""
    brackets = outside.translate(_TO_PARENTHESES, _NO_BRACKETS)
    for _ in range(MOST_LEVELS + 1):
        left = brackets.replace(b"()", b"")
        if len(left) == len(brackets):  # nothing is left, or it is no JSON
            return
        brackets = left
    if brackets:
        name = _deep_field(pieces)
        where = f"Invalid '{name}'" if name else "Invalid request"
        text = f"{where}: nested too deeply. Expected at most {MOST_LEVELS} levels."
        raise MalformedRequest(text, code="invalid_value", param=name)


def _deep_field(pieces: list[bytes]) -> str | None:
    """Return the name of the field that is nested too deeply; None where the body is no object."""
    depth, name = 0, None
    for index in range(0, len(pieces), 2):
        outside = pieces[index].translate(_TO_PARENTHESES, _NO_BRACKETS)
        if depth == 1 and pieces[index].lstrip().startswith(b":") and index:
            name = quote_value(pieces[index - 1].decode(errors="replace"))
        opened = outside.count(b"(")
        if depth + opened > MOST_LEVELS + 1:
            return name
        depth += 2 * opened - len(outside)
    return name


def _decode_repaired(content: bytes) -> tuple[Any, bytes]:
    """Return what a body means that is no strict JSON, and the body without what was wrong. Raises InvalidRequest."""
    try:
        return decode_repaired(content)
    except orjson.JSONDecodeError as error:
        raise MalformedRequest(
            "We could not parse the JSON body of your request. The API expects a JSON payload in UTF-8, "
            f"and parsing failed: {_reason(content, error)}."
        ) from error


def _reason(content: bytes, error: orjson.JSONDecodeError) -> str:
    """Return in our words why a body is no JSON."""
    if content.startswith(_GZIP):
        return "it looks like gzip; say so in 'Content-Encoding'"
    if content.startswith(_UTF16) or b"\0" in content[:4]:
        return "it looks like UTF-16 or UTF-32"
    try:
        without_halves(content).decode()
    except UnicodeDecodeError as invalid:
        return f"it is no UTF-8 at byte {invalid.start + 1}"
    return f"{error.msg} at line {error.lineno} column {error.colno}"


def _check_objects(body: object, keys: int, content: bytes) -> None:
    """Check the number of keys of each object, and that none has a key twice. ``keys``: how many there are in all."""
    objects = [each for level in levels(body) for each in level if type(each) is dict]
    sizes = list(map(len, objects))
    if max(sizes) > MOST_KEYS_AN_OBJECT:
        _refuse_large_object(body)
    if sum(sizes) != keys:
        _refuse_duplicate(content)


def _refuse_large_object(body: object) -> NoReturn:
    """Refuse the first object with too many keys, by its path."""
    name, large = next(_objects_at(body, lambda value: type(value) is dict and len(value) > MOST_KEYS_AN_OBJECT))
    where = f"Invalid '{name}'" if name else "Invalid request"
    raise MalformedRequest(
        f"{where}: object with too many properties. Expected an object with at most {MOST_KEYS_AN_OBJECT} properties, "
        f"but got an object with {len(large)} properties instead.",
        code="object_above_max_properties",
        param=name or None,
    )


def _objects_at(body: Any, wanted: Callable[[Any], bool]) -> Iterator[tuple[str, Any]]:
    """Yield the objects and arrays that are wanted, each with its path, those that stand first in the body first."""
    waiting = [("", body)]
    while waiting:
        path, value = waiting.pop()
        if wanted(value):
            yield path, value
        steps = value.items() if type(value) is dict else enumerate(value if type(value) is list else ())
        inner = [(_joined(path, step), each) for step, each in steps if type(each) in _CONTAINERS]
        waiting.extend(reversed(inner))


def _joined(path: str, step: str | int) -> str:
    return add_key(path, step) if isinstance(step, str) else f"{path}[{step}]"


class _Duplicate:
    """An object that has a key twice, in the place of the object."""

    def __init__(self, key: str) -> None:
        self.key = key


_CONTAINERS = (dict, list, _Duplicate)


def _refuse_duplicate(content: bytes) -> NoReturn:
    """Refuse a body by the key that one of its objects has twice. It has been found to be within all other bounds."""
    # Python refuses to decode integers of thousands of digits, and no number matters here.
    body = json.loads(content, object_pairs_hook=_distinct, parse_int=str)
    path, found = next(_objects_at(body, lambda value: type(value) is _Duplicate))
    name = add_key(path, found.key)
    text = f"Invalid '{name}': duplicate key. An object of the request body has it more than once."
    raise MalformedRequest(text, code="duplicate_key", param=name)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _Duplicate:
    """Return the object with these pairs, or the first key that is there twice."""
    decoded: dict[str, Any] = {}
    for name, value in pairs:
        if name in decoded:
            return _Duplicate(name)
        decoded[name] = value
    return decoded
