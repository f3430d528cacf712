"""Pages of items."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine, event
from sqlalchemy.orm import Session

from mistral_api.conversations.conversation import find_conversation
from mistral_api.conversations.item_renderer import ItemIds
from mistral_api.conversations.items import ItemPageQuery, find_item, list_items
from mistral_api.database.tables.conversations import Message
from mistral_api.errors import NotFound
from tests.support.conversations import CALLED, CALLS, assistant, create, deliver, ids_of, items_of, user
from tests.support.exchanges import an_exchange, answered


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize("limit", [1, 2, 3, 5, 10, 11])
def test_pages_hold_every_item_once_and_the_last_one_says_so(engine: Engine, limit: int, newest_first: bool) -> None:
    # 1 + 5 + 3 + 1 items
    tools = [{"role": "tool", "tool_call_id": call["id"], "content": "3"} for call in CALLS]
    one = create(engine, [user("Add"), CALLED, *tools, assistant("Done")])
    everything = ids_of(engine, one, newest_first=newest_first)
    assert len(everything) == 10
    assert everything[:: -1 if newest_first else 1] == ids_of(engine, one)
    pages, after = [], None
    while True:
        items, has_more = items_of(engine, one, limit=limit, newest_first=newest_first, after=after)
        pages.append([item["id"] for item in items])
        if not has_more:
            break
        after = pages[-1][-1]
    assert [item for page in pages for item in page] == everything
    assert [len(page) for page in pages[:-1]] == [limit] * (len(pages) - 1)
    assert len(pages) == -(-10 // limit)
    assert items_of(engine, one, newest_first=newest_first, after=everything[-1]) == ([], False)


@pytest.mark.parametrize("newest_first", [True, False])
def test_an_item_that_is_not_there_begins_no_page(engine: Engine, newest_first: bool) -> None:
    one, two = create(engine, [user("a"), assistant("b")]), create(engine, [user("c")])
    (stranger,) = ids_of(engine, two)
    for after in (stranger, ids_of(engine, one)[0].replace("msg", "rs")):
        with pytest.raises(NotFound) as missing:
            items_of(engine, one, after=after, newest_first=newest_first)
        assert missing.value.param == "after"


def test_a_page_in_order_does_not_go_on_from_a_branch_that_was_left(engine: Engine) -> None:
    start = [user("a"), assistant("b")]
    one = create(engine, [*start, user("old")])
    old = ids_of(engine, one)[-1]
    deliver(engine, an_exchange(one, messages=[*start, user("new")], answers=answered("yes")))
    assert len(ids_of(engine, one)) == 4
    with pytest.raises(NotFound):
        items_of(engine, one, after=old)
    assert len(ids_of(engine, one, after=old, newest_first=True)) == 2


def test_the_newest_items_cost_no_more_in_a_long_conversation(engine: Engine) -> None:
    one = create(engine, [user(str(number)) for number in range(3000)])
    read: list[Any] = []

    def count(message: Message, _context: Any) -> None:
        read.append(message)

    event.listen(Message, "load", count)
    with Session(engine) as session:
        conversation = find_conversation(session, "local", one)
        for newest_first in (True, False):
            read.clear()
            items, has_more = list_items(session, conversation, ItemPageQuery(20, newest_first))
            assert (len(items), has_more, len(read)) == (20, True, 21)
            session.expunge_all()
    event.remove(Message, "load", count)


def test_an_item_is_found_by_its_id(engine: Engine) -> None:
    one = create(engine, [CALLED])
    items, _ = items_of(engine, one)
    with Session(engine) as session:
        conversation = find_conversation(session, "local", one)
        assert [find_item(session, conversation, item["id"]) for item in items] == items
        with pytest.raises(NotFound):
            find_item(session, conversation, ItemIds(conversation.id).message)
