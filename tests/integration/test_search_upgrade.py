"""Search in databases that a former version filled, and in those without pg_trgm."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import cast

import pytest
from flask import Flask
from flask_migrate import downgrade, upgrade
from sqlalchemy import Engine, make_url, text

from mistral_api import create_app
from mistral_api.conversations.search import FoundConversation
from mistral_api.conversations.search_text import search_columns, searchable_text
from mistral_api.delivery import search_backfill
from mistral_api.delivery.search_backfill import SearchCompletion
from mistral_api.embedded.postgres import start_embedded_postgres
from mistral_api.services import services_of
from mistral_api.settings import Settings
from mistral_api.web.migration_commands import add_migration_commands
from tests.support.conversations import conversation_lister, start_conversation, user
from tests.support.databases import open_cursor, rows_of, superuser_url
from tests.support.processes import temporary_data_dir
from tests.support.searches import FOUND, NOT_FOUND

FORMER_REVISION = "0004"
TEXTS = list(dict.fromkeys(each for each, _ in FOUND))
PARTS = [{"type": "text", "text": "A giraffe"}, {"type": "image_url", "image_url": {"url": "data:zebra"}},
         {"type": "text", "text": "in two_parts.txt"}]  # fmt: skip
_INSERT_CONVERSATION = text(
    "INSERT INTO conversations (id, owner, session_id, title, search, message_count, created_at, updated_at) VALUES "
    "(gen_random_uuid(), 'local', :name, :title, to_tsvector('simple', :title), 1, now(), now()) RETURNING id"
)
_INSERT_MESSAGE = text(
    "INSERT INTO messages (id, conversation_id, role, content, chain, search, status, request_id, created_at) VALUES "
    "(gen_random_uuid(), :conversation, 'user', CAST(:content AS jsonb), gen_random_uuid(), "
    "to_tsvector('simple', CAST(:words AS text)), 'complete', 'r', now())"
)


@pytest.fixture(scope="module")
def app() -> Iterator[Flask]:
    """An application on a PostgreSQL of this module."""
    with temporary_data_dir() as data_dir:
        running = start_embedded_postgres(data_dir)
        made = create_app(Settings(database_url=running.url, data_dir=data_dir))
        add_migration_commands(made)
        yield made
        services_of(made.extensions).close()
        running.stop()


@pytest.fixture
def former(app: Flask) -> Engine:
    """A database that the former version filled, just after the migration."""
    engine = services_of(app.extensions).engine
    with app.app_context():
        upgrade()
        downgrade(revision=FORMER_REVISION)
        with engine.begin() as connection:
            connection.execute(text("TRUNCATE conversations CASCADE"))
            for number, content in enumerate([*TEXTS, PARTS, "", None]):
                names = {"name": f"former-{number}", "title": f"Formerly number{number}"}
                row = {"content": json.dumps(content), "words": searchable_text(cast("str", content))}
                row["conversation"] = connection.scalar(_INSERT_CONVERSATION, names)
                connection.execute(_INSERT_MESSAGE, row)
        upgrade()
    return engine


def _complete(engine: Engine, wait: Callable[[float], bool] = lambda _seconds: False) -> None:
    SearchCompletion(engine, wait).run()


def _find(engine: Engine, search: str) -> list[FoundConversation]:
    return conversation_lister(engine).list_page("local", {"limit": 100, "q": search})[0]


def _contents_found(engine: Engine, search: str) -> list[str]:
    ids = [match["message_id"] for found in _find(engine, search) for match in found.matches or []]
    query = "SELECT content #>> '{}' FROM messages WHERE id = ANY(CAST(:ids AS uuid[]))"
    return [content for (content,) in rows_of(engine, query, ids=[each for each in ids if each])]


def _assert_table_is_found(engine: Engine) -> None:
    assert [(each, search) for each, search in FOUND if each not in _contents_found(engine, search)] == []
    assert [(each, search) for each, search in NOT_FOUND if each in _contents_found(engine, search)] == []


def test_former_rows_are_found_by_words_at_once_and_by_parts_soon(former: Engine) -> None:
    (quagga,) = _find(former, "quagga zebra")
    assert quagga.matches is not None
    assert "<mark>quagga</mark>, a <mark>zebra</mark>" in quagga.matches[0]["snippet"]
    assert [each.conversation.session_id for each in _find(former, "number3")] == ["former-3"]
    assert _find(former, "mber3") == _find(former, "quagg") == []
    _complete(former)
    _assert_table_is_found(former)
    assert [each.conversation.session_id for each in _find(former, "mber3")] == ["former-3"]
    assert len(_find(former, "o_parts")) == 1
    assert rows_of(former, "SELECT 1 FROM search_backfill") == []


def test_filled_rows_are_as_if_they_were_stored_now(former: Engine) -> None:
    _complete(former)
    for content, searched, grams, words in rows_of(
        former, "SELECT content, search_text, search_grams, search FROM messages"
    ):
        columns = search_columns(searchable_text(content))
        assert (searched, grams, words) == (columns["search_text"], columns["search_grams"], None)


def test_filling_goes_on_where_it_was_interrupted(former: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_backfill, "BATCH", 3)
    left = "SELECT count(*) FROM messages WHERE search IS NOT NULL"
    before = rows_of(former, left)[0][0]
    conversations = rows_of(former, "SELECT count(*) FROM conversations")[0][0]
    _complete(former, lambda _seconds: True)
    _complete(former, lambda _seconds: True)
    filled = "SELECT count(*) FROM conversations WHERE search IS NULL AND search_text IS NOT NULL"
    assert rows_of(former, filled) == [(6,)]
    assert rows_of(former, left) == [(before,)]
    session_id = start_conversation(former, [user("Stored meanwhile")])
    _complete(former)
    assert rows_of(former, filled) == [(conversations + 1,)]
    assert rows_of(former, left) == [(0,)]
    assert [each.conversation.session_id for each in _find(former, "meanwh")] == [session_id]


def test_filling_gives_way_to_whoever_holds_a_row(former: Engine) -> None:
    pauses = []
    with former.connect() as other:
        other.execute(text("SELECT id FROM messages FOR UPDATE"))

        def wait(seconds: float) -> bool:
            pauses.append(seconds)
            if seconds == search_backfill.LOCKED_SECONDS:
                other.rollback()
            return False

        _complete(former, wait)
    assert search_backfill.LOCKED_SECONDS in pauses
    assert rows_of(former, "SELECT 1 FROM messages WHERE search IS NOT NULL") == []


def test_one_process_at_a_time_fills(former: Engine) -> None:
    with former.begin() as other:
        other.execute(text("SELECT 1 FROM search_backfill FOR UPDATE"))
        _complete(former)
    assert len(rows_of(former, "SELECT 1 FROM search_backfill")) == 2


def test_downgrade_finds_by_words_again(app: Flask, former: Engine) -> None:
    _complete(former)
    with app.app_context():
        downgrade(revision=FORMER_REVISION)
    query = "SELECT count(*) FROM messages WHERE search @@ to_tsquery('simple', 'quagga')"
    assert rows_of(former, query) == [(1,)]


def _valid_indexes(engine: Engine) -> list[str]:
    query = (
        "SELECT relname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid "
        "WHERE relname LIKE 'ix_%_search_text' AND indisvalid ORDER BY relname"
    )
    return [name for (name,) in rows_of(engine, query)]


TRIGRAM_INDEXES = ["ix_conversations_search_text", "ix_messages_search_text"]


@pytest.mark.slow
def test_the_same_is_found_without_pg_trgm_and_its_indexes_are_built_when_it_comes(former: Engine) -> None:
    _complete(former)
    assert _valid_indexes(former) == TRIGRAM_INDEXES
    with former.begin() as connection:
        connection.execute(text("DROP EXTENSION pg_trgm CASCADE"))
    assert _valid_indexes(former) == []
    _assert_table_is_found(former)
    _complete(former)
    assert _valid_indexes(former) == TRIGRAM_INDEXES
    _assert_table_is_found(former)


def test_index_whose_building_was_cut_short_is_built_again(former: Engine) -> None:
    with open_cursor(superuser_url(former.url.render_as_string(hide_password=False))) as cursor:
        cursor.execute(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = CAST('ix_messages_search_text' AS regclass)"
        )
    _complete(former)
    assert _valid_indexes(former) == TRIGRAM_INDEXES


def test_pg_trgm_in_a_schema_outside_of_the_search_path_is_used(app: Flask, former: Engine) -> None:
    with former.begin() as connection:
        connection.execute(text("DROP EXTENSION pg_trgm CASCADE"))
        connection.execute(text('CREATE SCHEMA "Other"; CREATE EXTENSION pg_trgm SCHEMA "Other"'))
    with app.app_context():
        downgrade(revision=FORMER_REVISION)
        upgrade()
    assert _valid_indexes(former) == TRIGRAM_INDEXES
    with former.begin() as connection:
        connection.execute(text("DROP INDEX ix_messages_search_text"))
    _complete(former)
    assert _valid_indexes(former) == TRIGRAM_INDEXES
    with former.begin() as connection:
        connection.execute(text('DROP SCHEMA "Other" CASCADE'))


@pytest.mark.slow
def test_role_that_may_not_create_extensions_migrates_and_searches(
    former: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    url = former.url.render_as_string(hide_password=False)
    with open_cursor(superuser_url(url)) as cursor:
        cursor.execute("CREATE ROLE limited LOGIN PASSWORD 'limited'")
        cursor.execute("CREATE DATABASE limited")
    own = make_url(url).set(database="limited")
    with open_cursor(superuser_url(own.render_as_string(hide_password=False))) as cursor:
        cursor.execute("GRANT CREATE ON SCHEMA public TO limited")
    as_limited = own.set(username="limited", password="limited").render_as_string(hide_password=False)
    with temporary_data_dir() as data_dir:
        app = create_app(Settings(database_url=as_limited, data_dir=data_dir))
        add_migration_commands(app)
        with app.app_context():
            upgrade()
        engine = services_of(app.extensions).engine
        for each in TEXTS:
            start_conversation(engine, [user(each)])
        completion = SearchCompletion(engine, lambda _seconds: False)
        completion.run()
        completion.run()
        assert caplog.text.count("pg_trgm cannot be used") == 1
        assert _valid_indexes(engine) == []
        _assert_table_is_found(engine)
        services_of(app.extensions).close()
