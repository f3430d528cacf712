"""Conversations are found by their words, through the text index, and only by their owner."""

# ruff: noqa: RUF001 - letters that look like others are part of the test

from __future__ import annotations

from typing import Any, cast
from unittest.mock import ANY
from uuid import UUID

import pytest
from sqlalchemy import Engine, event, select, text, true
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session

from mistral_api.analytics import usage_stats
from mistral_api.analytics.periods import TimeWindow
from mistral_api.conversations import search as listing
from mistral_api.conversations.editing import change_conversation
from mistral_api.conversations.search import matches_one_by_one, matching_conversations
from mistral_api.conversations.search_query import parse_search
from mistral_api.conversations.stored_conversation import (
    BranchQuery,
    conversation_parameters,
    conversations_statement,
    pending_parameters,
)
from mistral_api.database.tables.conversations import Conversation, Message
from mistral_api.delivery.batch_inserter import BatchInserter
from mistral_api.wire.queries import ConversationFilter
from tests.support.conversations import (
    ASSISTANT_WITH_CALLS,
    conversation_lister,
    read_item_ids,
    remove_item,
    start_conversation,
    user,
)
from tests.support.exchanges import make_exchange, question, reply

TEXTS = {
    "animals": "The quagga was a zebra with brown stripes.",
    "cooking": "Boil the pasta in salted water, 100%_sure.",
    "russian": "Зебра живёт в Африке",
    "travel": "A zebra crossing in London",
}


@pytest.fixture
def filled(engine: Engine) -> Engine:
    """Four conversations, the last one used most recently, and one of another owner."""
    delivery = BatchInserter(engine)
    for name, words in TEXTS.items():
        delivery.insert([make_exchange(name, messages=question(f"About {name}?"), answers=reply(words))])
    parts = [{"type": "text", "text": "A picture of a giraffe"}, {"type": "image_url", "image_url": {"url": "zebra"}}]
    delivery.insert([make_exchange("picture", messages=[{"role": "user", "content": parts}])])
    delivery.insert([make_exchange("theirs", owner="team", messages=question("Our zebra"))])
    return engine


def _search(engine: Engine, search: str, owner: str = "local", **query: Any) -> list[str]:
    wanted = cast("ConversationFilter", {"limit": 20, "q": search} | query)
    rows, _ = conversation_lister(engine).list_page(owner, wanted)
    return [row.conversation.session_id for row in rows]


@pytest.mark.parametrize("looked_at_first", [0, 200])
@pytest.mark.parametrize(
    ("search", "sessions"),
    [
        ("quagga", ["animals"]),
        ("QUAGGA", ["animals"]),
        ("zebra", ["travel", "animals"]),
        ("zebra -crossing", ["animals"]),
        ("quagga or pasta", ["cooking", "animals"]),
        ('"zebra with"', ["animals"]),
        ('"with zebra"', []),
        ("зебра", ["russian"]),
        ("giraffe", ["picture"]),
        ("100%_sure", ["cooking"]),
        ("travel", ["travel"]),
        ("uagg", ["animals"]),
        ("бра", ["russian"]),
        ("salt 100%", ["cooking"]),
        ("nowhere", []),
        ("'; DROP TABLE messages; --", []),
    ],
)
def test_search_finds_conversations_by_their_words(
    filled: Engine, search: str, sessions: list[str], looked_at_first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "SCANNED_FIRST", looked_at_first)
    assert _search(filled, search) == sessions


def test_search_finds_only_conversations_of_the_owner(filled: Engine) -> None:
    assert _search(filled, "zebra", owner="team") == ["theirs"]
    assert _search(filled, "zebra", owner="nobody") == []


def test_search_finds_a_changed_title(filled: Engine) -> None:
    with Session(filled) as session:
        change_conversation(session, "local", "cooking", {"title": "Kitchen secrets"})
    assert _search(filled, "secrets") == ["cooking"]


def test_search_results_are_paginated(filled: Engine) -> None:
    lister = conversation_lister(filled)
    first, more = lister.list_page("local", {"limit": 1, "q": "zebra"})
    rest, no_more = lister.list_page("local", {"limit": 1, "q": "zebra", "after": first[0].conversation.session_id})
    assert ([row.conversation.session_id for row in first], more) == (["travel"], True)
    assert ([row.conversation.session_id for row in rest], no_more) == (["animals"], False)


def _plan(engine: Engine, query: str, parameters: Any) -> str:
    """Return PostgreSQL's plan where sequential scans are off, as for a table of any size."""
    with engine.connect() as connection:
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        return "\n".join(row[0] for row in connection.exec_driver_sql(f"EXPLAIN {query}", parameters))


