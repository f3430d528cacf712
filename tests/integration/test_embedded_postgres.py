"""The embedded PostgreSQL: shared by processes, owned by one of them, private to its account."""

from __future__ import annotations

import os
import pwd
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg2
import pytest
from sqlalchemy.engine import make_url

from mistral_api.embedded.postgres import EmbeddedPostgres, start_embedded_postgres
from mistral_api.embedded.postgres.account import Account
from mistral_api.embedded.postgres.files import prepare_layout
from mistral_api.errors import StartError
from mistral_api.system.files import is_root
from tests.support.processes import ROOT, clean_environment, libpq_url, temporary_data_dir, wait_for

as_root = pytest.mark.skipif(not is_root(), reason="needs root: another local user has to be played")


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Path, EmbeddedPostgres]]:
    """One server for the tests that only read from it."""
    with temporary_data_dir() as folder:
        running = start_embedded_postgres(folder)
        yield folder, running
        running.stop()


def _query(url: str, statement: str = "SELECT 1") -> list[tuple[object, ...]]:
    connection = psycopg2.connect(libpq_url(url), connect_timeout=10)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def _postmaster(data_dir: Path) -> int:
    return int((prepare_layout(data_dir / "postgres").data / "postmaster.pid").read_text().splitlines()[0])


def test_embedded_postgres_serves_queries_and_requires_the_password(shared: tuple[Path, EmbeddedPostgres]) -> None:
    _, running = shared
    assert running.owned
    assert _query(running.url, "SELECT current_user::text, current_database()::text") == [("mistral_server", "mistral")]
    password = f":{make_url(running.url).password}@"
    for other in (":wrong@", "@"):
        with pytest.raises(psycopg2.OperationalError, match="password"):
            _query(running.url.replace(password, other))


def test_embedded_postgres_has_only_password_rules(shared: tuple[Path, EmbeddedPostgres]) -> None:
    _, running = shared
    methods = _query(running.superuser_url, "SELECT DISTINCT auth_method FROM pg_hba_file_rules")
    assert methods == [("scram-sha-256",)]
    assert _query(running.url, "SHOW listen_addresses") == [("",)]


def test_embedded_postgres_password_and_socket_are_readable_only_by_the_owner(
    shared: tuple[Path, EmbeddedPostgres],
) -> None:
    data_dir, _ = shared
    layout = prepare_layout(data_dir / "postgres")
    assert stat.S_IMODE(layout.password_file.stat().st_mode) == 0o600
    for folder in (layout.socket_folder, layout.data):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@as_root
