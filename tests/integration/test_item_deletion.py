"""The effect of deleted items on a conversation's message tree."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from mistral_api.conversations.conversation import find_conversation
from mistral_api.conversations.item_renderer import parse_item_id
from mistral_api.conversations.items import delete_item
from mistral_api.database.reads import DatabaseReads
from mistral_api.database.tables.stored import StoredResponse
from mistral_api.errors import NotFound
from mistral_api.responses.stored_responses import read_context
from tests.support.conversations import (
    ASSISTANT_WITH_CALLS,
    TOOL_CALLS,
    assert_digests_match,
    assistant,
    branch_texts,
    deliver_each,
    read_item_ids,
    read_items,
    remove_item,
    start_conversation,
    user,
)
from tests.support.databases import rows_of
from tests.support.exchanges import make_exchange, question, reply


def test_deleting_a_message_links_its_neighbours(engine: Engine) -> None:
    one = start_conversation(engine, [user("a"), assistant("b"), user("c"), assistant("d")])
    first, second, _, last = read_item_ids(engine, one)
    assert remove_item(engine, one, second) == 3
    assert branch_texts(engine, one) == ["a", "c", "d"]
    assert_digests_match(engine)
    assert remove_item(engine, one, last) == 2
    assert branch_texts(engine, one) == ["a", "c"]
    assert remove_item(engine, one, first) == 1
    assert branch_texts(engine, one) == ["c"]
    assert_digests_match(engine)
    deliver_each(engine, make_exchange(one, messages=question("e"), answers=reply("f")))
    assert branch_texts(engine, one) == ["c", "e", "f"]


def test_conversation_without_items_can_be_used_again(engine: Engine) -> None:
    one = start_conversation(engine, [user("a")])
    assert remove_item(engine, one, read_item_ids(engine, one)[0]) == 0
    assert read_items(engine, one) == ([], False)
    deliver_each(engine, make_exchange(one, messages=question("b"), answers=reply("c")))
    assert branch_texts(engine, one) == ["b", "c"]


def test_history_resent_without_the_deleted_message_continues_the_branch(engine: Engine) -> None:
    one = start_conversation(engine, [user("a"), assistant("b"), user("c"), assistant("d")])
    remove_item(engine, one, read_item_ids(engine, one)[1])
    now = [user("a"), user("c"), assistant("d")]
    deliver_each(engine, make_exchange(one, messages=[*now, user("e")], answers=reply("f")))
    assert branch_texts(engine, one) == ["a", "c", "d", "e", "f"]
    assert rows_of(engine, "SELECT count(*) FROM messages") == [(5,)]


def test_history_resent_with_the_deleted_message_starts_a_branch(engine: Engine) -> None:
    before = [user("a"), assistant("b"), user("c"), assistant("d"), user("e"), assistant("f")]
    one = start_conversation(engine, before)
    remove_item(engine, one, read_item_ids(engine, one)[3])
    deliver_each(engine, make_exchange(one, messages=[*before, user("g")], answers=reply("h")))
    assert branch_texts(engine, one) == ["a", "b", "c", "d", "e", "f", "g", "h"]
    assert rows_of(engine, "SELECT count(*) FROM messages") == [(10,)]
    assert_digests_match(engine)


def test_branches_below_a_deleted_message_are_kept(engine: Engine) -> None:
    start = [user("a"), assistant("b")]
    one = start_conversation(engine, start)
    branches = [make_exchange(one, messages=[*start, user(text)], answers=reply(f"re {text}")) for text in "xy"]
    deliver_each(engine, *branches)
    assert remove_item(engine, one, read_item_ids(engine, one)[1]) == 5
    assert branch_texts(engine, one) == ["a", "y", "re y"]
    assert_digests_match(engine)
    again = [user("a"), user("x"), assistant("re x"), user("z")]
    deliver_each(engine, make_exchange(one, messages=again, answers=reply("re z")))
    assert branch_texts(engine, one) == ["a", "x", "re x", "z", "re z"]


def test_items_of_one_message_are_deleted_one_by_one(engine: Engine) -> None:
    one = start_conversation(engine, [user("Add"), ASSISTANT_WITH_CALLS, user("Go on")])
    _, thought, said_, *calls, _ = read_item_ids(engine, one)
    for item_id in (calls[0], said_, thought, calls[2]):
        left = read_item_ids(engine, one)
        assert remove_item(engine, one, item_id) == 3
        assert read_item_ids(engine, one) == [each for each in left if each != item_id]
        assert_digests_match(engine)
    query = "SELECT content, tool_calls, extra, search_text FROM messages WHERE role = 'assistant'"
    assert rows_of(engine, query) == [(None, [TOOL_CALLS[1] | {"index": 1}], None, None)]
    assert remove_item(engine, one, calls[1]) == 2
    assert branch_texts(engine, one) == ["Add", "Go on"]


def test_response_chain_continues_from_the_remaining_items(engine: Engine) -> None:
    one = start_conversation(engine, [user("a"), assistant("b"), user("c"), assistant("d")])
    *_, question_item, answer = read_item_ids(engine, one)
    with Session(engine) as session:
        response = StoredResponse(
            id="resp_1",
            owner="local",
            conversation_id=find_conversation(session, "local", one).id,
            input_ids=[parse_item_id(question_item).message_id],
            answer_id=parse_item_id(answer).message_id,
            status="completed",
            created_at=datetime.now(UTC),
        )
        session.add(response)
        session.commit()
    for item_id, left in ((answer, ["a", "b", "c"]), (question_item, ["a", "b"])):
        remove_item(engine, one, item_id)
        context = read_context(DatabaseReads(engine), "local", "resp_1")
        assert context is not None
        assert [message["content"] for message in context.messages] == left


def test_deleting_an_unknown_item_changes_nothing(engine: Engine) -> None:
    one, two = start_conversation(engine, [ASSISTANT_WITH_CALLS]), start_conversation(engine, [user("c")])
    call = read_item_ids(engine, one)[-1]
    for item_id in (call[:-1] + "9", *read_item_ids(engine, two)):
        with pytest.raises(NotFound):
            remove_item(engine, one, item_id)
    with pytest.raises(NotFound), Session(engine) as session:
        delete_item(session, "somebody else", one, call)
    assert len(read_item_ids(engine, one)) == 5
