"""Exchanges that say where they belong, and under which ids they are to be stored."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from mistral_api.conversations.conversation import find_conversation, read_page
from mistral_api.delivery.writer import BatchInserter
from mistral_api.recording.exchange import Exchange
from mistral_api.system.identifiers import new_id
from tests.support.exchanges import an_exchange, answered, said

together = pytest.mark.parametrize("together", [True, False], ids=["in one batch", "one by one"])


def _deliver(engine: Engine, exchanges: list[Exchange], together: bool) -> None:
    delivery = BatchInserter(engine)
    for batch in [exchanges] if together else [[exchange] for exchange in exchanges]:
        delivery.insert(batch)


def _branch(engine: Engine, session_id: str = "one") -> list[tuple[UUID, str]]:
    with Session(engine) as session:
        page = read_page(session, find_conversation(session, "local", session_id), 500, None, None)
        return [(message.id, message.content) for message in page.messages]


def _turn(text: str, **fields: Any) -> Exchange:
    return an_exchange(
        messages=said(text), answers=answered(f"re {text}"), message_ids=[new_id()], answer_id=new_id(), **fields
    )


@together
def test_messages_are_stored_under_the_ids_they_were_given(engine: Engine, together: bool) -> None:
    first, second = _turn("a"), _turn("b")
    _deliver(engine, [first, second], together)
    expected = [(each.message_ids[0], each.answer_id) for each in (first, second) if each.message_ids]
    assert [message_id for message_id, _ in _branch(engine)] == [one for pair in expected for one in pair]


@together
def test_an_exchange_follows_the_message_it_continues_also_when_others_came_since(
    engine: Engine, together: bool
) -> None:
    first = _turn("a")
    second = _turn("b", continues=first.answer_id)
    other = _turn("c", continues=first.answer_id)
    _deliver(engine, [first, second, other], together)
    assert [text for _, text in _branch(engine)] == ["a", "re a", "c", "re c"]
    back = _turn("d", continues=second.answer_id)
    _deliver(engine, [back], together)
    assert [text for _, text in _branch(engine)] == ["a", "re a", "b", "re b", "d", "re d"]


@together
@pytest.mark.parametrize("named", [True, False], ids=["continued", "where the conversation is"])
def test_an_answer_to_nothing_new_is_stored(engine: Engine, together: bool, named: bool) -> None:
    first = _turn("a")
    fields: dict[str, Any] = {"messages": [], "message_ids": [], "answer_id": new_id()}
    if named:
        fields["continues"] = first.answer_id
    more = an_exchange(answers=answered("more"), **fields)
    failed = an_exchange(answer_status="failed", **fields)
    _deliver(engine, [first, more, failed], together)
    assert [text for _, text in _branch(engine)] == ["a", "re a", "more"]
    assert _branch(engine)[-1][0] == more.answer_id


@together
def test_what_is_said_again_after_a_continued_message_is_said_twice(engine: Engine, together: bool) -> None:
    first = an_exchange(messages=said("a"), answers=answered("re"), answer_id=new_id())
    again = an_exchange(messages=said("a"), answers=answered("re"), continues=first.answer_id)
    _deliver(engine, [first, again], together)
    assert [text for _, text in _branch(engine)] == ["a", "re", "a", "re"]


@together
def test_what_follows_a_continued_message_is_stored_as_it_is(engine: Engine, together: bool) -> None:
    examples = [*said("a"), {"role": "assistant", "content": "re"}, *said("b")]
    system = {"role": "system", "content": "Be kind."}
    first = an_exchange(messages=[system, *said("a")], answers=answered("re"), answer_id=new_id())
    again = an_exchange(messages=[system, *examples], answers=answered("well"), continues=first.answer_id)
    _deliver(engine, [first, again], together)
    texts = [text for _, text in _branch(engine)]
    assert texts == ["Be kind.", "a", "re", "Be kind.", "a", "re", "b", "well"]


def test_a_message_that_is_gone_or_another_conversations_cannot_be_continued(engine: Engine) -> None:
    stranger, own = _turn("x", session_id="two"), _turn("a")
    _deliver(engine, [stranger, own], True)
    _deliver(engine, [_turn("b", continues=stranger.answer_id), _turn("c", continues=new_id())], False)
    assert [text for _, text in _branch(engine)] == ["a", "re a", "b", "re b", "c", "re c"]
    assert [text for _, text in _branch(engine, "two")] == ["x", "re x"]
