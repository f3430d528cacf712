"""The numbers of Ollama's ``context`` hold the texts of a conversation, and nothing else is taken for them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mistral_api.generation.ollama_context import decode_context, encode_context

_TEXTS = st.text(st.characters(codec="utf-8"), max_size=200)
_MESSAGES = st.fixed_dictionaries({"role": st.sampled_from(("user", "assistant")), "content": _TEXTS})


@given(st.lists(_MESSAGES, max_size=5))
def test_messages_come_out_of_a_context_as_they_went_in(messages: list[Any]) -> None:
    context = encode_context(messages)
    assert all(0 <= number < 2**31 for number in context)
    assert decode_context(context) == messages


def test_context_leaves_out_images_and_everything_but_the_text() -> None:
    parts = [{"type": "text", "text": "Look"}, {"type": "image_url", "image_url": {"url": "data:,x"}}]
    messages: list[Any] = [
        {"role": "user", "content": parts},
        {"role": "assistant", "content": None, "reasoning_content": "hm"},
    ]
    assert decode_context(encode_context(messages)) == [
        {"role": "user", "content": "Look"},
        {"role": "assistant", "content": ""},
    ]


@pytest.mark.parametrize("damage", [lambda c: c[:-1], lambda c: [c[0], c[1], *reversed(c[2:])], lambda c: c[1:]])
def test_damaged_context_is_refused(damage: Any) -> None:
    context = encode_context([{"role": "user", "content": "A text of some length, not all of one letter."}])
    with pytest.raises(ValueError, match=r"damaged|mark"):
        decode_context(damage(context))


@pytest.mark.parametrize("context", [[1], [1, 2, 3], [1835101489], [1835101489, 0], [1835101489, 9, 2**31 - 1]])
def test_foreign_context_is_refused(context: list[int]) -> None:
    with pytest.raises(ValueError, match=r"damaged|mark"):
        decode_context(context)


def test_no_context_is_an_empty_conversation() -> None:
    assert decode_context([]) == []
