"""``mistral-api keys adopt``: what was recorded before there were keys becomes that of a key's owner."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from mistral_api.analytics.rebuild import rebuild_rollups
from mistral_api.database.tables import all_tables
from mistral_api.delivery import adoption
from mistral_api.delivery.adoption import adopt_rows
from mistral_api.delivery.batch_inserter import BatchInserter
from tests.support.conversations import conversation_lister
from tests.support.databases import rows_of
from tests.support.exchanges import make_exchange, question, reply
from tests.support.transfers import require_refused, run_command, url_of
from tests.support.watched_keys import make_key

SUMS = ("usage_rollups", "usage_series", "usage_sessions")


def insert(engine: Engine, *sessions: tuple[str, str]) -> None:
    """Record an exchange for each owner and session, an hour apart."""
    now = datetime.now(UTC)
    BatchInserter(engine).insert(
        [
            make_exchange(
                session_id,
                owner=owner,
                created_at=now - timedelta(hours=number),
                messages=question(f"Of {owner}?"),
                answers=reply("Yes."),
                prompt_tokens=10 + number,
                completion_tokens=3,
            )
            for number, (owner, session_id) in enumerate(sessions)
        ]
    )


def owners(engine: Engine) -> set[str]:
    """Every owner that any row has, but for the sums of all."""
    tables = [table.name for table in all_tables() if "owner" in table.columns and table.name != "api_keys"]
    return {owner for name in tables for (owner,) in rows_of(engine, f"SELECT DISTINCT owner FROM {name}") if owner}


def sums(engine: Engine) -> dict[str, list[tuple[Any, ...]]]:
    return {name: rows_of(engine, f"SELECT * FROM {name} AS t ORDER BY CAST(t AS text)") for name in SUMS}


def test_every_table_with_an_owner_is_adopted() -> None:
    with_owner = {table.name for table in all_tables() if "owner" in table.columns} - {"api_keys"}
    assert with_owner == {*adoption._SIMPLE_TABLES, *adoption._SUMMED_TABLES}


def test_everything_of_the_former_owner_is_the_keys_and_sums_are_as_if_it_had_always_been(
    engine: Engine, data_dir: Path
) -> None:
    insert(engine, ("local", "one"), ("local", "two"), ("anna", "three"), ("ben", "four"))
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO stored_completions (owner, id, conversation_id, created_at, metadata, messages, body) "
                "SELECT 'local', 'chatcmpl-1', id, now(), '{}', '[]', '{}' FROM conversations WHERE session_id = 'one'"
            )
        )
        connection.execute(
            text(
                "INSERT INTO responses (id, owner, conversation_id, input_ids, status, created_at) "
                "SELECT 'resp_1', 'local', id, '{}', 'completed', now() FROM conversations WHERE session_id = 'one'"
            )
        )
        connection.execute(
            text("INSERT INTO session_aliases SELECT 'local', 'alias', id FROM conversations WHERE session_id = 'one'")
        )
    make_key(engine, "laptop", owner="anna")
    done = run_command(url_of(engine), data_dir, "keys", "adopt", "laptop")
    assert done.exit_code == 0, done.output
    for part in ("2 conversations", "2 api_usage", "1 stored_completions", "1 responses", "1 session_aliases"):
        assert part in done.stdout
    assert owners(engine) == {"anna", "ben"}
    listed, _ = conversation_lister(engine).list_page("anna", {"limit": 10})
    assert {each.conversation.session_id for each in listed} == {"one", "two", "three"}
    merged = sums(engine)
    rebuild_rollups(engine)
    assert merged == sums(engine)
    again = run_command(url_of(engine), data_dir, "keys", "adopt", "laptop")
    assert "nothing" in again.stdout


def test_a_session_id_that_both_used_stays_two_conversations(engine: Engine) -> None:
    insert(engine, ("local", "default"), ("anna", "default"), ("local", "alias"), ("anna", "other"))
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO session_aliases SELECT 'anna', 'alias', id FROM conversations WHERE session_id = 'other'")
        )
    adopt_rows(engine, "local", "anna")
    assert owners(engine) == {"anna"}
    sessions = rows_of(
        engine,
        "SELECT session_id, content FROM messages JOIN conversations AS c ON c.id = conversation_id "
        "WHERE role = 'user' ORDER BY session_id",
    )
    assert [content for session_id, content in sessions if session_id == "default"] == ["Of anna?"]
    assert sorted(content for _, content in sessions) == ["Of anna?", "Of anna?", "Of local?", "Of local?"]
    renamed = [session_id for session_id, content in sessions if content == "Of local?"]
    assert all(session_id.startswith("sess_") for session_id in renamed)
    assert len(set(renamed)) == 2
    used = {session_id for (session_id,) in rows_of(engine, "SELECT session_id FROM api_usage")}
    assert set(renamed) < used
    merged = sums(engine)
    rebuild_rollups(engine)
    assert merged == sums(engine)


def test_an_adoption_that_fails_has_changed_nothing(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    insert(engine, ("local", "one"))
    before = sums(engine)
    monkeypatch.setattr(adoption, "LOCK_SECONDS", 1)
    with engine.connect() as writer:
        writer.execute(text("LOCK TABLE usage_series IN ROW EXCLUSIVE MODE"))
        with pytest.raises(OperationalError, match="lock timeout"):
            adopt_rows(engine, "local", "anna")
    assert owners(engine) == {"local"}
    assert sums(engine) == before


def test_an_adoption_by_nobody_or_by_the_same_owner_is_refused(engine: Engine, data_dir: Path) -> None:
    require_refused(run_command(url_of(engine), data_dir, "keys", "adopt", "nobody"), "There is no API key 'nobody'")
    make_key(engine, "mine", owner="local")
    require_refused(run_command(url_of(engine), data_dir, "keys", "adopt", "mine"), "'local' already")