def test_embedded_postgres_refuses_another_local_user(shared: tuple[Path, EmbeddedPostgres]) -> None:
    _, running = shared
    nobody = pwd.getpwnam("nobody")
    script = "import sys, psycopg2; psycopg2.connect(sys.argv[1], connect_timeout=5)"
    for url in (running.url, running.url.replace(f":{make_url(running.url).password}@", "@")):
        command = ["/usr/bin/env", "python3", "-c", "import os,sys; os.listdir(sys.argv[1])"]
        folder = make_url(running.url).query["host"]
        entered = Account(nobody.pw_uid, nobody.pw_gid).run([*command, str(folder)], 30)
        assert "Permission" in entered.stderr
        connected = subprocess.run(
            [sys.executable, "-c", f"import os; os.setgroups([]); os.setgid({nobody.pw_gid}); import psycopg2; "
             f"os.setuid({nobody.pw_uid}); {script}", libpq_url(url)],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        assert connected.returncode != 0
        assert "Permission denied" in connected.stderr


@as_root
def test_root_with_a_private_home_changes_no_folder_modes(tmp_path: Path) -> None:
    home = Path(tempfile.mkdtemp(prefix="home-", dir=tmp_path))
    base = Path(tempfile.mkdtemp(prefix="mistral-api-base-"))
    base.chmod(0o755)
    parents = [home, *home.parents]
    before = [(path, path.stat().st_mode, path.stat().st_uid) for path in parents]
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    try:
        running = start_embedded_postgres(home / "var", system_base=base)
        try:
            assert _query(running.url) == [(1,)]
            server = psutil.Process(int(next(base.glob("*/data/postmaster.pid")).read_text().split()[0]))
            assert server.username() == "mistral-api"
        finally:
            running.stop()
        assert [(path, path.stat().st_mode, path.stat().st_uid) for path in parents] == before
        assert (home / "var" / "postgres" / "location.txt").read_text().startswith(str(base))
    finally:
        subprocess.run(["/bin/rm", "-rf", str(base)], check=True)


@as_root
def test_root_creates_no_second_database_beside_that_of_another_account(data_dir: Path) -> None:
    home = data_dir / "postgres"
    home.mkdir(parents=True)
    os.chown(home, 54321, 54321)
    with pytest.raises(StartError, match="belongs to the account with the number 54321"):
        start_embedded_postgres(data_dir)
    assert not list(home.iterdir())


@as_root
def test_root_creates_no_database_in_the_data_dir_of_another_account(data_dir: Path) -> None:
    data_dir.mkdir(mode=0o700)
    os.chown(data_dir, 54321, 54321)
    with pytest.raises(StartError, match="belongs to the account with the number 54321"):
        start_embedded_postgres(data_dir)
    assert not list(data_dir.iterdir())


def test_missing_useradd_is_explained_with_alternatives(monkeypatch: pytest.MonkeyPatch, data_dir: Path) -> None:
    monkeypatch.setattr("mistral_api.embedded.postgres.account.is_root", lambda: True)
    monkeypatch.setattr("mistral_api.embedded.postgres.account.ACCOUNT_NAME", "no-such-account")
    monkeypatch.setattr("shutil.which", lambda *_arguments, **_options: None)
    with pytest.raises(StartError, match="start as another user, set DATABASE_URL, or make a system account"):
        start_embedded_postgres(data_dir)


def test_embedded_postgres_data_survive_a_restart_also_where_a_lock_file_names_another_process(
    postgres_dir: Path,
) -> None:
    first = start_embedded_postgres(postgres_dir)
    _query(first.url, "CREATE TABLE kept AS SELECT 42 AS value")
    layout = prepare_layout(postgres_dir / "postgres")
    file = layout.data / "postmaster.pid"
    recorded = file.read_text()
    first.stop()
    # As after a power failure, when the number has gone to another process of the same account.
    stranger = subprocess.Popen(["/bin/sleep", "60"], user=layout.account.uid, group=layout.account.gid)
    try:
        for left in (file, layout.socket_folder / ".s.PGSQL.5432.lock"):
            left.write_text(recorded.replace(recorded.splitlines()[0], str(stranger.pid), 1))
            layout.account.chown(left)
        second = start_embedded_postgres(postgres_dir)
        assert _query(second.url, "SELECT value FROM kept") == [(42,)]
        assert _postmaster(postgres_dir) != stranger.pid
        second.stop()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_only_the_owner_stops_embedded_postgres(postgres_dir: Path) -> None:
    first = start_embedded_postgres(postgres_dir)
    second = start_embedded_postgres(postgres_dir)
    assert (first.owned, second.owned) == (True, False)
    assert first.url == second.url
    second.stop()
    assert _query(first.url) == [(1,)]
    pid = _postmaster(postgres_dir)
    first.stop()
    wait_for(lambda: not psutil.pid_exists(pid), "the end of the server")
    first.stop()


_STARTER = """
import sys
from pathlib import Path
from mistral_api.embedded.postgres import start_embedded_postgres
running = start_embedded_postgres(Path(sys.argv[1]))
print(running.owned, running.url, flush=True)
sys.stdin.read()
"""


def _start_in_process(data_dir: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _STARTER, str(data_dir)]
    return subprocess.Popen(
        command, env=clean_environment(), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_processes_that_start_together_share_one_embedded_postgres(data_dir: Path) -> None:
    with _start_in_process(data_dir) as one, _start_in_process(data_dir) as other:
        assert one.stdout is not None
        assert other.stdout is not None
        said = [one.stdout.readline().split(), other.stdout.readline().split()]
        assert sorted(words[0] for words in said) == ["False", "True"]
        assert said[0][1] == said[1][1]
        one.kill()
        other.kill()
    successor = start_embedded_postgres(data_dir)
    assert successor.owned
    successor.stop()


def test_killed_owner_of_embedded_postgres_is_succeeded(postgres_dir: Path) -> None:
    with _start_in_process(postgres_dir) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline().startswith("True")
        pid = _postmaster(postgres_dir)
        owner.kill()
    successor = start_embedded_postgres(postgres_dir)
    assert successor.owned
    assert _postmaster(postgres_dir) == pid
    successor.stop()
    wait_for(lambda: not psutil.pid_exists(pid), "the end of the server")


def test_data_of_another_container_or_another_postgres_major_version_are_refused(postgres_dir: Path) -> None:
    running = start_embedded_postgres(postgres_dir)
    running.stop()
    with socket.socket(socket.AF_UNIX) as of_another_container:
        of_another_container.bind(str(prepare_layout(postgres_dir / "postgres").socket_folder / ".s.PGSQL.5432"))
        of_another_container.listen()
        with pytest.raises(StartError, match="of another container runs on"):
            start_embedded_postgres(postgres_dir)
    (prepare_layout(postgres_dir / "postgres").data / "PG_VERSION").write_text("13\n")
    with pytest.raises(StartError, match=r"made by PostgreSQL 13 and this is \d+"):
        start_embedded_postgres(postgres_dir)


def test_data_dir_too_long_for_a_socket_path_works(data_dir: Path) -> None:
    deep = data_dir / ("d" * 60) / ("e" * 60)
    running = start_embedded_postgres(deep)
    try:
        assert _query(running.url) == [(1,)]
    finally:
        running.stop()
        prepare_layout(deep / "postgres").socket_folder.rmdir()


@pytest.mark.parametrize("running_still", [False, True])
def test_deleted_password_file_is_replaced_by_a_new_password(postgres_dir: Path, running_still: bool) -> None:
    first = start_embedded_postgres(postgres_dir)
    _query(first.url, "CREATE TABLE kept AS SELECT 7 AS value")
    if not running_still:
        first.stop()
    layout = prepare_layout(postgres_dir / "postgres")
    layout.password_file.unlink()
    second = start_embedded_postgres(postgres_dir)
    try:
        assert _query(second.url, "SELECT value FROM kept") == [(7,)]
        assert stat.S_IMODE(layout.password_file.stat().st_mode) == 0o600
        with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
            _query(first.superuser_url)
    finally:
        second.stop()
        first.stop()


def test_postgres_that_is_looked_after_survives_its_owner_and_ends_with_the_last_process(postgres_dir: Path) -> None:
    first = start_embedded_postgres(postgres_dir)
    second = start_embedded_postgres(postgres_dir)
    second.watch()
    first.watch()
    _query(first.url, "CREATE TABLE kept AS SELECT 7 AS value")
    first.stop()
    assert _query(second.url) == [(1,)]
    pid = _postmaster(postgres_dir)
    os.kill(pid, 9)
    wait_for(lambda: (health := second.health()) and health["restarts"] == 1, "another PostgreSQL", 60)
    assert _query(second.url, "SELECT value FROM kept") == [(7,)]
    assert second.owned
    pid = _postmaster(postgres_dir)
    second.stop()
    wait_for(lambda: not psutil.pid_exists(pid), "the end of the server")
