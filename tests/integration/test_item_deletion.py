"""The effect of deleted items on a conversation's message tree."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from mistral_api.conversations.conversation import find_conversation
from mistral_api.conversations.item_renderer import parse_item_id
from mistral_api.conversations.items import delete_item
from mistral_api.database.tables.stored import StoredResponse
from mistral_api.errors import NotFound
from mistral_api.responses.stored_responses import read_context
from tests.support.conversations import (
    CALLED,
    CALLS,
    assert_chained,
    assistant,
    create,
    delete,
    deliver,
    ids_of,
    items_of,
    texts_of,
    user,
)
from tests.support.databases import rows_of
from tests.support.exchanges import an_exchange, answered, said


def test_deleting_a_message_links_its_neighbours(engine: Engine) -> None:
    one = create(engine, [user("a"), assistant("b"), user("c"), assistant("d")])
    first, second, _, last = ids_of(engine, one)
    assert delete(engine, one, second) == 3
    assert texts_of(engine, one) == ["a", "c", "d"]
    assert_chained(engine)
    assert delete(engine, one, last) == 2
    assert texts_of(engine, one) == ["a", "c"]
    assert delete(engine, one, first) == 1
    assert texts_of(engine, one) == ["c"]
    assert_chained(engine)
    deliver(engine, an_exchange(one, messages=said("e"), answers=answered("f")))
    assert texts_of(engine, one) == ["c", "e", "f"]


def test_conversation_without_items_can_be_used_again(engine: Engine) -> None:
    one = create(engine, [user("a")])
    assert delete(engine, one, ids_of(engine, one)[0]) == 0
    assert items_of(engine, one) == ([], False)
    deliver(engine, an_exchange(one, messages=said("b"), answers=answered("c")))
    assert texts_of(engine, one) == ["b", "c"]


def test_history_resent_without_the_deleted_message_continues_the_branch(engine: Engine) -> None:
    one = create(engine, [user("a"), assistant("b"), user("c"), assistant("d")])
    delete(engine, one, ids_of(engine, one)[1])
    now = [user("a"), user("c"), assistant("d")]
    deliver(engine, an_exchange(one, messages=[*now, user("e")], answers=answered("f")))
    assert texts_of(engine, one) == ["a", "c", "d", "e", "f"]
    assert rows_of(engine, "SELECT count(*) FROM messages") == [(5,)]


def test_history_resent_with_the_deleted_message_starts_a_branch(engine: Engine) -> None:
    before = [user("a"), assistant("b"), user("c"), assistant("d"), user("e"), assistant("f")]
    one = create(engine, before)
    delete(engine, one, ids_of(engine, one)[3])
    deliver(engine, an_exchange(one, messages=[*before, user("g")], answers=answered("h")))
    assert texts_of(engine, one) == ["a", "b", "c", "d", "e", "f", "g", "h"]
    assert rows_of(engine, "SELECT count(*) FROM messages") == [(10,)]
    assert_chained(engine)


def test_branches_below_a_deleted_message_are_kept(engine: Engine) -> None:
    start = [user("a"), assistant("b")]
    one = create(engine, start)
    branches = [an_exchange(one, messages=[*start, user(text)], answers=answered(f"re {text}")) for text in "xy"]
    deliver(engine, *branches)
    assert delete(engine, one, ids_of(engine, one)[1]) == 5
    assert texts_of(engine, one) == ["a", "y", "re y"]
    assert_chained(engine)
    again = [user("a"), user("x"), assistant("re x"), user("z")]
    deliver(engine, an_exchange(one, messages=again, answers=answered("re z")))
    assert texts_of(engine, one) == ["a", "x", "re x", "z", "re z"]


def test_items_of_one_message_are_deleted_one_by_one(engine: Engine) -> None:
    one = create(engine, [user("Add"), CALLED, user("Go on")])
    _, thought, said_, *calls, _ = ids_of(engine, one)
    for item_id in (calls[0], said_, thought, calls[2]):
        left = ids_of(engine, one)
        assert delete(engine, one, item_id) == 3
        assert ids_of(engine, one) == [each for each in left if each != item_id]
        assert_chained(engine)
    query = "SELECT content, tool_calls, extra, search FROM messages WHERE role = 'assistant'"
    assert rows_of(engine, query) == [(None, [CALLS[1] | {"index": 1}], None, None)]
    assert delete(engine, one, calls[1]) == 2
    assert texts_of(engine, one) == ["Add", "Go on"]


def test_response_chain_continues_from_the_remaining_items(engine: Engine) -> None:
    one = create(engine, [user("a"), assistant("b"), user("c"), assistant("d")])
    *_, question, answer = ids_of(engine, one)
    with Session(engine) as session:
        response = StoredResponse(
            id="resp_1",
            owner="local",
            conversation_id=find_conversation(session, "local", one).id,
            input_ids=[parse_item_id(question).message_id],
            answer_id=parse_item_id(answer).message_id,
            status="completed",
            created_at=datetime.now(UTC),
        )
        session.add(response)
        session.commit()
    for item_id, left in ((answer, ["a", "b", "c"]), (question, ["a", "b"])):
        delete(engine, one, item_id)
        with Session(engine) as session:
            context = read_context(session, "local", "resp_1")
        assert context is not None
        assert [message["content"] for message in context.messages] == left


def test_deleting_an_unknown_item_changes_nothing(engine: Engine) -> None:
    one, two = create(engine, [CALLED]), create(engine, [user("c")])
    call = ids_of(engine, one)[-1]
    for item_id in (call[:-1] + "9", *ids_of(engine, two)):
        with pytest.raises(NotFound):
            delete(engine, one, item_id)
    with pytest.raises(NotFound), Session(engine) as session:
        delete_item(session, "somebody else", one, call)
    assert len(ids_of(engine, one)) == 5
