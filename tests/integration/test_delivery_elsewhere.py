"""Delivery by another process than the one that records: woken by those who wait, known to fail, handed over."""

from __future__ import annotations

import json
import queue
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from mistral_api.database import schema_gate
from mistral_api.database.engine import create_unchecked_engine
from mistral_api.database.errors import is_known_absence
from mistral_api.database.revisions import newest_revision
from mistral_api.database.schema_gate import SchemaGate
from mistral_api.delivery import writer as writer_module
from mistral_api.delivery.delivery_counts import DeliveryCounts
from mistral_api.delivery.writer import DeliveryRole, Writer, writer_starter
from mistral_api.delivery_process import run
from mistral_api.delivery_process.run import DeliveryEnded, watch_over
from mistral_api.errors import Unavailable
from mistral_api.recording import recorder as recorder_module
from mistral_api.recording.deliverer_link import DELIVERER, FILE_NAME, DelivererLink, DelivererListener
from mistral_api.recording.journal import prepare_journal
from mistral_api.recording.recorder import Recorder, RecordingPolicy
from mistral_api.settings import Settings
from mistral_api.system.process_lock import ProcessLock
from mistral_api.system.service_manager import ServiceManager
from tests.support.databases import count_rows, rows_of
from tests.support.exchanges import make_exchange, question, record_exchange, undelivered_recorder, unreachable_engine
from tests.support.processes import SCHEMA, clean_environment, wait_for
from tests.support.transfers import url_of


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """A recorder whose process does not deliver."""
    made = Recorder(tmp_path, RecordingPolicy(), lambda path, _lock: DelivererLink(path.parent))
    made.start()
    yield made
    made.close()


@contextmanager
def _deliverer(
    folder: Path, engine: Engine, other_work: Callable[[], AbstractContextManager[object]] = nullcontext
) -> Iterator[DeliveryCounts]:
    """Deliver as a process does that does nothing else."""
    with ExitStack() as stack:
        lock = stack.enter_context(closing(ProcessLock(folder, DELIVERER)))
        counts = DeliveryCounts()
        role = DeliveryRole(dedicated=True, other_work=other_work)
        made = Writer(prepare_journal(folder, alone=False), engine, lock, counts, role)
        made.start()
        stack.callback(made.close, 5.0)
        yield counts


def test_change_has_another_process_deliver_without_delay(
    engine: Engine, recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "GATHER_SECONDS", 60.0)
    with _deliverer(tmp_path, engine):
        wait_for((tmp_path / FILE_NAME).exists, "the process that delivers")
        for turn in range(3):
            record_exchange(recorder, make_exchange(f"session {turn}", messages=question("Hello")))
            began = time.monotonic()
            recorder.require_delivered("local", f"session {turn}")
            assert time.monotonic() - began < 10  # and not the minute for which batches are gathered
    assert count_rows(engine, "api_usage") == 3
    assert not (tmp_path / FILE_NAME).exists()


def test_change_does_not_wait_long_for_another_process_that_cannot_deliver(
    recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "AWAY_TIMEOUT_SECONDS", 0.0)
    record_exchange(recorder, make_exchange("away", messages=question("Hello")))
    with _deliverer(tmp_path, unreachable_engine()):
        link = DelivererLink(tmp_path)
        wait_for(link.is_failing, "a delivery that fails")
        link.close()
        with pytest.raises(Unavailable):
            recorder.require_delivered("local", "away")
    assert recorder.state().pending == 1


def test_process_that_serves_requests_gives_way_to_one_that_only_delivers_and_takes_over_after_it(
    engine: Engine, tmp_path: Path
) -> None:
    own = DeliveryCounts()
    serving = Recorder(tmp_path, RecordingPolicy(), writer_starter(engine, own))
    serving.start()
    record_exchange(serving, make_exchange("before", messages=question("1")))
    wait_for(lambda: own.delivered == 1, "delivery by itself")
    with _deliverer(tmp_path, engine) as others:
        assert not serving.other_processes.seen()
        # Both look once a second.
        wait_for(lambda: _delivered_one(serving, others), "delivery by the other process")
        before = own.delivered
        record_exchange(serving, make_exchange("meanwhile", messages=question("2")))
        serving.require_delivered("local", "meanwhile")
        assert own.delivered == before
    record_exchange(serving, make_exchange("after", messages=question("3")))
    wait_for(lambda: own.delivered == before + 1, "delivery by itself again")
    serving.close()
    assert count_rows(engine, "api_usage") == own.delivered + others.delivered


def _delivered_one(recorder: Recorder, counts: DeliveryCounts) -> bool:
    record_exchange(recorder, make_exchange("handed over", messages=question("?")))
    return counts.delivered > 0


