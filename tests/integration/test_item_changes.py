"""What adding and deleting items does to a conversation's tree, and how its items are paged."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine, event
from sqlalchemy.orm import Session

from mistral_api.conversations.creating import Addition, add_messages, create_conversation
from mistral_api.conversations.item_deleting import delete_item
from mistral_api.conversations.items import ItemQuery, chat_form, find_item, list_items
from mistral_api.conversations.matching import chain_of, digest
from mistral_api.conversations.reading import find_conversation, read_page
from mistral_api.conversations.references import resolve_references
from mistral_api.errors import NotFound
from mistral_api.exchange import Exchange
from mistral_api.items.ids import item_ids
from mistral_api.recording.delivery import Delivery
from mistral_api.tables.conversation import Message
from tests.databases import rows_of
from tests.exchanges import an_exchange, answered, said

Messages = list[dict[str, Any]]
CALLS = [
    {"id": f"call_{number}", "type": "function", "function": {"name": "add", "arguments": "{}"}} for number in range(3)
]
CALLED = {"role": "assistant", "content": "Wait.", "tool_calls": CALLS, "reasoning_content": "Hm"}


def _user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def _assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def _addition(messages: Messages, most_bytes: int = 1 << 20) -> Addition:
    return Addition("local", "a-request", messages, most_bytes)


def _create(engine: Engine, messages: Messages, metadata: dict[str, str] | None = None) -> str:
    with Session(engine) as session:
        return create_conversation(session, _addition(messages), metadata or {}).session_id


def _add(engine: Engine, session_id: str, messages: Messages) -> list[str]:
    """The ids of the items added."""
    with Session(engine) as session:
        stored = add_messages(session, session_id, _addition(messages))
    return [item["id"] for each in stored for item in each.items]


def _deliver(engine: Engine, *exchanges: Exchange) -> None:
    for exchange in exchanges:
        Delivery(engine).deliver([exchange])


def _texts(engine: Engine, session_id: str) -> list[Any]:
    with Session(engine) as session:
        page = read_page(session, find_conversation(session, "local", session_id), 500, None, None)
        return [message.content for message in page.messages]


def _items(engine: Engine, session_id: str, **query: Any) -> tuple[list[dict[str, Any]], bool]:
    with Session(engine) as session:
        wanted = ItemQuery(**{"limit": 100, "newest_first": False} | query)
        return list_items(session, find_conversation(session, "local", session_id), wanted)


def _ids(engine: Engine, session_id: str, **query: Any) -> list[str]:
    return [item["id"] for item in _items(engine, session_id, **query)[0]]


def _delete(engine: Engine, session_id: str, item_id: str) -> int:
    """How many messages are left."""
    with Session(engine) as session:
        return delete_item(session, "local", session_id, item_id).message_count


def _assert_chained(engine: Engine) -> None:
    """Every message is recognised by all that was said before it, whatever has been deleted."""
    with Session(engine) as session:
        messages = {message.id: message for message in session.query(Message)}
        for message in messages.values():
            above = messages[message.parent_id].chain.hex if message.parent_id else ""
            assert message.chain.hex == chain_of(above, digest(chat_form(message)))
        counted = rows_of(engine, "SELECT message_count FROM conversations WHERE message_count > 0")
        assert sum(count for (count,) in counted) == len(messages)


def test_a_conversation_is_made_with_or_without_messages(engine: Engine) -> None:
    empty, full = _create(engine, [], {"topic": "none"}), _create(engine, [_user("Hello there"), _assistant("Hi")])
    assert empty.startswith("conv_")
    query = "SELECT title, metadata, message_count, head_id IS NULL FROM conversations WHERE session_id = :id"
    assert rows_of(engine, query, id=empty) == [(None, {"topic": "none"}, 0, True)]
    assert rows_of(engine, query, id=full) == [("Hello there", {}, 2, False)]
    assert _items(engine, empty) == _items(engine, empty, newest_first=True) == ([], False)
    assert _texts(engine, full) == ["Hello there", "Hi"]
    _assert_chained(engine)


def test_what_is_added_by_hand_is_found_titled_and_gone_on_from(engine: Engine) -> None:
    one = _create(engine, [])
    _add(engine, one, [_user("Do you like tea?"), _assistant("Very much.")])
    assert rows_of(engine, "SELECT title FROM conversations") == [("Do you like tea?",)]
    assert rows_of(engine, "SELECT count(*) FROM messages WHERE search @@ to_tsquery('simple', 'tea')") == [(1,)]
    assert rows_of(engine, "SELECT DISTINCT request_id, status FROM messages") == [("a-request", "complete")]
    _deliver(engine, an_exchange(one, messages=said("Why?"), answers=answered("It is warm.")))
    _add(engine, one, [_user("And coffee?")])
    _deliver(engine, an_exchange(one, messages=said("Well?"), answers=answered("Yes.")))
    history = ["Do you like tea?", "Very much.", "Why?", "It is warm.", "And coffee?", "Well?", "Yes."]
    assert _texts(engine, one) == history
    _assert_chained(engine)


def test_a_conversation_made_empty_gets_its_title_from_its_first_exchange(engine: Engine) -> None:
    one = _create(engine, [])
    _deliver(engine, *(an_exchange(one, messages=said(text), answers=answered("Yes")) for text in ("First", "Second")))
    assert rows_of(engine, "SELECT title, search IS NOT NULL FROM conversations") == [("First", True)]


def test_a_client_that_resends_what_was_added_by_hand_adds_only_the_tail(engine: Engine) -> None:
    history = [_user("Do you like tea?"), _assistant("Very much.")]
    one = _create(engine, history)
    _deliver(engine, an_exchange(one, messages=[*history, _user("Why?")], answers=answered("It is warm.")))
    assert _texts(engine, one) == ["Do you like tea?", "Very much.", "Why?", "It is warm."]
    assert rows_of(engine, "SELECT count(*) FROM messages") == [(4,)]


def test_what_was_never_answered_stays_before_what_is_added_by_hand(engine: Engine) -> None:
    _deliver(
        engine,
        an_exchange("one", messages=said("a"), answers=answered("b")),
        an_exchange("one", messages=said("lost"), answer_status="failed", status=503),
    )
    _add(engine, "one", [_assistant("by hand")])
    _deliver(engine, an_exchange("one", messages=said("c"), answers=answered("d")))
    assert _texts(engine, "one") == ["a", "b", "lost", "by hand", "c", "d"]


def test_what_postgresql_cannot_hold_and_large_attachments_are_replaced(engine: Engine) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100}}
    with Session(engine) as session:
        messages: Messages = [_user("nul \0"), {"role": "user", "content": [{"type": "text", "text": "\0"}, image]}]
        create_conversation(session, _addition(messages, most_bytes=50), {})
    first, second = [content for (content,) in rows_of(engine, "SELECT content FROM messages ORDER BY sequence")]
    assert (first, second[0]["text"]) == ("nul \ufffd", "\ufffd")
    assert second[1]["image_url"]["url"].startswith("data:image/png;omitted;length=122;")


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize("limit", [1, 2, 3, 5, 10, 11])
def test_pages_hold_every_item_once_and_the_last_one_says_so(engine: Engine, limit: int, newest_first: bool) -> None:
    # 1 + 5 + 3 + 1 items
    tools = [{"role": "tool", "tool_call_id": call["id"], "content": "3"} for call in CALLS]
    one = _create(engine, [_user("Add"), CALLED, *tools, _assistant("Done")])
    everything = _ids(engine, one, newest_first=newest_first)
    assert len(everything) == 10
    assert everything[:: -1 if newest_first else 1] == _ids(engine, one)
    pages, after = [], None
    while True:
        items, has_more = _items(engine, one, limit=limit, newest_first=newest_first, after=after)
        pages.append([item["id"] for item in items])
        if not has_more:
            break
        after = pages[-1][-1]
    assert [item for page in pages for item in page] == everything
    assert [len(page) for page in pages[:-1]] == [limit] * (len(pages) - 1)
    assert len(pages) == -(-10 // limit)
    assert _items(engine, one, newest_first=newest_first, after=everything[-1]) == ([], False)


@pytest.mark.parametrize("newest_first", [True, False])
def test_an_item_that_is_not_there_begins_no_page(engine: Engine, newest_first: bool) -> None:
    one, two = _create(engine, [_user("a"), _assistant("b")]), _create(engine, [_user("c")])
    (stranger,) = _ids(engine, two)
    for after in (stranger, _ids(engine, one)[0].replace("msg", "rs")):
        with pytest.raises(NotFound) as missing:
            _items(engine, one, after=after, newest_first=newest_first)
        assert missing.value.param == "after"


def test_a_page_in_order_does_not_go_on_from_a_branch_that_was_left(engine: Engine) -> None:
    start = [_user("a"), _assistant("b")]
    one = _create(engine, [*start, _user("old")])
    old = _ids(engine, one)[-1]
    _deliver(engine, an_exchange(one, messages=[*start, _user("new")], answers=answered("yes")))
    assert len(_ids(engine, one)) == 4
    with pytest.raises(NotFound):
        _items(engine, one, after=old)
    assert len(_ids(engine, one, after=old, newest_first=True)) == 2


def test_the_newest_items_cost_no_more_in_a_long_conversation(engine: Engine) -> None:
    one = _create(engine, [_user(str(number)) for number in range(3000)])
    read: list[Any] = []
    event.listen(Message, "load", lambda message, _context: read.append(message), named=False)
    with Session(engine) as session:
        conversation = find_conversation(session, "local", one)
        for newest_first in (True, False):
            read.clear()
            items, has_more = list_items(session, conversation, ItemQuery(20, newest_first))
            assert (len(items), has_more, len(read)) == (20, True, 21)
            session.expunge_all()


def test_deleting_a_message_joins_what_stood_around_it(engine: Engine) -> None:
    one = _create(engine, [_user("a"), _assistant("b"), _user("c"), _assistant("d")])
    first, second, _, last = _ids(engine, one)
    assert _delete(engine, one, second) == 3
    assert _texts(engine, one) == ["a", "c", "d"]
    _assert_chained(engine)
    assert _delete(engine, one, last) == 2
    assert _texts(engine, one) == ["a", "c"]
    assert _delete(engine, one, first) == 1
    assert _texts(engine, one) == ["c"]
    _assert_chained(engine)
    _deliver(engine, an_exchange(one, messages=said("e"), answers=answered("f")))
    assert _texts(engine, one) == ["c", "e", "f"]


def test_the_last_item_leaves_a_conversation_that_can_be_used_again(engine: Engine) -> None:
    one = _create(engine, [_user("a")])
    assert _delete(engine, one, _ids(engine, one)[0]) == 0
    assert _items(engine, one) == ([], False)
    _deliver(engine, an_exchange(one, messages=said("b"), answers=answered("c")))
    assert _texts(engine, one) == ["b", "c"]


def test_a_client_that_resends_the_history_as_it_is_now_continues_it(engine: Engine) -> None:
    one = _create(engine, [_user("a"), _assistant("b"), _user("c"), _assistant("d")])
    _delete(engine, one, _ids(engine, one)[1])
    now = [_user("a"), _user("c"), _assistant("d")]
    _deliver(engine, an_exchange(one, messages=[*now, _user("e")], answers=answered("f")))
    assert _texts(engine, one) == ["a", "c", "d", "e", "f"]
    assert rows_of(engine, "SELECT count(*) FROM messages") == [(5,)]


def test_a_client_that_still_sends_what_was_deleted_starts_a_branch(engine: Engine) -> None:
    before = [_user("a"), _assistant("b"), _user("c"), _assistant("d"), _user("e"), _assistant("f")]
    one = _create(engine, before)
    _delete(engine, one, _ids(engine, one)[3])
    _deliver(engine, an_exchange(one, messages=[*before, _user("g")], answers=answered("h")))
    assert _texts(engine, one) == ["a", "b", "c", "d", "e", "f", "g", "h"]
    assert rows_of(engine, "SELECT count(*) FROM messages") == [(10,)]
    _assert_chained(engine)


def test_every_branch_below_a_deleted_message_is_kept(engine: Engine) -> None:
    start = [_user("a"), _assistant("b")]
    one = _create(engine, start)
    branches = [an_exchange(one, messages=[*start, _user(text)], answers=answered(f"re {text}")) for text in "xy"]
    _deliver(engine, *branches)
    assert _delete(engine, one, _ids(engine, one)[1]) == 5
    assert _texts(engine, one) == ["a", "y", "re y"]
    _assert_chained(engine)
    again = [_user("a"), _user("x"), _assistant("re x"), _user("z")]
    _deliver(engine, an_exchange(one, messages=again, answers=answered("re z")))
    assert _texts(engine, one) == ["a", "x", "re x", "z", "re z"]


def test_the_items_of_one_message_are_deleted_one_by_one(engine: Engine) -> None:
    one = _create(engine, [_user("Add"), CALLED, _user("Go on")])
    _, thought, said_, *calls, _ = _ids(engine, one)
    for item_id in (calls[0], said_, thought, calls[2]):
        left = _ids(engine, one)
        assert _delete(engine, one, item_id) == 3
        assert _ids(engine, one) == [each for each in left if each != item_id]
        _assert_chained(engine)
    query = "SELECT content, tool_calls, extra, search FROM messages WHERE role = 'assistant'"
    assert rows_of(engine, query) == [(None, [CALLS[1] | {"index": 1}], None, None)]
    assert _delete(engine, one, calls[1]) == 2
    assert _texts(engine, one) == ["Add", "Go on"]


def test_deleting_what_is_not_there_changes_nothing(engine: Engine) -> None:
    one, two = _create(engine, [CALLED]), _create(engine, [_user("c")])
    call = _ids(engine, one)[-1]
    for item_id in (call[:-1] + "9", *_ids(engine, two)):
        with pytest.raises(NotFound):
            _delete(engine, one, item_id)
    with pytest.raises(NotFound), Session(engine) as session:
        delete_item(session, "somebody else", one, call)
    assert len(_ids(engine, one)) == 5


def test_interrupted_answers_are_incomplete_items(engine: Engine) -> None:
    _deliver(engine, an_exchange("one", messages=said("a"), answers=answered("b"), answer_status="interrupted"))
    assert [item["status"] for item in _items(engine, "one")[0]] == ["completed", "incomplete"]


def test_references_become_the_items_they_name_for_their_owner_alone(engine: Engine) -> None:
    one = _create(engine, [_user("a"), CALLED])
    items, _ = _items(engine, one)
    sent = [{"id": items[0]["id"]}, _user("b"), {"type": "item_reference", "id": items[-1]["id"]}]
    with Session(engine) as session:
        assert resolve_references(session, "local", sent, "input") == [items[0], _user("b"), items[-1]]
        with pytest.raises(NotFound) as missing:
            resolve_references(session, "somebody else", sent, "input")
        assert missing.value.param == "input[0].id"


def test_prompts_of_legacy_completions_show_as_texts(engine: Engine) -> None:
    for name, prompt in (("texts", ["a", "b"]), ("tokens", [1, 2, 3])):
        _deliver(engine, an_exchange(name, messages=[_user("") | {"content": prompt}], answers=answered("x")))
    shown = [[part["text"] for part in _items(engine, name)[0][0]["content"]] for name in ("texts", "tokens")]
    assert shown == [["a", "b"], ["[1,2,3]"]]


def test_an_item_is_found_by_its_id(engine: Engine) -> None:
    one = _create(engine, [CALLED])
    items, _ = _items(engine, one)
    with Session(engine) as session:
        conversation = find_conversation(session, "local", one)
        assert [find_item(session, conversation, item["id"]) for item in items] == items
        with pytest.raises(NotFound):
            find_item(session, conversation, item_ids(conversation.id).message)
