"""DATABASE_SCHEMA: our tables in a schema of their own, beside another program's tables of the same names."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from mistral_api.database.address import shown_address
from mistral_api.database.engine import create_transfer_engine
from mistral_api.database.revisions import newest_revision
from tests.support.databases import open_cursor, rows_of
from tests.support.processes import ROOT, clean_environment, free_port, launch_server
from tests.support.transfers import empty_database, fill, require_refused, run_command

pytestmark = pytest.mark.slow

OURS = "ours"
WAY_OUT = "another program has a table '{table}': set DATABASE_SCHEMA=mistral_api, and our tables get a schema of"
PROGRAMS = Path(sys.executable).parent


@pytest.fixture
def shared(engine: Engine) -> Iterator[str]:
    """The URL of a database that another program uses."""
    with empty_database(engine, "shared") as url:
        yield url


def _flask(url: str, *arguments: str, schema: str = "") -> subprocess.CompletedProcess[str]:
    environment = clean_environment(DATABASE_URL=url, DATABASE_SCHEMA=schema)
    command = [sys.executable, "-m", "flask", "db", *arguments]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def _relations(url: str, schema: str) -> list[str]:
    with open_cursor(url) as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s ORDER BY 1", (schema,))
        return [name for (name,) in cursor.fetchall()]


def test_tables_lie_in_the_schema_and_the_other_program_keeps_its_own(shared: str) -> None:
    with open_cursor(shared) as cursor:
        cursor.execute("CREATE TABLE public.conversations (id int PRIMARY KEY, subject text)")
        cursor.execute("CREATE TABLE public.alembic_version (version_num varchar(32))")
        cursor.execute("INSERT INTO public.alembic_version VALUES ('0002')")
    assert _flask(shared, "upgrade", schema=OURS).returncode == 0
    assert _relations(shared, "public") == ["alembic_version", "conversations"]
    assert "api_usage_default" in _relations(shared, OURS)
    checked = _flask(shared, "check", schema=OURS)
    assert "No new upgrade operations detected" in checked.stdout + checked.stderr
    engine = create_transfer_engine(shared, OURS)
    fill(engine)
    assert rows_of(engine, "SELECT count(*) FROM conversations") == [(6,)]
    engine.dispose()
    assert _flask(shared, "downgrade", "base", schema=OURS).returncode == 0
    assert _relations(shared, OURS) == ["alembic_version"]
    assert _relations(shared, "public") == ["alembic_version", "conversations"]


FOREIGN = {
    "a table with the name of ours": (
        ["CREATE TABLE public.conversations (id int PRIMARY KEY)"],
        "conversations",
    ),
    "a view": (["CREATE VIEW public.responses AS SELECT 1 AS id"], "responses"),
    "revisions that we do not have": (
        ["CREATE TABLE public.alembic_version (version_num varchar(32))",
         "INSERT INTO public.alembic_version VALUES ('a1b2c3')"],
        "alembic_version",
    ),
    "revisions numbered like ours": (
        ["CREATE TABLE public.alembic_version (version_num varchar(32))",
         "INSERT INTO public.alembic_version VALUES ('0002')",
         "CREATE TABLE public.messages (id uuid PRIMARY KEY, body text)"],
        "messages",
    ),
    "versions of something else": (["CREATE TABLE public.alembic_version (major int)"], "alembic_version"),
    "the same key and other columns": (
        ["CREATE TABLE public.alembic_version (version_num varchar(32))",
         f"INSERT INTO public.alembic_version VALUES ('{newest_revision()}')",
         "CREATE TABLE public.api_usage (request_id uuid, created_at timestamptz, "
         "CONSTRAINT pk_api_usage PRIMARY KEY (request_id, created_at))"],
        "api_usage",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FOREIGN)
def test_tables_of_another_program_are_refused_with_a_way_out(shared: str, case: str) -> None:
    statements, table = FOREIGN[case]
    with open_cursor(shared) as cursor:
        for statement in statements:
            cursor.execute(statement)
    before = _relations(shared, "public")
    done = _flask(shared, "upgrade")
    assert (done.returncode, done.stdout) == (2, "")
    assert WAY_OUT.format(table=table) in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert _relations(shared, "public") == before


def test_every_program_refuses_a_foreign_table(shared: str, data_dir: Path) -> None:
    with open_cursor(shared) as cursor:
        cursor.execute("CREATE TABLE public.messages (id int)")
    sentence = WAY_OUT.format(table="messages")
    with launch_server(data_dir, DATABASE_URL=shared, DATABASE_SCHEMA="") as server:
        assert server.process.wait(timeout=60) == 2
        assert sentence in server.log()
    listener = [str(PROGRAMS / "waitress-serve"), f"--listen=127.0.0.1:{free_port()}", "wsgi:app"]
    environment = clean_environment(DATABASE_URL=shared, DATABASE_SCHEMA="", DATA_DIR=str(data_dir))
    done = subprocess.run(
        listener, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )  # fmt: skip
    assert (done.returncode, sentence in done.stderr, "Traceback" in done.stderr) == (2, True, False)
    for arguments in (["stats"], ["export"], ["prune", "--days", "1"], ["stats", "rebuild"]):
        require_refused(run_command(shared, data_dir, *arguments, DATABASE_SCHEMA=""), sentence)
    assert _relations(shared, "public") == ["messages"]


def test_foreign_table_in_the_chosen_schema_is_refused(shared: str) -> None:
    with open_cursor(shared) as cursor:
        cursor.execute(f"CREATE SCHEMA {OURS}")
        cursor.execute(f"CREATE TABLE {OURS}.messages (id int)")
    done = _flask(shared, "upgrade", schema=OURS)
    assert done.returncode == 2
    where = f"in the schema '{OURS}' of {shown_address(shared)} another program has a table 'messages'"
    assert f"DATABASE_SCHEMA: {where}" in done.stderr


def test_every_statement_finds_our_tables_alone_whatever_the_connection_was_used_for(shared: str) -> None:
    """As behind a pooler that gives each transaction another connection: nothing is left on the connection."""
    assert _flask(shared, "upgrade", schema=OURS).returncode == 0
    engine = create_transfer_engine(shared, OURS)
    with engine.connect() as connection:
        with connection.begin():
            raw = connection.connection.cursor()
            raw.execute("SET search_path TO public")
        for _ in range(2):
            with connection.begin(), connection.begin_nested() as savepoint:
                assert connection.scalar(text("SELECT count(*) FROM conversations")) == 0
                savepoint.rollback()
            with connection.begin():
                streamed = text("SELECT current_schema() FROM alembic_version")
                assert connection.execute(streamed, execution_options={"yield_per": 1}).all() == [(OURS,)]
        raw.execute("SHOW search_path")
        assert raw.fetchone() == ("public",)
    engine.dispose()


def test_index_is_built_concurrently_in_the_schema(shared: str) -> None:
    assert _flask(shared, "upgrade", schema=OURS).returncode == 0
    engine = create_transfer_engine(shared, OURS)
    index = "SELECT schemaname FROM pg_indexes WHERE indexname = 'ix_test'"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for _ in range(2):
            connection.execute(text("CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_test ON messages (role)"))
        assert connection.scalar(text(index)) == OURS
        connection.execute(text("REINDEX INDEX CONCURRENTLY ix_test"))
        connection.execute(text("DROP INDEX CONCURRENTLY IF EXISTS ix_test"))
        assert connection.scalar(text(index)) is None
    engine.dispose()


def test_schema_names_that_need_quotes_are_refused(shared: str) -> None:
    for name in ("Ours", "1st", "pg_ours", "my-schema", "information_schema", 'a"b', "a" * 64):
        done = _flask(shared, "upgrade", schema=name)
        assert done.returncode == 2
        assert f"DATABASE_SCHEMA: '{name}' is not allowed; give a name of at most 63 small letters" in done.stderr