def test_writer_goes_on_after_a_failure_that_nobody_foresaw(
    engine: Engine, recorder: Recorder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    failures = iter([RuntimeError("can't start new thread")])

    def other_work() -> AbstractContextManager[object]:
        for failure in failures:
            raise failure
        return nullcontext()

    record_exchange(recorder, make_exchange("kept", messages=question("Hello")))
    with _deliverer(tmp_path, engine, other_work) as counts:
        wait_for(lambda: counts.delivered == 1, "delivery")
    assert "unforeseen failure of the writer" in caplog.text


def test_process_delivers_without_notices_where_it_has_no_socket_for_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def no_socket(*_arguments: object) -> socket.socket:
        raise OSError("Too many open files")

    with closing(DelivererLink(tmp_path)) as link:
        monkeypatch.setattr(socket, "socket", no_socket)
        with closing(DelivererListener(tmp_path, lambda: None)) as listener:
            assert json.loads((tmp_path / FILE_NAME).read_text())["port"] is None
            listener.note_attempt(failing=True)
            wait_for(link.is_failing, "what the listener says")
            link.deliver_now()


@pytest.mark.parametrize("port", [-1, 0, 65536, "x", []])
def test_port_that_is_none_is_asked_nothing(tmp_path: Path, port: object) -> None:
    (tmp_path / FILE_NAME).write_text(json.dumps({"port": port, "secret": "s", "failing": True}))
    with closing(DelivererLink(tmp_path)) as link:
        link.deliver_now()
        assert not link.is_failing()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_process_whose_writer_has_ended_ends_with_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its role would keep all others from delivering. The watchdog of a service manager is not fed any more."""
    monkeypatch.setattr(run, "POLL_SECONDS", 0.01)

    def end() -> AbstractContextManager[object]:
        raise SystemExit

    class Parts:
        def open_journal(self) -> None:
            pytest.fail("nothing is opened beside a writer that has ended")

        def has_ended(self) -> bool:
            return not writer.is_alive()

    with closing(ProcessLock(tmp_path, DELIVERER)) as lock:
        path = prepare_journal(tmp_path, alone=True)
        writer = Writer(path, unreachable_engine(), lock, role=DeliveryRole(dedicated=True, other_work=end))
        writer.start()
        wait_for(lambda: not writer.is_alive(), "the end of the writer")
        with pytest.raises(DeliveryEnded):
            watch_over(Parts(), queue.SimpleQueue(), ServiceManager())
        writer.close(0)


def test_datagram_without_the_secret_wakes_nobody(tmp_path: Path) -> None:
    woken: list[bool] = []
    with closing(DelivererListener(tmp_path, lambda: woken.append(True))), closing(DelivererLink(tmp_path)) as link:
        said = json.loads((tmp_path / FILE_NAME).read_text())
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for data in (b"", b"deliver", b"x" * 60_000):
                stranger.sendto(data, ("127.0.0.1", said["port"]))
        link.deliver_now()
        wait_for(lambda: woken, "the notice")
    assert woken == [True]


def test_gate_is_open_while_the_schema_is_there(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema_gate, "LOOK_AGAIN_SECONDS", 0.05)
    settings = Settings(database_url=url_of(engine), database_schema="gated", data_dir=tmp_path)
    gate = SchemaGate(create_unchecked_engine(url_of(engine), settings))
    guarded = gate.guard(create_unchecked_engine(url_of(engine), settings))

    def is_open() -> bool:
        try:
            with guarded.connect():
                return True
        except OperationalError as error:
            return not is_known_absence(error)

    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA gated"))
    try:
        gate.start()
        assert not is_open()
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE gated.alembic_version (version_num text)"))
            connection.execute(text("INSERT INTO gated.alembic_version VALUES ('0001')"))
        assert not is_open()
        with engine.begin() as connection:
            connection.execute(text(f"UPDATE gated.alembic_version SET version_num = '{newest_revision()}'"))
        wait_for(is_open, "the gate")
        with engine.begin() as connection:
            connection.execute(text("UPDATE gated.alembic_version SET version_num = '9999'"))
        wait_for(lambda: not is_open(), "the gate's closing")
    finally:
        gate.close()
        guarded.dispose()
        with engine.begin() as connection:
            connection.execute(text("DROP SCHEMA gated CASCADE"))


@pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM")
def test_command_delivers_what_waits_and_ends_when_it_is_asked_to(engine: Engine, data_dir: Path) -> None:
    earlier = undelivered_recorder(data_dir / "journal")
    record_exchange(earlier, make_exchange("left", messages=question("Still there?")))
    earlier.close(seconds=0)
    command = [str(Path(sys.executable).parent / "mistral-api"), "deliver"]
    schema = {"DATABASE_SCHEMA": SCHEMA} if SCHEMA else {}
    environment = clean_environment(DATABASE_URL=url_of(engine), DATA_DIR=str(data_dir), LOG_LEVEL="DEBUG", **schema)
    process = subprocess.Popen(command, env=environment, cwd=data_dir.parent, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: count_rows(engine, "api_usage") == 1, "delivery")
        process.terminate()
        _, said = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "ERROR" not in said
    # It logs as a server, into a file of its own. That no graphics card is found, or which, is a line.
    assert (data_dir / "logs" / "delivery.log").read_text()
    assert rows_of(engine, "SELECT content FROM messages") == [("Still there?",)]
