"""Exchanges that name the message they continue and the ids of their own messages."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine

from mistral_api.recording.exchange import Exchange
from mistral_api.system.identifiers import new_id
from tests.support.conversations import deliver_batch, read_messages, together
from tests.support.exchanges import make_exchange, question, reply


def _branch(engine: Engine, session_id: str = "one") -> list[tuple[UUID, Any]]:
    return [(message.id, message.content) for message in read_messages(engine, session_id)]


def _turn(text: str, **fields: Any) -> Exchange:
    return make_exchange(
        messages=question(text),
        answers=reply(f"re {text}"),
        message_ids=[new_id()],
        answer_id=new_id(),
        **fields,
    )


@together
def test_messages_are_stored_under_the_ids_of_their_exchange(engine: Engine, together: bool) -> None:
    first, second = _turn("a"), _turn("b")
    deliver_batch(engine, [first, second], together)
    expected = [(each.message_ids[0], each.answer_id) for each in (first, second) if each.message_ids]
    assert [message_id for message_id, _ in _branch(engine)] == [one for pair in expected for one in pair]


@together
def test_exchange_follows_the_message_it_continues_despite_newer_messages(engine: Engine, together: bool) -> None:
    first = _turn("a")
    second = _turn("b", continues=first.answer_id)
    other = _turn("c", continues=first.answer_id)
    deliver_batch(engine, [first, second, other], together)
    assert [text for _, text in _branch(engine)] == ["a", "re a", "c", "re c"]
    back = _turn("d", continues=second.answer_id)
    deliver_batch(engine, [back], together)
    assert [text for _, text in _branch(engine)] == ["a", "re a", "b", "re b", "d", "re d"]


@together
@pytest.mark.parametrize("named", [True, False], ids=["continued", "where the conversation is"])
def test_answer_without_new_input_messages_is_stored(engine: Engine, together: bool, named: bool) -> None:
    first = _turn("a")
    fields: dict[str, Any] = {"messages": [], "message_ids": [], "answer_id": new_id()}
    if named:
        fields["continues"] = first.answer_id
    more = make_exchange(answers=reply("more"), **fields)
    failed = make_exchange(answer_status="failed", **fields)
    deliver_batch(engine, [first, more, failed], together)
    assert [text for _, text in _branch(engine)] == ["a", "re a", "more"]
    assert _branch(engine)[-1][0] == more.answer_id


@together
def test_repeated_text_after_a_continued_message_is_stored_again(engine: Engine, together: bool) -> None:
    first = make_exchange(messages=question("a"), answers=reply("re"), answer_id=new_id())
    again = make_exchange(messages=question("a"), answers=reply("re"), continues=first.answer_id)
    deliver_batch(engine, [first, again], together)
    assert [text for _, text in _branch(engine)] == ["a", "re", "a", "re"]


@together
def test_messages_after_a_continued_message_are_stored_unmatched(engine: Engine, together: bool) -> None:
    examples = [*question("a"), {"role": "assistant", "content": "re"}, *question("b")]
    system = {"role": "system", "content": "Be kind."}
    first = make_exchange(messages=[system, *question("a")], answers=reply("re"), answer_id=new_id())
    again = make_exchange(messages=[system, *examples], answers=reply("well"), continues=first.answer_id)
    deliver_batch(engine, [first, again], together)
    texts = [text for _, text in _branch(engine)]
    assert texts == ["Be kind.", "a", "re", "a", "re", "b", "well"]


def test_unknown_or_foreign_message_cannot_be_continued(engine: Engine) -> None:
    stranger, own = _turn("x", session_id="two"), _turn("a")
    deliver_batch(engine, [stranger, own], True)
    deliver_batch(engine, [_turn("b", continues=stranger.answer_id), _turn("c", continues=new_id())], False)
    assert [text for _, text in _branch(engine)] == ["a", "re a", "b", "re b", "c", "re c"]
    assert [text for _, text in _branch(engine, "two")] == ["x", "re x"]
