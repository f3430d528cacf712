"""A database that no waiting mends ends a start or a command with one sentence, which shows no piece of a password."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from mistral_api.database.address import shown_address
from mistral_api.database.revisions import newest_revision
from mistral_api.system.command_names import project_command
from mistral_api.version import VERSION
from tests.support.databases import open_cursor
from tests.support.processes import ROOT, clean_environment, free_port, libpq_url, temporary_data_dir
from tests.support.transfers import empty_database, require_refused, run_command

PROGRAMS = Path(sys.executable).parent
SERVE = [sys.executable, "-m", "mistral_api.serving", "--api-only", "--port", "0"]
WAITRESS = [str(PROGRAMS / "waitress-serve"), "--listen=127.0.0.1:0", "wsgi:app"]
FLASK = [sys.executable, "-m", "flask", "db"]
SEED = "postgresql://username:password@hostname:port/database_name"
# Every sign that a URL may stumble over, and pieces that nobody may see.
PASSWORD = "geheim@geheim:geheim/geheim#geheim?geheim%geheim"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A DATA_DIR that nothing has been started on."""
    with temporary_data_dir() as made:
        yield made


@pytest.fixture
def newer(engine: Engine) -> Iterator[str]:
    """A database of a version that is not out yet."""
    with empty_database(engine, "newer", migrated=True) as url:
        with open_cursor(url) as cursor:
            cursor.execute("UPDATE alembic_version SET version_num = '9999'")
        yield url


def _run(command: list[str], folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = clean_environment(DATA_DIR=str(folder), API_PORT=str(free_port()), **settings)
    return subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )  # fmt: skip


