"""Half a surrogate pair becomes U+FFFD wherever it stands; a number beyond all bounds is refused by its field."""

from __future__ import annotations

import gzip
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mistral_api.errors import InvalidRequest
from mistral_api.wire import ChatCompletionRequest, load
from mistral_api.wire.body_bounds import load_body

PIECES = ["\ud83d", "\ude00", "\\", '"', "ud83d", "é", "a", "\0", "\n"]
TEXT = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)
VALUES = st.recursive(TEXT, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3))


def _expected(value: Any) -> Any:
    """Return a value with the pairs that its halves make, and U+FFFD for halves that make none."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [_expected(each) for each in value]
    return {_expected(name): _expected(each) for name, each in value.items()}


def _size(value: Any) -> int:
    if isinstance(value, dict):
        return len(value) + sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, list) else 0


@given(VALUES)
def test_halves_are_replaced_and_all_else_stays(value: Any) -> None:
    expected = _expected(value)
    try:
        decoded = load_body(json.dumps(value).encode())
    except InvalidRequest as error:  # two keys that differ in their halves have become one
        assert (error.code, _size(value) > _size(expected)) == ("duplicate_key", True)  # noqa: PT017
        return
    assert decoded == expected


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (rb"a\ud83d", "a\ufffd"),
        (rb"\ude00b", "\ufffdb"),
        (rb"\uD83D\uDE00", "\U0001f600"),
        (rb"\ud83d\ud83d\ude00\ude00", "\ufffd\U0001f600\ufffd"),
        (rb"\\ud83d", r"\ud83d"),
        (rb"\\\ud83d\\", "\\\ufffd\\"),
        (b"\xed\xa0\xbd!", "\ufffd!"),
    ],
)
def test_a_half_is_replaced_however_it_is_written(written: bytes, text: str) -> None:
    # The other half, in another string, makes the strict decoder refuse the body in any case.
    assert load_body(b'{"other": "\\ud800", "content": "' + written + b'"}')["content"] == text


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e400", "9" * 400 + ".5"])
@pytest.mark.parametrize(
    ("body", "param"),
    [
        ('{"messages": [], "temperature": %s}', "temperature"),
        ('{"a": [1, {"b": [%s, %s]}]}', "a[1].b[0]"),
        ('{"\\ud800": 1, "max_tokens": %s}', "max_tokens"),
        ("[%s]", "[0]"),
        ("%s", None),
    ],
)
def test_a_number_beyond_all_bounds_is_refused_by_its_field(number: str, body: str, param: str | None) -> None:
    with pytest.raises(InvalidRequest) as caught:
        load_body(body.replace("%s", number).encode())
    assert (caught.value.param, caught.value.code) == (param, "invalid_value")
    assert number[:20] in caught.value.message
    assert len(caught.value.message) < 200


@pytest.mark.parametrize(
    ("body", "param"), [('{"a": [1, {"b": [%s, %s]}]}', "a[1].b[0]"), ("[%s]", "[0]"), ("%s", None)]
)
@pytest.mark.parametrize(("sign", "code"), [("", "integer_above_max_value"), ("-", "integer_below_min_value")])
@pytest.mark.parametrize("digits", [400, 20_000])
def test_an_integer_beyond_all_bounds_is_refused_by_its_place(
    body: str, param: str | None, sign: str, code: str, digits: int
) -> None:
    with pytest.raises(InvalidRequest, match=f"has {digits} digits") as caught:
        load_body(body.replace("%s", sign + "9" * digits).encode())
    assert (caught.value.param, caught.value.code) == (param, code)


@pytest.mark.parametrize(
    ("field", "code", "words"),
    [
        ("seed", "integer_{}_value", "but got a number beyond all bounds"),
        ("n", "integer_{}_value", "but got a number beyond all bounds"),
        ("temperature", "decimal_{}_value", "but got a number beyond all bounds"),
        ("model", "invalid_type", "expected a string"),
    ],
)
@pytest.mark.parametrize("digits", [400, 5_000])
@pytest.mark.parametrize("sign", ["", "-"])
def test_an_integer_beyond_all_bounds_is_refused_by_its_fields_own_check(
    field: str, code: str, words: str, digits: int, sign: str
) -> None:
    body = f'{{"messages": [{{"role": "user", "content": "Hi"}}], "{field}": {sign}{"9" * digits}}}'
    with pytest.raises(InvalidRequest, match=words) as caught:
        load(ChatCompletionRequest(), load_body(body.encode()))
    assert (caught.value.param, caught.value.code) == (field, code.format("below_min" if sign else "above_max"))


@pytest.mark.parametrize(
    ("number", "shown"), [("-" + "9" * 30, "-1e+30"), ("9" * 19, "9" * 19), ("1" + "0" * 30, "1e+30")]
)
def test_a_number_beyond_64_bits_is_quoted_with_the_digits_that_it_has(number: str, shown: str) -> None:
    body = f'{{"messages": [{{"role": "user", "content": "Hi"}}], "seed": {number}}}'
    with pytest.raises(InvalidRequest, match=f"got {re.escape(shown)} instead"):
        load(ChatCompletionRequest(), load_body(body.encode()))


def test_a_key_that_stands_twice_is_found_beside_a_large_integer() -> None:
    with pytest.raises(InvalidRequest) as caught:
        load_body(b'{"a": %s, "b": 1, "b": 2}' % (b"9" * 5_000))
    assert caught.value.code == "duplicate_key"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (gzip.compress(b"{}", mtime=0), "it looks like gzip"),
        ('{"a": 1}'.encode("utf-16"), "it looks like UTF-16"),
        ('{"a": 1}'.encode("utf-16-le"), "it looks like UTF-16"),
        (b'{"a": "\xe9"}', "it is no UTF-8 at byte 8"),
        (b'{"a": "\xed\xa0\x80"', "at line 1"),
    ],
)
def test_a_body_in_another_encoding_is_refused_in_our_words(content: bytes, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        load_body(content)


@pytest.mark.parametrize("content", [b'{"a": NaN', b"\xff\xfe", b'{"a": 1e999,}', b'"\0\\ud800"', b'{"a": nan}'])
def test_what_is_no_json_otherwise_is_refused_as_such(content: bytes) -> None:
    with pytest.raises(InvalidRequest, match="could not parse the JSON body"):
        load_body(content)