@pytest.fixture
def many(engine: Engine) -> Engine:
    """So many conversations that reading all of them would be slow."""
    delivery = BatchInserter(engine)
    for lot in range(4):
        delivery.insert(
            [
                make_exchange(
                    f"many-{lot}-{n}",
                    messages=question(f"word{n} common"),
                    answers=reply(f"answer{n} common"),
                )
                for n in range(500)
            ]
        )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
    return engine


def test_conversation_queries_use_indexes(many: Engine) -> None:
    statement = matching_conversations(parse_search("word7"), true()).select().compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]
    plan = _plan(many, str(statement), statement.params)
    for index in ("ix_messages_search", "ix_conversations_search"):
        assert f"{index}_text " in plan
        assert f"{index} " in plan
    for search in ("中文", "q7"):
        statement = matching_conversations(parse_search(search), true()).select().compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]
        assert "ix_messages_search_grams " in _plan(many, str(statement), statement.params)
    by_session = "SELECT * FROM conversations WHERE owner = %s AND session_id = %s"
    assert "uq_conversations_owner_session_id" in _plan(many, by_session, ("local", "many-1-1"))
    newest = "SELECT * FROM conversations WHERE owner = %s ORDER BY updated_at DESC, id DESC LIMIT 20"
    assert "updated_at on conversations" in _plan(many, newest, ("local",))


def test_search_of_a_few_conversations_skips_the_text_index(engine: Engine) -> None:
    """The text index covers all conversations and would be scanned once for each of the few."""
    long = [{"role": "user", "content": f"word{number} common"} for number in range(1000)]
    BatchInserter(engine).insert([make_exchange(f"long-{number}", messages=long) for number in range(5)])
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
    for word in ("common", "word7"):
        few = select(Conversation).where(
            Conversation.id.in_(select(Conversation.id).limit(3)), matches_one_by_one(parse_search(word))
        )
        compiled = few.compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]
        plan = _plan(engine, str(compiled), compiled.params)
        assert "ix_messages_conversation_id" in plan
        assert "ix_messages_search" not in plan


def test_message_pages_and_statistics_use_indexes(many: Engine) -> None:
    with Session(many) as session:
        head = session.scalars(select(Conversation.head_id)).first()
    assert head is not None
    pending = [make_exchange("many-1-1", messages=question("word1 common"), answers=reply("x"), continues=head)]
    parameters = conversation_parameters("local", ["many-1-1"]) | BranchQuery(newest=51).parameters()
    for more in ({}, pending_parameters(pending)):
        statement = conversations_statement(with_branch=True, with_pending=bool(more))
        compiled = statement.compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]
        plan = _plan(many, str(compiled), parameters | more)
        assert "pk_messages" in plan
        assert "Seq Scan on messages" not in plan
        assert "Seq Scan on api_usage" not in plan
    bounds = TimeWindow.last(24).bounds()
    for query, index in ((usage_stats._READ_GROUPS, "pk_usage_rollups"), (usage_stats._READ_POINTS, "pk_usage_series")):
        compiled = query.compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]
        plan = _plan(many, str(compiled), bounds)
        assert index in plan
        assert "api_usage" not in plan


def test_matches_show_the_newest_messages_that_were_hit_and_the_title(engine: Engine) -> None:
    texts = [f"zebra <{number}>" for number in range(5)]
    start_conversation(engine, [user("No horse"), *map(user, texts)])
    lister = conversation_lister(engine)
    (found,), _ = lister.list_page("local", {"limit": 20, "q": "zebra"})
    assert found.matches is not None
    assert [match["snippet"] for match in found.matches] == [
        f"<mark>zebra</mark> &lt;{number}&gt;" for number in (4, 3, 2)
    ]
    assert [match["role"] for match in found.matches] == ["user"] * 3
    with Session(engine) as session:
        hit = session.get(Message, UUID(str(found.matches[0]["message_id"])))
        assert hit is not None
        assert hit.content == "zebra <4>"
    (found,), _ = lister.list_page("local", {"limit": 20, "q": "orse -zebra"})
    assert found.matches == [
        {"message_id": None, "role": None, "snippet": "No h<mark>orse</mark>"},
        {"message_id": ANY, "role": "user", "snippet": "No h<mark>orse</mark>"},
    ]
    (found,), _ = lister.list_page("local", {"limit": 20})
    assert found.matches is None


def test_search_takes_one_round_trip(filled: Engine) -> None:
    statements: list[str] = []
    event.listen(filled, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    conversation_lister(filled).list_page("local", {"limit": 20, "q": "nowhere"})
    assert len(statements) == 1


def test_changed_message_is_found_by_what_remains(engine: Engine) -> None:
    session_id = start_conversation(engine, [user("Hello"), ASSISTANT_WITH_CALLS])
    items = read_item_ids(engine, session_id)
    assert _search(engine, "wait") == [session_id]
    remove_item(engine, session_id, next(item for item in items if item.startswith("msg_") and item != items[0]))
    assert _search(engine, "wait") == []
    assert _search(engine, "ello") == [session_id]
