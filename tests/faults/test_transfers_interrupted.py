"""A move and a restore that are killed, or whose PostgreSQL dies: nothing has changed, and the next try succeeds."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
from sqlalchemy import Engine

from mistral_api.application import create_app, prepare_database
from mistral_api.database.engine import create_transfer_engine
from mistral_api.delivery.batch_inserter import BatchInserter
from mistral_api.embedded.postgres import EmbeddedPostgres, start_embedded_postgres
from mistral_api.services import services_of
from mistral_api.settings import Settings
from mistral_api.transfer import copying
from mistral_api.transfer.stall_guard import StallGuard
from tests.support.databases import open_cursor
from tests.support.exchanges import make_exchange, question, reply
from tests.support.processes import SCHEMA, kill_processes, postgres_processes, temporary_data_dir, wait_for
from tests.support.transfers import (
    contents,
    empty_database,
    fill,
    journal_exchanges,
    run_command,
    start_command,
    url_of,
)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")]

COPYING = "SELECT pid FROM pg_stat_progress_copy WHERE command = 'COPY FROM' AND tuples_processed > 0"
SENDING = "SELECT pid FROM pg_stat_progress_copy WHERE command = 'COPY TO' AND tuples_processed > 0"


class Cluster:
    """A PostgreSQL of its own that can die."""

    def __init__(self, folder: Path) -> None:
        self.data_dir = folder
        self.running: EmbeddedPostgres = start_embedded_postgres(folder)
        self.url = self.running.url

    def kill(self) -> None:
        kill_processes(postgres_processes(self.data_dir))

    def start(self) -> None:
        self.running = start_embedded_postgres(self.data_dir)


@pytest.fixture(scope="module")
def source() -> Iterator[Engine]:
    """A database with 60 MB of text that takes a while to carry."""
    with temporary_data_dir() as folder:
        running = start_embedded_postgres(folder)
        app = create_app(Settings(database_url=running.url, database_schema=SCHEMA, data_dir=folder))
        prepare_database(app)
        engine = services_of(app.extensions).engine
        fill(engine)
        for number in range(60):
            text = os.urandom(500_000).hex()
            BatchInserter(engine).insert(
                [make_exchange(f"large{number}", messages=question(text), answers=reply("Long."))]
            )
        services_of(app.extensions).close()
        yield create_transfer_engine(running.url, SCHEMA)
        running.stop()


@pytest.fixture
def target() -> Iterator[Cluster]:
    """A PostgreSQL of its own, empty."""
    with temporary_data_dir() as folder:
        cluster = Cluster(folder)
        yield cluster
        cluster.running.stop()


def _backends(url: str, query: str) -> list[int]:
    with open_cursor(url) as cursor:
        cursor.execute(query)
        return [pid for (pid,) in cursor.fetchall()]


def _wait_until_copying(process: subprocess.Popen[str], url: str, query: str = COPYING) -> int:
    """Wait until rows are copied, and return the PostgreSQL process that takes, or sends, them."""

    def seen() -> list[int]:
        assert process.poll() is None, process.communicate()[0]
        return _backends(url, query)

    return int(wait_for(seen, "rows that are copied")[0])


def _tables(url: str) -> int:
    with open_cursor(url) as cursor:
        cursor.execute("SELECT count(*) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')")
        return int((cursor.fetchone() or (0,))[0])


def _kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate(timeout=20)


def _end(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=60)
    return output


def test_killed_move_has_changed_nothing_and_can_be_started_again(
    source: Engine, target: Cluster, data_dir: Path
) -> None:
    url = url_of(source)
    process = start_command(url, data_dir, "database", "move", "--to", target.url)
    _wait_until_copying(process, target.url)
    _kill(process)
    wait_for(lambda: not _backends(target.url, "SELECT pid FROM pg_stat_progress_copy"), "the end of the COPY")
    assert _tables(target.url) == 0
    again = run_command(url, data_dir, "database", "move", "--to", target.url)
    assert again.exit_code == 0, again.output
    assert contents(target.url) == contents(url)


def test_move_that_is_interrupted_by_ctrl_c_ends_with_a_sentence(
    source: Engine, target: Cluster, data_dir: Path
) -> None:
    process = start_command(url_of(source), data_dir, "database", "move", "--to", target.url)
    _wait_until_copying(process, target.url)
    process.send_signal(signal.SIGINT)
    output = _end(process)
    assert (process.returncode, "Traceback" in output) == (1, False), output
    assert "Error: The move failed, and the target is as it was: interrupted." in output
    assert _tables(target.url) == 0


def test_move_whose_target_dies_says_so_and_can_be_started_again(
    source: Engine, target: Cluster, data_dir: Path
) -> None:
    url = url_of(source)
    process = start_command(url, data_dir, "database", "move", "--to", target.url)
    _wait_until_copying(process, target.url)
    target.kill()
    output = _end(process)
    assert process.returncode == 1
    assert "Error: The move failed, and the target is as it was: " in output
    assert "Traceback" not in output
    target.start()
    assert _tables(target.url) == 0
    again = run_command(url, data_dir, "database", "move", "--to", target.url)
    assert again.exit_code == 0, again.output
    assert contents(target.url) == contents(url)


def test_move_whose_source_dies_leaves_the_target_as_it_was(source: Engine, target: Cluster, data_dir: Path) -> None:
    url = url_of(source)
    process = start_command(url, data_dir, "database", "move", "--to", target.url)
    _wait_until_copying(process, target.url)
    sender = _wait_until_copying(process, url, SENDING)
    with open_cursor(url) as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", (sender,))
    output = _end(process)
    assert (process.returncode, "Traceback" in output) == (1, False), output
    assert "The move failed, and the target is as it was: " in output
    assert _tables(target.url) == 0


@pytest.mark.parametrize("stopped", ["target", "source"])
def test_move_ends_when_a_server_stops_answering(
    source: Engine, target: Cluster, data_dir: Path, stopped: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = url_of(source)
    monkeypatch.setattr(copying, "StallGuard", partial(StallGuard, seconds=1.0))
    monkeypatch.setattr(copying._PipedRows, "read", _stop_after_some(target.url, url, stopped))
    failed = run_command(url, data_dir, "database", "move", "--to", target.url)
    for pid in _stopped:
        os.kill(pid, signal.SIGCONT)
    _stopped.clear()
    assert failed.exit_code == 1, failed.output
    assert "The move failed, and the target is as it was: No row has moved for" in failed.stderr
    assert _tables(target.url) == 0


_stopped: list[int] = []


def _stop_after_some(target_url: str, source_url: str, stopped: str) -> object:
    """Return a ``read`` that stops one of the two PostgreSQL processes when the first large rows have gone."""
    read = io.FileIO.read
    size_so_far = 0

    def read_and_stop(rows: copying._PipedRows, size: int) -> bytes:
        nonlocal size_so_far
        chunk: bytes = read(rows, size) or b""
        size_so_far += len(chunk)
        if size_so_far > 2_000_000 and not _stopped:
            url, query = (target_url, COPYING) if stopped == "target" else (source_url, SENDING)
            _stopped.extend(_backends(url, query.replace(" AND tuples_processed > 0", "")))
            for pid in _stopped:
                os.kill(pid, signal.SIGSTOP)
        return chunk

    return read_and_stop


def test_killed_restore_with_replace_has_changed_nothing_and_can_be_started_again(
    source: Engine, target: Cluster, data_dir: Path, tmp_path: Path
) -> None:
    journal_exchanges(data_dir, 2)
    file, other = tmp_path / "all.backup", tmp_path / "other"
    done = run_command(url_of(source), data_dir, "backup", str(file))
    assert done.exit_code == 0, done.output
    with empty_database(create_transfer_engine(target.url, SCHEMA), "restored", migrated=True) as url:
        fill(create_transfer_engine(url, SCHEMA), 2)
        journal_exchanges(other, 1)
        before, journal = contents(url), (other / "journal" / "journal.sqlite3").read_bytes()
        process = start_command(url, other, "restore", str(file), "--replace")
        _wait_until_copying(process, url)
        programs = psutil.Process(process.pid).children()
        _kill(process)
        wait_for(lambda: not any(program.is_running() for program in programs), "the end of pg_restore")
        wait_for(lambda: not _backends(url, "SELECT pid FROM pg_stat_progress_copy"), "the end of the COPY")
        assert contents(url) == before
        assert (other / "journal" / "journal.sqlite3").read_bytes() == journal
        again = run_command(url, other, "restore", str(file), "--replace")
        assert again.exit_code == 0, again.output
        assert contents(url) == contents(url_of(source))


def test_killed_backup_leaves_the_old_file_and_the_next_one_tidies_up(source: Engine, tmp_path: Path) -> None:
    file = tmp_path / "all.backup"
    file.write_bytes(b"the old one")
    process = start_command(url_of(source), tmp_path / "var", "backup", str(file))
    wait_for(lambda: [path for path in tmp_path.glob("*.new") if path.stat().st_size > 1_000_000], "a part of the file")
    _kill(process)
    assert file.read_bytes() == b"the old one"
    done = run_command(url_of(source), tmp_path / "var", "backup", str(file))
    assert done.exit_code == 0, done.output
    assert list(tmp_path.glob("*.new")) == []
