"""The role of the application in the embedded PostgreSQL: no superuser, and owner of all that is ours."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from mistral_api.database.migration import migrate_down, migrate_to
from mistral_api.database.revisions import newest_revision
from mistral_api.embedded.postgres import EmbeddedPostgres, start_embedded_postgres
from mistral_api.embedded.postgres.files import prepare_layout
from tests.support.databases import migrate_database, open_cursor
from tests.support.processes import SCHEMA

pytestmark = pytest.mark.slow

OWNERS = (
    "SELECT DISTINCT CAST(pg_get_userbyid(relowner) AS text) "
    "FROM pg_class JOIN pg_namespace AS n ON n.oid = relnamespace "
    "WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' "
    "AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_class.oid AND deptype = 'e')"
)


@pytest.fixture
def former(data_dir: Path) -> Iterator[EmbeddedPostgres]:
    """A cluster as older versions left it: the application was the superuser, and owns every table."""
    first = start_embedded_postgres(data_dir)
    with open_cursor(first.superuser_url) as cursor:
        cursor.execute("ALTER DATABASE mistral OWNER TO mistral")
        cursor.execute("DROP OWNED BY mistral_server")
        cursor.execute("DROP ROLE mistral_server")
    prepare_layout(data_dir / "postgres").application_password_file.unlink()
    migrate_database(first.superuser_url)
    with open_cursor(first.superuser_url) as cursor:
        cursor.execute("CREATE TABLE api_usage_2026_01 PARTITION OF api_usage FOR VALUES FROM ('2026-01-01') TO "
                       "('2026-02-01')")  # fmt: skip
        cursor.execute("INSERT INTO search_backfill VALUES ('messages')")
        cursor.execute('CREATE SCHEMA "Odd name"')
        cursor.execute('CREATE TABLE "Odd name"."A table" (id serial, kind int GENERATED ALWAYS AS IDENTITY)')
        cursor.execute('CREATE VIEW "Odd name".seen AS SELECT * FROM "Odd name"."A table"')
        cursor.execute("CREATE FUNCTION \"Odd name\".one() RETURNS int LANGUAGE sql AS 'SELECT 1'")
        cursor.execute("CREATE TYPE \"Odd name\".mood AS ENUM ('sad', 'ok')")
        cursor.execute("CREATE SEQUENCE counting")
    yield first
    first.stop()


def test_the_application_is_no_superuser_and_may_neither_read_files_nor_run_programs(postgres_dir: Path) -> None:
    running = start_embedded_postgres(postgres_dir)
    try:
        with open_cursor(running.url) as cursor:
            cursor.execute(
                "SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls FROM pg_roles "
                "WHERE rolname = current_user"
            )
            assert cursor.fetchall() == [(False,) * 5]
            cursor.execute("CREATE TEMPORARY TABLE lines (line text)")
            for statement in (
                "COPY lines FROM PROGRAM 'id'",
                "COPY lines FROM '/etc/passwd'",
                "SELECT pg_read_file('/etc/passwd')",
                "ALTER SYSTEM SET log_statement = 'all'",
                "ALTER ROLE mistral PASSWORD 'mine'",
                "ALTER ROLE mistral_server SUPERUSER",
                "CREATE ROLE another",
                "SELECT rolpassword FROM pg_authid",
            ):
                with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                    cursor.execute(statement)
    finally:
        running.stop()


@pytest.mark.skipif(SCHEMA is not None, reason="the cluster of an older version has its tables in public")
def test_the_cluster_of_an_older_version_is_handed_over_with_all_its_objects(
    former: EmbeddedPostgres, data_dir: Path
) -> None:
    running = start_embedded_postgres(data_dir)
    assert make_url(running.url).username == "mistral_server"
    with open_cursor(running.url) as cursor:
        cursor.execute(OWNERS)
        assert cursor.fetchall() == [("mistral_server",)]
        cursor.execute("SELECT CAST(pg_get_userbyid(datdba) AS text) FROM pg_database WHERE datname = 'mistral'")
        assert cursor.fetchall() == [("mistral_server",)]
        cursor.execute("SELECT table_name FROM search_backfill")
        assert cursor.fetchall() == [("messages",)]
        cursor.execute("SELECT 1 FROM pg_extension WHERE extname = 'pg_trgm'")
        assert cursor.fetchall() == [(1,)]
        cursor.execute('DROP SCHEMA "Odd name" CASCADE')
    engine = create_engine(running.url)
    with engine.begin() as connection:
        migrate_down(connection)
        migrate_to(connection, newest_revision())
        connection.execute(text("SELECT id FROM api_keys"))
    engine.dispose()


@pytest.mark.skipif(SCHEMA is not None, reason="the cluster of an older version has its tables in public")
def test_handing_over_is_repeated_where_it_was_cut_off_and_locks_are_waited_for(
    former: EmbeddedPostgres, data_dir: Path
) -> None:
    with open_cursor(former.superuser_url) as cursor:
        cursor.execute("BEGIN; LOCK TABLE conversations IN ACCESS SHARE MODE")
        release = threading.Timer(6.0, cursor.execute, ("ROLLBACK",))
        release.start()
        running = start_embedded_postgres(data_dir)
        release.join()
    prepare_layout(data_dir / "postgres").application_password_file.unlink()
    running = start_embedded_postgres(data_dir)
    with open_cursor(running.url) as cursor:
        cursor.execute("SELECT 1 FROM conversations")


def test_a_password_that_fits_no_more_is_replaced(postgres_dir: Path) -> None:
    running = start_embedded_postgres(postgres_dir)
    try:
        with open_cursor(running.superuser_url) as cursor:
            cursor.execute("ALTER ROLE mistral_server PASSWORD 'of another time' SUPERUSER")
        again = start_embedded_postgres(postgres_dir)
        assert again.url != running.url
        with open_cursor(again.url) as cursor:
            cursor.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
            assert cursor.fetchall() == [(False,)]
    finally:
        running.stop()
