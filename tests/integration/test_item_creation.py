"""Items that clients add to conversations, and how they are rendered."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from mistral_api.conversations.editing import create_conversation
from mistral_api.conversations.items import resolve_references
from mistral_api.errors import NotFound
from mistral_api.payload_types.chat import ContentPart
from tests.support.conversations import (
    ASSISTANT_WITH_CALLS,
    Messages,
    add_items,
    assert_chains_match,
    assistant,
    branch_texts,
    deliver_each,
    new_messages,
    read_items,
    start_conversation,
    user,
)
from tests.support.databases import rows_of
from tests.support.exchanges import make_exchange, question, reply


def test_conversation_is_created_with_or_without_messages(engine: Engine) -> None:
    empty, full = (
        start_conversation(engine, [], {"topic": "none"}),
        start_conversation(engine, [user("Hello there"), assistant("Hi")]),
    )
    assert empty.startswith("conv_")
    query = "SELECT title, metadata, message_count, head_id IS NULL FROM conversations WHERE session_id = :id"
    assert rows_of(engine, query, id=empty) == [(None, {"topic": "none"}, 0, True)]
    assert rows_of(engine, query, id=full) == [("Hello there", {}, 2, False)]
    assert read_items(engine, empty) == read_items(engine, empty, newest_first=True) == ([], False)
    assert branch_texts(engine, full) == ["Hello there", "Hi"]
    assert_chains_match(engine)


def test_added_items_are_searchable_set_the_title_and_are_continued(engine: Engine) -> None:
    one = start_conversation(engine, [])
    add_items(engine, one, [user("Do you like tea?"), assistant("Very much.")])
    assert rows_of(engine, "SELECT title FROM conversations") == [("Do you like tea?",)]
    assert rows_of(engine, "SELECT count(*) FROM messages WHERE search_text LIKE '%like tea%'") == [(1,)]
    assert rows_of(engine, "SELECT DISTINCT request_id, status FROM messages") == [("a-request", "complete")]
    deliver_each(engine, make_exchange(one, messages=question("Why?"), answers=reply("It is warm.")))
    add_items(engine, one, [user("And coffee?")])
    deliver_each(engine, make_exchange(one, messages=question("Well?"), answers=reply("Yes.")))
    history = ["Do you like tea?", "Very much.", "Why?", "It is warm.", "And coffee?", "Well?", "Yes."]
    assert branch_texts(engine, one) == history
    assert_chains_match(engine)


def test_empty_conversation_gets_its_title_from_the_first_exchange(engine: Engine) -> None:
    one = start_conversation(engine, [])
    deliver_each(
        engine,
        *(make_exchange(one, messages=question(text), answers=reply("Yes")) for text in ("First", "Second")),
    )
    assert rows_of(engine, "SELECT title, search_text FROM conversations") == [("First", "first")]


def test_history_that_resends_added_items_appends_only_new_messages(engine: Engine) -> None:
    history = [user("Do you like tea?"), assistant("Very much.")]
    one = start_conversation(engine, history)
    deliver_each(engine, make_exchange(one, messages=[*history, user("Why?")], answers=reply("It is warm.")))
    assert branch_texts(engine, one) == ["Do you like tea?", "Very much.", "Why?", "It is warm."]
    assert rows_of(engine, "SELECT count(*) FROM messages") == [(4,)]


def test_unanswered_message_stays_before_added_items(engine: Engine) -> None:
    deliver_each(
        engine,
        make_exchange("one", messages=question("a"), answers=reply("b")),
        make_exchange("one", messages=question("lost"), answer_status="failed", status=503),
    )
    add_items(engine, "one", [assistant("by hand")])
    deliver_each(engine, make_exchange("one", messages=question("c"), answers=reply("d")))
    assert branch_texts(engine, "one") == ["a", "b", "lost", "by hand", "c", "d"]


def test_nul_characters_and_large_attachments_of_added_items_are_replaced(engine: Engine) -> None:
    image: ContentPart = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100}}
    with Session(engine) as session:
        parts: list[ContentPart] = [{"type": "text", "text": "\0"}, image]
        messages: Messages = [user("nul \0"), {"role": "user", "content": parts}]
        create_conversation(session, new_messages(messages, most_bytes=50), {})
    first, second = [content for (content,) in rows_of(engine, "SELECT content FROM messages ORDER BY sequence")]
    assert (first, second[0]["text"]) == ("nul \ufffd", "\ufffd")
    assert second[1]["image_url"]["url"].startswith("data:image/png;omitted;length=122;")


def test_interrupted_answer_is_an_incomplete_item(engine: Engine) -> None:
    deliver_each(
        engine,
        make_exchange("one", messages=question("a"), answers=reply("b"), answer_status="interrupted"),
    )
    assert [item["status"] for item in read_items(engine, "one")[0]] == ["completed", "incomplete"]


def test_item_references_are_resolved_only_for_their_owner(engine: Engine) -> None:
    one = start_conversation(engine, [user("a"), ASSISTANT_WITH_CALLS])
    items, _ = read_items(engine, one)
    sent: list[Any] = [{"id": items[0]["id"]}, user("b"), {"type": "item_reference", "id": items[-1]["id"]}]
    with Session(engine) as session:
        assert resolve_references(session, "local", sent, "input") == [items[0], user("b"), items[-1]]
        with pytest.raises(NotFound) as missing:
            resolve_references(session, "somebody else", sent, "input")
        assert missing.value.param == "input[0].id"


def test_legacy_completion_prompts_are_rendered_as_text_items(engine: Engine) -> None:
    for name, prompt in (("texts", ["a", "b"]), ("tokens", [1, 2, 3])):
        deliver_each(engine, make_exchange(name, messages=[user("") | {"content": prompt}], answers=reply("x")))
    shown = [[part["text"] for part in read_items(engine, name)[0][0]["content"]] for name in ("texts", "tokens")]
    assert shown == [["a", "b"], ["[1,2,3]"]]


def test_items_added_concurrently_form_one_branch(engine: Engine) -> None:
    one = start_conversation(engine, [])

    def add_and_say(number: int) -> None:
        for turn in range(5):
            add_items(engine, one, [user(f"by hand {number} {turn}")])
            exchange = make_exchange(one, messages=question(f"chat {number} {turn}"), answers=reply("yes"))
            deliver_each(engine, exchange)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add_and_say, range(4)))
    texts = branch_texts(engine, one)
    assert len(texts) == 60
    assert len({text for text in texts if text != "yes"}) == 40
    assert_chains_match(engine)
