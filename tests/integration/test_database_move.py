"""``mistral-api database move``: everything arrives, both are compared, and what cannot go on is said in a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from mistral_api.database.engine import create_transfer_engine
from mistral_api.delivery.batch_inserter import BatchInserter
from mistral_api.delivery.writer import writer_starter
from mistral_api.recording.recorder import Recorder, RecordingPolicy
from mistral_api.transfer import requirements
from tests.support.databases import count_rows, open_cursor, rows_of, superuser_url
from tests.support.exchanges import make_exchange, question, reply
from tests.support.processes import SCHEMA, temporary_data_dir
from tests.support.transfers import (
    contents,
    empty_database,
    end_connections,
    fill,
    journal_exchanges,
    require_refused,
    run_command,
    url_of,
)


@pytest.fixture
def target(engine: Engine) -> Iterator[str]:
    """The URL of an empty database."""
    with empty_database(engine, "moved") as url:
        yield url


def _rows(url: str, query: str) -> list[tuple[Any, ...]]:
    with open_cursor(url) as cursor:
        cursor.execute(query)
        return cursor.fetchall()


def test_move_carries_every_table_unchanged_and_says_what_to_put_into_env(
    engine: Engine, target: str, data_dir: Path
) -> None:
    fill(engine)
    done = run_command(url_of(engine), data_dir, "database", "move", "--to", target)
    assert done.exit_code == 0, done.output
    assert contents(target) == contents(url_of(engine))
    assert "Moved: both hold the same." in done.stdout
    assert "DATABASE_URL=postgresql://mistral_server:***@/moved?host=" in done.stdout
    password = engine.url.password
    assert password is not None
    assert str(password) not in done.output
    again = run_command(url_of(engine), data_dir, "database", "move", "--to", target)
    assert (again.exit_code, "The target holds the same already." in again.stdout) == (0, True), again.output


def test_moved_database_goes_on_counting_and_has_its_indexes(engine: Engine, target: str, data_dir: Path) -> None:
    fill(engine)
    assert run_command(url_of(engine), data_dir, "database", "move", "--to", target).exit_code == 0
    indexes = "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = current_schema() ORDER BY 1"
    keys = (
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE connamespace = to_regnamespace(current_schema()) ORDER BY 1, 2"
    )
    for query in (indexes, keys):
        assert _rows(target, query) == _rows(url_of(engine), query)
    with open_cursor(target) as cursor:
        cursor.execute("SELECT max(sequence) FROM messages")
        (last,) = cursor.fetchone() or (0,)
        cursor.execute("SELECT nextval(pg_get_serial_sequence('messages', 'sequence'))")
        assert cursor.fetchone() == (last + 1,)


def test_move_takes_partitions_of_every_month_along(engine: Engine, target: str, data_dir: Path) -> None:
    fill(engine)
    assert run_command(url_of(engine), data_dir, "database", "move", "--to", target).exit_code == 0
    query = "SELECT CAST(tableoid::regclass AS text), count(*) FROM api_usage GROUP BY 1 ORDER BY 1"
    assert _rows(target, query) == _rows(url_of(engine), query)
    assert len(_rows(target, query)) > 2


@pytest.mark.slow
def test_move_from_the_embedded_postgresql_and_back(engine: Engine, target: str) -> None:
    with temporary_data_dir() as source_dir, temporary_data_dir() as new_dir:
        for folder in (source_dir, new_dir):
            folder.mkdir(mode=0o711)
        end_connections(engine)
        with empty_database(engine, "original", migrated=True) as original:
            fill_url(original)
            back = run_command(original, source_dir, "database", "move", "--to", "embedded")
            assert back.exit_code == 0, back.output
            assert "remove the line DATABASE_URL" in back.stdout
            there = run_command(None, source_dir, "database", "move", "--to", target)
            assert there.exit_code == 0, there.output
            assert contents(target) == contents(original)


def fill_url(url: str) -> None:
    """Fill the database of a URL."""
    engine = create_transfer_engine(url, SCHEMA)
    fill(engine)


def test_pending_rows_stay_in_the_journal_and_are_delivered_to_the_new_database_once(
    engine: Engine, target: str, data_dir: Path
) -> None:
    fill(engine)
    waiting = journal_exchanges(data_dir, 3)
    # Delivered to the old database, but still in the journal when its process died.
    BatchInserter(engine).insert(waiting[:1])
    end_connections(engine)
    assert run_command(url_of(engine), data_dir, "database", "move", "--to", target).exit_code == 0
    moved = create_transfer_engine(target, SCHEMA)
    before = count_rows(moved, "api_usage")
    recorder = Recorder(data_dir / "journal", RecordingPolicy(), writer_starter(moved))
    recorder.start()
    recorder.require_all_delivered()
    recorder.close()
    assert count_rows(moved, "api_usage") == before + 2
    query = "SELECT session_id, message_count FROM conversations WHERE session_id LIKE 'waiting%' ORDER BY 1"
    assert rows_of(moved, query) == [("waiting0", 2), ("waiting1", 2), ("waiting2", 2)]
    moved.dispose()


def test_move_to_a_target_with_data_is_refused_until_replace_is_given(
    engine: Engine, target: str, data_dir: Path
) -> None:
    fill(engine, 2)
    assert run_command(url_of(engine), data_dir, "database", "move", "--to", target).exit_code == 0
    BatchInserter(engine).insert([make_exchange("more", messages=question("More?"), answers=reply("More"))])
    end_connections(engine)
    before = contents(target)
    refused = run_command(url_of(engine), data_dir, "database", "move", "--to", target)
    require_refused(refused, "--to: the target has data", "--replace")
    assert contents(target) == before
    assert run_command(url_of(engine), data_dir, "database", "move", "--to", target, "--replace").exit_code == 0
    assert contents(target) == contents(url_of(engine))


def test_move_to_the_same_database_is_refused_and_to_another_schema_is_not(engine: Engine, data_dir: Path) -> None:
    fill(engine, 2)
    url = url_of(engine)
    same = url.replace("postgresql+psycopg2://", "postgres://") + "&application_name=other"
    require_refused(run_command(url, data_dir, "database", "move", "--to", same), "--to: this is the database in use")
    try:
        done = run_command(url, data_dir, "database", "move", "--to", url, "--schema", "elsewhere")
        assert done.exit_code == 0, done.output
        assert "DATABASE_SCHEMA=elsewhere" in done.stdout
        assert contents(url, "elsewhere") == contents(url)
    finally:
        with open_cursor(url) as cursor:
            cursor.execute("DROP SCHEMA IF EXISTS elsewhere CASCADE")


def test_move_while_a_server_has_the_journal_open_is_refused(engine: Engine, target: str, data_dir: Path) -> None:
    recorder = Recorder(data_dir / "journal", RecordingPolicy(), writer_starter(engine))
    recorder.start()
    try:
        require_refused(
            run_command(url_of(engine), data_dir, "database", "move", "--to", target),
            "A server runs on",
            "stop it first",
        )
    finally:
        recorder.close()


def test_move_while_a_server_elsewhere_is_connected_is_refused(engine: Engine, target: str, data_dir: Path) -> None:
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        refused = run_command(url_of(engine), data_dir, "database", "move", "--to", target)
        require_refused(refused, "DATABASE_URL: Mistral Local API is connected", "--ignore-connections")
        done = run_command(url_of(engine), data_dir, "database", "move", "--to", target, "--ignore-connections")
        assert done.exit_code == 0, done.output


def test_move_of_a_schema_behind_or_ahead_is_refused(engine: Engine, target: str, data_dir: Path) -> None:
    url = url_of(engine)
    end_connections(engine)
    with open_cursor(url) as cursor:
        cursor.execute("SELECT version_num FROM alembic_version")
        (newest,) = cursor.fetchone() or ("",)
        try:
            for revision, sentence in (("0003", "older than this version"), ("9999", "newer version of this program")):
                cursor.execute("UPDATE alembic_version SET version_num = %s", (revision,))
                refused = run_command(url, data_dir, "database", "move", "--to", target)
                require_refused(refused, "DATABASE_URL: ", f"revision {revision}", sentence)
        finally:
            cursor.execute("UPDATE alembic_version SET version_num = %s", (newest,))
    require_refused(run_command(target, data_dir, "database", "move", "--to", url), "there is nothing to carry")


def test_move_to_a_target_without_rights_is_refused(engine: Engine, target: str, data_dir: Path) -> None:
    fill(engine, 1)
    with open_cursor(superuser_url(target)) as cursor:
        cursor.execute("CREATE ROLE guest LOGIN PASSWORD 'guest'")
    guest = engine.url.set(database="moved", username="guest", password="guest").render_as_string(hide_password=False)
    try:
        refused = run_command(url_of(engine), data_dir, "database", "move", "--to", guest)
        require_refused(refused, "the target is as it was", "permission denied for")
    finally:
        with open_cursor(superuser_url(target)) as cursor:
            cursor.execute("DROP ROLE guest")


def test_move_to_a_database_with_tables_of_another_program_is_refused(
    engine: Engine, target: str, data_dir: Path
) -> None:
    fill(engine, 1)
    if SCHEMA is not None:
        pytest.skip("the schema is ours alone")
    with open_cursor(target) as cursor:
        cursor.execute("CREATE TABLE messages (id int)")
        refused = run_command(url_of(engine), data_dir, "database", "move", "--to", target)
        require_refused(refused, "--to: in this database another program has a table 'messages'", "--schema")
        done = run_command(url_of(engine), data_dir, "database", "move", "--to", target, "--schema", "mistral_api")
        assert done.exit_code == 0, done.output
        assert contents(target, "mistral_api") == contents(url_of(engine))
        cursor.execute("SELECT count(*) FROM messages")
        assert cursor.fetchone() == (0,)


def test_bad_targets_are_refused_with_a_sentence(engine: Engine, data_dir: Path) -> None:
    end_connections(engine)
    for arguments, sentence in (
        (["--to", "mysql://a:geheim@b/c"], "--to: it must begin with postgres:// or postgresql://"),
        (["--to", "embedded", "--schema", "Bad-Name"], "--schema: 'Bad-Name' is not allowed"),
    ):
        done = run_command(url_of(engine), data_dir, "database", "move", *arguments)
        require_refused(done, sentence)
        assert "geheim" not in done.output
    away = "postgres://nobody:geheim@127.0.0.1:1/nothing"
    require_refused(run_command(url_of(engine), data_dir, "database", "move", "--to", away), "the target is as", code=1)


def test_move_to_an_older_postgresql_or_another_encoding_is_refused(
    engine: Engine, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(engine, 1)
    url = url_of(engine)
    with open_cursor(superuser_url(url)) as cursor:
        cursor.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0 LOCALE_PROVIDER libc")
        try:
            latin = engine.url.set(database="latin").render_as_string(hide_password=False)
            refused = run_command(url, data_dir, "database", "move", "--to", latin)
            require_refused(refused, "--to: the database's encoding is LATIN1")
        finally:
            cursor.execute("DROP DATABASE latin")
    monkeypatch.setattr(requirements, "OLDEST_POSTGRES", 99)
    require_refused(run_command(url, data_dir, "database", "move", "--to", url), "and 99 is the oldest that will do")


def test_password_may_be_left_out_of_the_url(engine: Engine, target: str, data_dir: Path) -> None:
    fill(engine, 1)
    password = str(engine.url.password)
    bare = target.replace(f":{password}@", "@")
    done = run_command(url_of(engine), data_dir, "database", "move", "--to", bare, PGPASSWORD=password)
    assert done.exit_code == 0, done.output
    assert contents(target) == contents(url_of(engine))
