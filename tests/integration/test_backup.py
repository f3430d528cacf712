"""``mistral-api backup`` and ``restore``: one file, whole or not there, that brings everything back."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine

from mistral_api.database.engine import create_transfer_engine
from mistral_api.database.revisions import all_revisions
from mistral_api.database.tables import table_names
from mistral_api.delivery.batch_inserter import BatchInserter
from mistral_api.delivery.writer import writer_starter
from mistral_api.embedded.postgres import package_version
from mistral_api.recording.recorder import Recorder, RecordingPolicy
from mistral_api.transfer import description, dump, programs, requirements
from mistral_api.transfer.archive import open_archive, writing_archive
from mistral_api.transfer.catalogue import existing_tables
from mistral_api.transfer.errors import TransferFailed, TransferRefused
from tests.support.databases import count_rows, open_cursor, rows_of
from tests.support.exchanges import make_exchange, question
from tests.support.processes import ROOT, SCHEMA, clean_environment
from tests.support.transfers import (
    contents,
    empty_database,
    fill,
    journal_exchanges,
    require_refused,
    run_command,
    url_of,
)


@pytest.fixture
def empty(engine: Engine) -> Iterator[str]:
    """The URL of an empty database: that of another machine."""
    with empty_database(engine, "restored") as url:
        yield url


@pytest.fixture
def file(engine: Engine, data_dir: Path, tmp_path: Path) -> Path:
    """A backup of a filled database and a journal with three exchanges."""
    fill(engine)
    journal_exchanges(data_dir, 3)
    path = tmp_path / "all.backup"
    done = run_command(url_of(engine), data_dir, "backup", str(path))
    assert done.exit_code == 0, done.output
    assert "3 pending" in done.stdout
    return path


def _deliver(url: str, data_dir: Path) -> None:
    """Deliver what is in the journal, as a server does that is started."""
    target = create_transfer_engine(url, SCHEMA)
    recorder = Recorder(data_dir / "journal", RecordingPolicy(), writer_starter(target))
    recorder.start()
    recorder.require_all_delivered()
    recorder.close()
    target.dispose()


def test_restore_on_an_empty_machine_brings_everything_back(
    engine: Engine, empty: str, file: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    done = run_command(empty, other, "restore", str(file))
    assert done.exit_code == 0, done.output
    assert contents(empty) == contents(url_of(engine))
    _deliver(empty, other)
    restored = create_transfer_engine(empty, SCHEMA)
    query = "SELECT session_id, message_count FROM conversations WHERE session_id LIKE 'waiting%' ORDER BY 1"
    assert rows_of(restored, query) == [("waiting0", 2), ("waiting1", 2), ("waiting2", 2)]
    restored.dispose()


def test_restore_into_another_schema(engine: Engine, empty: str, file: Path, tmp_path: Path) -> None:
    done = run_command(empty, tmp_path / "other", "restore", str(file), DATABASE_SCHEMA="elsewhere")
    assert done.exit_code == 0, done.output
    assert contents(empty, "elsewhere") == contents(url_of(engine))


def test_exchange_delivered_between_journal_and_dump_is_restored_once(
    engine: Engine, empty: str, data_dir: Path, tmp_path: Path
) -> None:
    fill(engine, 1)
    waiting = journal_exchanges(data_dir, 2)
    BatchInserter(engine).insert(waiting)
    engine.dispose()
    path, other = tmp_path / "b", tmp_path / "other"
    assert run_command(url_of(engine), data_dir, "backup", str(path)).exit_code == 0
    assert run_command(empty, other, "restore", str(path)).exit_code == 0
    _deliver(empty, other)
    assert contents(empty) == contents(url_of(engine))


def test_backup_while_a_server_records_contains_what_has_ended(
    engine: Engine, empty: str, data_dir: Path, tmp_path: Path
) -> None:
    recorder = Recorder(data_dir / "journal", RecordingPolicy(), writer_starter(engine))
    recorder.start()
    running = make_exchange("running", messages=question("Long?"))
    recorder.begin(running, lambda: None)
    path = tmp_path / "b"
    done = run_command(url_of(engine), data_dir, "backup", str(path))
    recorder.close()
    assert done.exit_code == 0, done.output
    assert "1 open" in done.stdout
    other = tmp_path / "other"
    assert run_command(empty, other, "restore", str(path)).exit_code == 0
    _deliver(empty, other)
    restored = create_transfer_engine(empty, SCHEMA)
    assert rows_of(restored, "SELECT status, error_code FROM api_usage") == [(500, "interrupted")]
    restored.dispose()


@pytest.mark.skipif(os.name != "posix", reason="POSIX modes")
def test_backup_file_is_private_and_replaces_the_old_one_when_it_is_whole(
    engine: Engine, data_dir: Path, file: Path
) -> None:
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before = file.read_bytes()
    left = file.with_name(f"{file.name}.999999999.zip.new")
    left.write_bytes(b"of a killed process")
    away = run_command("postgres://nobody@127.0.0.1:1/nothing", data_dir, "backup", str(file))
    require_refused(away, "No backup was written", code=1)
    assert file.read_bytes() == before
    fill(engine, 1)
    assert run_command(url_of(engine), data_dir, "backup", str(file)).exit_code == 0
    assert file.read_bytes() != before
    assert [path.name for path in file.parent.iterdir() if ".new" in path.name] == []


def test_restore_into_a_database_with_data_is_refused_until_replace_is_given(
    engine: Engine, empty: str, file: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    assert run_command(empty, other, "restore", str(file)).exit_code == 0
    _deliver(empty, other)
    before = contents(empty)
    require_refused(run_command(empty, other, "restore", str(file)), "the database has data already", "--replace")
    assert contents(empty) == before
    done = run_command(empty, other, "restore", str(file), "--replace")
    assert done.exit_code == 0, done.output
    assert contents(empty) == contents(url_of(engine))


def test_restore_over_a_journal_with_records_is_refused_and_replace_keeps_it(
    empty: str, file: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    journal_exchanges(other, 1)
    require_refused(run_command(empty, other, "restore", str(file)), "The journal in", "--replace")
    done = run_command(empty, other, "restore", str(file), "--replace")
    assert done.exit_code == 0, done.output
    (kept,) = (other / "journal").glob("journal.sqlite3.replaced-*[0-9]")
    with closing(sqlite3.connect(kept)) as connection:
        assert connection.execute("SELECT count(*) FROM endings").fetchone() == (1,)
    with closing(sqlite3.connect(other / "journal" / "journal.sqlite3")) as connection:
        assert connection.execute("SELECT count(*) FROM endings").fetchone() == (3,)


def test_restore_run_again_after_its_commit_goes_on_with_the_journal(empty: str, file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert run_command(empty, other, "restore", str(file)).exit_code == 0
    # As if it had been killed between the commit and the rename.
    (other / "journal" / "journal.sqlite3").unlink()
    again = run_command(empty, other, "restore", str(file))
    assert (again.exit_code, "held this backup already" in again.stdout) == (0, True), again.output
    with closing(sqlite3.connect(other / "journal" / "journal.sqlite3")) as connection:
        assert connection.execute("SELECT count(*) FROM endings").fetchone() == (3,)


def test_restore_while_a_server_runs_is_refused(engine: Engine, empty: str, file: Path, data_dir: Path) -> None:
    recorder = Recorder(data_dir / "journal", RecordingPolicy(), writer_starter(engine))
    recorder.start()
    try:
        require_refused(run_command(empty, data_dir, "restore", str(file)), "A server runs on", "stop it first")
    finally:
        recorder.close()


def test_damaged_backup_is_refused_before_anything_is_changed(empty: str, file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        offsets = [archive.getinfo(name).header_offset + 200 for name in names]
    assert sorted(names) == ["database.dump", "journal.sqlite3", "manifest.json"]
    changed = [whole[:offset] + bytes([whole[offset] ^ 1]) + whole[offset + 1 :] for offset in offsets]
    for number, content in enumerate([*changed, whole[: len(whole) // 2], b"", b"something else"]):
        bad = tmp_path / f"bad{number}"
        bad.write_bytes(content)
        require_refused(run_command(empty, tmp_path / "other", "restore", str(bad)), f"'{bad}' is ")
    missing = run_command(empty, tmp_path / "other", "restore", str(tmp_path / "nowhere"))
    require_refused(missing, "does not exist")
    with open_cursor(empty) as cursor:
        cursor.execute("SELECT count(*) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')")
        assert cursor.fetchone() == (0,)


@pytest.mark.parametrize(
    "manifest",
    [
        [],
        {"format": 1},
        {"format": 1, "sha256": [], "journal": None, "database": {"revision": "0001"}},
        {"format": 1, "sha256": {}, "journal": None, "database": {"revision": "0001"}},
        {"format": 1, "sha256": {"database.dump": ""}, "journal": None, "database": {}},
    ],
)
def test_zip_of_another_program_is_refused(tmp_path: Path, manifest: object) -> None:
    path = tmp_path / "other.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.json", json.dumps(manifest))
    with pytest.raises(TransferRefused, match="is no backup of this program"), open_archive(path):
        pass


@pytest.mark.skipif(os.name != "posix", reason="pipes with names")
def test_what_is_no_regular_file_is_neither_replaced_nor_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(TransferRefused, match="is no regular file"), writing_archive(pipe):
        pass
    with pytest.raises(TransferRefused, match="is no regular file"), open_archive(pipe):
        pass
    assert pipe.is_fifo()


def test_backup_replaces_what_a_link_leads_to(engine: Engine, data_dir: Path, tmp_path: Path) -> None:
    file, link = tmp_path / "old", tmp_path / "newest"
    file.write_bytes(b"an older one")
    link.symlink_to(file)
    assert run_command(url_of(engine), data_dir, "backup", str(link)).exit_code == 0
    assert link.is_symlink()
    assert zipfile.is_zipfile(file)
    require_refused(run_command(url_of(engine), data_dir, "backup", ""), "is a directory")


def test_rows_that_end_without_their_last_line_are_a_failure_and_no_endless_table() -> None:
    """Ctrl-C in a terminal reaches pg_restore too, which then leaves its output where it is."""
    rows = next(dump._tables(io.BytesIO(b"COPY public.messages (id) FROM stdin;\n1\n2\n"), lambda: None))
    with pytest.raises(TransferFailed, match="in the middle of a table"):
        rows.read(1 << 20)


def test_backup_of_a_newer_version_is_refused(empty: str, file: Path, tmp_path: Path) -> None:
    for field, value, sentence in (
        ("format", 2, "is a backup in the format 2"),
        ("database", {"revision": "9999"}, "schema 9999), which is newer than this one"),
    ):
        newer = tmp_path / field
        with zipfile.ZipFile(file) as old, zipfile.ZipFile(newer, "w") as new:
            for name in old.namelist():
                content = old.read(name)
                if name == "manifest.json":
                    content = json.dumps(json.loads(content) | {field: value}).encode()
                new.writestr(name, content)
        require_refused(run_command(empty, tmp_path / "other", "restore", str(newer)), sentence)


def test_backup_of_an_older_schema_is_restored_and_brought_up_to_date(
    engine: Engine, empty: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older, path = all_revisions()[1], tmp_path / "b"
    with empty_database(engine, "older", migrated=True) as url:
        fill(create_transfer_engine(url, SCHEMA))
        _migrate(url, "downgrade", older)
        with monkeypatch.context() as program_of_that_time:
            for module in (requirements, description):
                program_of_that_time.setattr(module, "newest_revision", lambda: older)
            for module in (description, dump):
                program_of_that_time.setattr(module, "table_names", lambda: _tables_of(url))
            done = run_command(url, tmp_path / "var", "backup", str(path))
            assert done.exit_code == 0, done.output
        done = run_command(empty, tmp_path / "other", "restore", str(path))
        assert done.exit_code == 0, done.output
        _migrate(url, "upgrade", "head")
        assert contents(empty) == contents(url)


def _migrate(url: str, *arguments: str) -> None:
    command = [sys.executable, "-m", "flask", "db", *arguments]
    subprocess.run(command, env=clean_environment(DATABASE_URL=url), cwd=ROOT, check=True, timeout=60)


def _tables_of(url: str) -> list[str]:
    source = create_transfer_engine(url, SCHEMA)
    with source.begin() as connection:
        return existing_tables(connection, table_names())


def test_backup_of_a_newer_postgresql_is_refused_with_a_way_out(
    engine: Engine, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.dispose()
    monkeypatch.setattr(dump, "package_version", lambda: "17.2.0")
    refused = run_command(url_of(engine), data_dir, "backup", str(tmp_path / "b"))
    server = package_version().split(".")[0]
    require_refused(refused, f"this is PostgreSQL {server}, and pg_dump 17", "database move")
    assert not (tmp_path / "b").exists()


def test_no_password_is_on_a_command_line(
    engine: Engine, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(engine, 1)
    commands: list[list[str]] = []
    running = programs.running

    def note(command: list[str], environment: dict[str, str] | None = None, *, feeds: bool = False) -> object:
        commands.append(command)
        return running(command, environment, feeds=feeds)

    monkeypatch.setattr(dump, "running", note)
    assert run_command(url_of(engine), data_dir, "backup", str(tmp_path / "b")).exit_code == 0
    assert commands
    assert all(str(engine.url.password) not in word for command in commands for word in command)
    assert count_rows(engine, "api_usage") == 2