def _sentence(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one sentence with which a command ended that cannot go on."""
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert done.stdout == ""
    assert "geheim" not in line
    return line.removeprefix("Error: ")


def _url(engine: Engine, password: str, user: str | None = None, database: str | None = None) -> str:
    """Return the URL of the database with a password as somebody pastes it."""
    url = engine.url.set(drivername="postgresql", username=user, database=database).render_as_string()
    return url.replace(":***@", f":{password}@", 1)


@pytest.mark.parametrize("command", [SERVE, WAITRESS], ids=["serve", "waitress"])
def test_wrong_password_is_refused_at_the_start(engine: Engine, folder: Path, command: list[str]) -> None:
    sentence = _sentence(_run(command, folder, DATABASE_URL=_url(engine, PASSWORD)))
    address = shown_address(engine.url)
    assert sentence.startswith(f"DATABASE_URL: the database {address} cannot be used: password authentication failed")


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"database": "nowhere"}, 'database "nowhere" does not exist'),
        ({"user": "nobody"}, 'password authentication failed for user "nobody"'),
    ],
    ids=["database", "role"],
)
def test_missing_database_or_role_is_refused(engine: Engine, folder: Path, parts: dict[str, str], reason: str) -> None:
    password = str(engine.url.password)
    require_refused(run_command(_url(engine, password, **parts), folder, "stats"), reason)


@pytest.mark.slow
def test_newer_schema_is_refused_by_both_versions(newer: str, folder: Path) -> None:
    sentence = f"the schema of {shown_address(newer)} (revision 9999) is of a newer version of this program"
    versions = f"this one, {VERSION}, knows revisions up to {newest_revision()}"
    for command in (SERVE, WAITRESS, [*FLASK, "upgrade"]):
        said = _sentence(_run(command, folder, DATABASE_URL=newer))
        assert sentence in said
        assert versions in said
    for arguments in (["stats"], ["export"], ["keys", "list"], ["backup", "a.zip"]):
        require_refused(run_command(newer, folder, *arguments), sentence, versions)


def test_older_schema_is_refused_by_commands(engine: Engine, folder: Path) -> None:
    with empty_database(engine, "older", migrated=True) as url:
        with open_cursor(url) as cursor:
            cursor.execute("UPDATE alembic_version SET version_num = '0007'")
        for arguments in (["stats"], ["export"], ["keys", "list"], ["prune", "--days", "1"]):
            require_refused(run_command(url, folder, *arguments), "older schema (revision 0007)", "flask db upgrade")


def test_database_that_is_away_ends_a_command_with_host_and_port(folder: Path) -> None:
    port = free_port()
    sentence = _sentence(
        _run([*FLASK, "upgrade"], folder, DATABASE_URL=f"postgres://ann:{PASSWORD}@127.0.0.1:{port}/d")
    )
    assert sentence == f"DATABASE_URL: the database 127.0.0.1:{port}/d cannot be used: Connection refused."
    away = f"postgres://ann:{PASSWORD}@no-such-host.invalid:{port}/d"
    require_refused(run_command(away, folder, "stats"), f"the database no-such-host.invalid:{port}/d cannot be used")


def test_template_that_was_not_edited_is_named(folder: Path) -> None:
    assert _sentence(_run(SERVE, folder, DATABASE_URL=SEED)).startswith("DATABASE_URL: it still is the template")
    require_refused(run_command(SEED, folder, "stats"), "DATABASE_URL: it still is the template")
    assert not folder.exists()


def test_port_that_is_no_number_is_named(folder: Path) -> None:
    url = f"postgres://ann:{PASSWORD}@db.example.com:geheim/d"
    done = run_command(url, folder, "stats")
    require_refused(done, "DATABASE_URL: its port is no number")
    assert "geheim" not in done.output


NOTHING_YET = [
    ["stats"], ["stats", "rebuild"], ["export"], ["prune", "--days", "1"], ["keys", "list"], ["keys", "create", "a"],
    ["backup", "a.zip"], ["database", "move", "--to", "embedded"], ["database", "move", "--to", "postgres://h/d"],
]  # fmt: skip


@pytest.mark.parametrize("arguments", NOTHING_YET, ids=" ".join)
def test_command_makes_nothing_where_nothing_is_yet(folder: Path, arguments: list[str]) -> None:
    done = run_command(None, folder, *arguments)
    require_refused(done, f"There is no data in '{folder}' yet; start the server once: {project_command('serve')}")
    assert not folder.exists()


def test_commands_of_flask_and_the_supervisor_make_nothing_where_nothing_is_yet(folder: Path) -> None:
    assert _sentence(_run([*FLASK, "current"], folder)).startswith(f"There is no data in '{folder}' yet")
    assert _run([*FLASK[:-1], "--help"], folder).returncode == 0
    assert _run([sys.executable, "-m", "mistral_api.supervisor", "status"], folder).returncode == 1
    for arguments in (["audit"], ["constraints", "list"]):
        assert run_command(None, folder, *arguments).exit_code == 0
    assert not folder.exists()


def test_command_makes_no_folder_beside_a_database(engine: Engine, folder: Path) -> None:
    with empty_database(engine, "beside", migrated=True) as url:
        for arguments in (["stats"], ["export"], ["keys", "list"], ["prune", "--days", "1"]):
            assert run_command(url, folder, *arguments).exit_code == 0
        assert _run([*FLASK, "current"], folder, DATABASE_URL=libpq_url(url)).returncode == 0
    assert not folder.exists()


@pytest.mark.slow
def test_two_servers_that_start_together_migrate_an_empty_database_once(engine: Engine, folder: Path) -> None:
    with empty_database(engine, "twins") as url:
        environment = clean_environment(DATA_DIR=str(folder), DATABASE_URL=url)
        command = [sys.executable, "-c", "import wsgi; print('ready')"]
        both = [
            subprocess.Popen(
                command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            for _ in range(2)
        ]
        assert [process.communicate(timeout=120)[0].strip() for process in both] == ["ready", "ready"]
        with open_cursor(url) as cursor:
            cursor.execute("SELECT version_num FROM alembic_version")
            assert cursor.fetchall() == [(newest_revision(),)]
