"""Pages of conversation items."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine

from mistral_api.conversations import stored_conversation
from mistral_api.conversations.item_renderer import ItemIds
from mistral_api.conversations.items import read_item
from mistral_api.conversations.stored_message import MessageRecord
from mistral_api.errors import NotFound
from mistral_api.payload_types.chat import ChatMessage
from mistral_api.system.identifiers import new_id
from tests.support.conversations import (
    ASSISTANT_WITH_CALLS,
    TOOL_CALLS,
    assistant,
    conversation_reader,
    deliver_each,
    read_item_ids,
    read_items,
    start_conversation,
    user,
)
from tests.support.exchanges import make_exchange, reply


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize("limit", [1, 2, 3, 5, 10, 11])
def test_item_pages_contain_every_item_once_and_mark_the_last_page(
    engine: Engine, limit: int, newest_first: bool
) -> None:
    # 1 + 5 + 3 + 1 items
    tools: list[ChatMessage] = [{"role": "tool", "tool_call_id": call["id"], "content": "3"} for call in TOOL_CALLS]
    one = start_conversation(engine, [user("Add"), ASSISTANT_WITH_CALLS, *tools, assistant("Done")])
    everything = read_item_ids(engine, one, newest_first=newest_first)
    assert len(everything) == 10
    assert everything[:: -1 if newest_first else 1] == read_item_ids(engine, one)
    pages, after = [], None
    while True:
        items, has_more = read_items(engine, one, limit=limit, newest_first=newest_first, after=after)
        pages.append([item["id"] for item in items])
        if not has_more:
            break
        after = pages[-1][-1]
    assert [item for page in pages for item in page] == everything
    assert [len(page) for page in pages[:-1]] == [limit] * (len(pages) - 1)
    assert len(pages) == -(-10 // limit)
    assert read_items(engine, one, newest_first=newest_first, after=everything[-1]) == ([], False)


@pytest.mark.parametrize("newest_first", [True, False])
def test_item_page_after_an_unknown_item_is_not_found(engine: Engine, newest_first: bool) -> None:
    one, two = start_conversation(engine, [user("a"), assistant("b")]), start_conversation(engine, [user("c")])
    (stranger,) = read_item_ids(engine, two)
    for after in (stranger, read_item_ids(engine, one)[0].replace("msg", "rs")):
        with pytest.raises(NotFound) as missing:
            read_items(engine, one, after=after, newest_first=newest_first)
        assert missing.value.param == "after"


def test_ascending_item_page_does_not_start_after_an_abandoned_branch(engine: Engine) -> None:
    start = [user("a"), assistant("b")]
    one = start_conversation(engine, [*start, user("old")])
    old = read_item_ids(engine, one)[-1]
    deliver_each(engine, make_exchange(one, messages=[*start, user("new")], answers=reply("yes")))
    assert len(read_item_ids(engine, one)) == 4
    with pytest.raises(NotFound):
        read_items(engine, one, after=old)
    assert len(read_item_ids(engine, one, after=old, newest_first=True)) == 2


def test_item_page_of_a_long_conversation_loads_only_its_messages(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = start_conversation(engine, [user(str(number)) for number in range(3000)])
    read: list[Any] = []
    parse = stored_conversation._message

    def count(values: Any) -> MessageRecord:
        read.append(values)
        return parse(values)

    monkeypatch.setattr(stored_conversation, "_message", count)
    for newest_first in (True, False):
        read.clear()
        items, has_more = read_items(engine, one, limit=20, newest_first=newest_first)
        assert (len(items), has_more, len(read)) == (20, True, 21)


def test_item_is_found_by_its_id(engine: Engine) -> None:
    one = start_conversation(engine, [ASSISTANT_WITH_CALLS])
    items, _ = read_items(engine, one)
    reader = conversation_reader(engine)
    assert [read_item(reader, "local", one, item["id"]) for item in items] == items
    with pytest.raises(NotFound):
        read_item(reader, "local", one, ItemIds(new_id()).message)
