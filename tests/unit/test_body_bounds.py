"""Bodies that are too deep, too large or say a thing twice are refused by name; all others are decoded as they are."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mistral_api.errors import InvalidRequest
from mistral_api.wire.body_bounds import MOST_KEYS, MOST_KEYS_AN_OBJECT, MOST_LEVELS, MOST_VALUES, load_body

HELLO = [{"role": "user", "content": "Hi"}]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
)


def refusal(content: bytes) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        load_body(content)
    return caught.value


def many(count: int) -> dict[str, int]:
    return {f"key{number}": number for number in range(count)}


@given(VALUES)
def test_ordinary_json_is_decoded_as_it_is(value: Any) -> None:
    assert load_body(orjson.dumps(value)) == value


@given(VALUES)
def test_json_with_escapes_and_spaces_is_decoded_as_it_is(value: Any) -> None:
    written = orjson.dumps(value, option=orjson.OPT_INDENT_2).decode().encode("ascii", "backslashreplace")
    try:
        expected = orjson.loads(written)
    except orjson.JSONDecodeError:  # Python's escapes of other characters are no JSON
        return
    assert load_body(written) == expected


@pytest.mark.parametrize("content", [b"", b"{", b'{"a":1,}', b'{"a":"\\"', b"\xff", b'"' * 7, b"{]", b'{"a":"\\' * 9])
def test_what_is_no_json_is_refused_as_such(content: bytes) -> None:
    assert "could not parse the JSON body" in refusal(content).message


@pytest.mark.parametrize("name", ["unknown", "messages", "response_format", "tools"])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]")])
def test_a_body_that_is_nested_too_deeply_is_refused_by_field(name: str, opening: bytes, closing: bytes) -> None:
    deep = opening * 900 + b"1" + closing * 900
    error = refusal(b'{"stop":["[[[","x"],"%s":%s,"z":[]}' % (name.encode(), deep))
    assert (error.param, error.code) == (name, "invalid_value")
    assert "nested too deeply" in error.message


def test_brackets_in_strings_are_no_depth() -> None:
    assert load_body(orjson.dumps({"a": "[" * 5000, "b": '\\"[[' * 500})) is not None


def test_depth_up_to_the_bound_is_taken() -> None:
    content = b'{"a":' + b"[" * MOST_LEVELS + b"]" * MOST_LEVELS + b"}"
    assert load_body(content) == orjson.loads(content)
    assert refusal(content.replace(b"[]", b"[[]]")).param == "a"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": HELLO} | many(80_000), None),
        ({"messages": HELLO, "chat_template_kwargs": many(40_000)}, "chat_template_kwargs"),
        ({"messages": HELLO, "logit_bias": many(40_000)}, "logit_bias"),
        ({"messages": HELLO, "tools": [{"a": {"b": many(2000)}}]}, "tools[0].a.b"),
        ([HELLO, many(2000)], "[1]"),
    ],
)
def test_an_object_with_too_many_keys_is_refused_by_field(body: Any, param: str | None) -> None:
    error = refusal(orjson.dumps(body))
    assert (error.param, error.code) == (param, "object_above_max_properties")
    assert f"at most {MOST_KEYS_AN_OBJECT} properties" in error.message


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b'{"prompt":"a","prompt":"b"}', "prompt"),
        (b'{"messages":[{"role":"user","content":"a","role":"system"}]}', "messages[0].role"),
        (b'{"a":{"\\u0062":1,"b":2}}', "a.b"),
        (b'{"a:b":{"\\"":1,"\\"":2}}', 'a:b."'),
        (b'{"\\\\":":",\n "\\\\" : ":"}', "\\"),
    ],
)
def test_a_key_that_an_object_has_twice_is_refused_by_name(content: bytes, name: str) -> None:
    error = refusal(content)
    assert (error.param, error.code) == (name, "duplicate_key")


def test_the_same_key_in_different_objects_is_no_duplicate() -> None:
    assert load_body(b'{"a":{"a":[{"a":1},{"a":2}]}}') == {"a": {"a": [{"a": 1}, {"a": 2}]}}


@pytest.mark.parametrize(
    "content",
    [
        b"[" + b"1," * MOST_VALUES + b"1]",
        b"[" + b"[]," * MOST_VALUES + b"1]",
        b'"' * (20 << 20),
        b"[" + b'"",' * (MOST_VALUES + MOST_KEYS) + b"1]",
    ],
)
def test_too_many_values_are_refused(content: bytes) -> None:
    error = refusal(content)
    assert error.code == "array_above_max_length"
    assert str(MOST_VALUES) in error.message


def test_too_many_keys_in_all_are_refused() -> None:
    objects = [many(MOST_KEYS_AN_OBJECT)] * (MOST_KEYS // MOST_KEYS_AN_OBJECT + 1)
    assert refusal(orjson.dumps(objects)).code == "object_above_max_properties"


def test_as_many_tokens_as_an_embeddings_request_may_have_are_taken() -> None:
    tokens = list(range(300_000))
    assert load_body(orjson.dumps({"input": tokens}))["input"] == tokens
