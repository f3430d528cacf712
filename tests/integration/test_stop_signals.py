"""Signals that ask a server to stop, as a terminal, a shell or a service manager sends them, leave nothing behind."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from mistral_api.embedded.postgres import start_embedded_postgres
from tests.support.databases import open_cursor
from tests.support.misbehaving_server import misbehaving_server
from tests.support.processes import (
    ROOT,
    START_SECONDS,
    STOP_SECONDS,
    clean_environment,
    free_port,
    is_live,
    launch_server,
    processes_of,
    running_server,
    wait_for,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
CHAT = {"messages": [{"role": "user", "content": "Hello?"}], "max_tokens": 2}
SERVE = [sys.executable, "-m", "mistral_api.serving"]


def assert_nothing_is_left(data_dir: Path) -> None:
    """Fail where a PostgreSQL, an engine or a supervisor of this DATA_DIR still runs."""
    wait_for(lambda: not processes_of(data_dir), "the end of every process")


def _recorded(data_dir: Path) -> list[tuple[object, ...]]:
    """Return the statuses of the requests in the database, which is started for that."""
    running = start_embedded_postgres(data_dir)
    try:
        with open_cursor(running.url) as cursor:
            cursor.execute("SELECT status FROM api_usage")
            return list(cursor.fetchall())
    finally:
        running.stop()


@contextlib.contextmanager
def _waitress(data_dir: Path, model_url: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run ``waitress-serve`` on embedded defaults until it answers; give its process and its URL."""
    port = free_port()
    command = [str(Path(sys.executable).parent / "waitress-serve"), f"--listen=127.0.0.1:{port}", "wsgi:app"]
    environment = clean_environment(DATA_DIR=str(data_dir), MODEL_SERVER_URL=model_url)
    with (data_dir.parent / "log").open("w+") as log:
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=log, text=True)
        url = f"http://127.0.0.1:{port}"

        def answers() -> bool:
            assert process.poll() is None, Path(log.name).read_text()
            return is_live(url)

        try:
            wait_for(answers, "an answer of waitress", START_SECONDS)
            yield process, url
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize("name", ["SIGTERM", pytest.param("SIGHUP", marks=pytest.mark.slow)])
def test_waitress_serve_ends_its_postgres_and_delivers_its_records(data_dir: Path, name: str) -> None:
    with misbehaving_server() as model_url, _waitress(data_dir, model_url) as (process, url):
        body = CHAT | {"model": "fine"}
        assert requests.post(url + "/v1/chat/completions", json=body, timeout=20).status_code == 200
        process.send_signal(signal.Signals[name])
        assert process.wait(timeout=STOP_SECONDS) == 0
        assert_nothing_is_left(data_dir)
        assert _recorded(data_dir) == [(200,)]
    assert "Traceback" not in (data_dir.parent / "log").read_text()


@pytest.mark.slow
def test_closed_terminal_stops_everything(data_dir: Path) -> None:
    ours, theirs = pty.openpty()
    ports = {"API_PORT": str(free_port()), "MODEL_SERVER_PORT": str(free_port())}
    process = subprocess.Popen(
        # setsid(1) with -c makes the terminal the controlling one of its new session.
        ["/usr/bin/setsid", "-c", "-w", *SERVE],
        env=clean_environment(DATA_DIR=str(data_dir), CONTEXT_SIZE="2048", **ports),
        cwd=data_dir.parent, stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    shown = ""

    def announced() -> bool:
        nonlocal shown
        shown += os.read(ours, 65536).decode()
        return "ready on" in shown

    wait_for(announced, "the ready line", START_SECONDS)
    os.close(ours)
    process.wait(timeout=STOP_SECONDS)
    assert_nothing_is_left(data_dir)
    assert "Traceback" not in shown


@pytest.mark.slow
def test_nohup_outlives_the_terminal_and_sigquit_does_not_wait_for_requests(data_dir: Path) -> None:
    """A stop by SIGQUIT is as that by two Ctrl-C: running requests are ended at once."""
    ignoring = ["/bin/sh", "-c", 'trap "" HUP; exec "$@"', "sh"]
    port = free_port()
    settings = {"API_PORT": str(port), "SHUTDOWN_SECONDS": "600", "DATA_DIR": str(data_dir)}
    with (
        misbehaving_server() as url,
        (data_dir.parent / "log").open("w+") as log,
        contextlib.ExitStack() as stack,
    ):
        environment = clean_environment(MODEL_SERVER_URL=url, **settings)
        process = stack.enter_context(
            subprocess.Popen(
                [*ignoring, *SERVE], env=environment, cwd=data_dir.parent, stdout=log, stderr=subprocess.STDOUT
            )
        )
        stack.callback(process.kill)
        wait_for(lambda: "ready on" in Path(log.name).read_text(), "the ready line", START_SECONDS)
        process.send_signal(signal.SIGHUP)
        body = CHAT | {"model": "silent-stream", "stream": True}
        api = f"http://127.0.0.1:{port}"
        with requests.post(f"{api}/v1/chat/completions", json=body, stream=True, timeout=30) as stream:
            assert next(stream.iter_lines())
            process.send_signal(signal.SIGQUIT)
            assert process.wait(timeout=STOP_SECONDS) == 0
        assert_nothing_is_left(data_dir)
        assert "Traceback" not in Path(log.name).read_text()


STAGES = {
    "modules": ("", 0.4),
    "PostgreSQL": ("making the embedded PostgreSQL", 0.0),
    "migration": ("gets a role for the application", 0.3),
    "model": ("model server started", 0.0),
}


@pytest.mark.parametrize(
    ("stage", "name"),
    [
        ("modules", "SIGINT"),
        ("PostgreSQL", "SIGTERM"),
        pytest.param("migration", "SIGINT", marks=pytest.mark.slow),
        pytest.param("model", "SIGHUP", marks=pytest.mark.slow),
    ],
)
def test_stop_during_the_start_leaves_nothing_and_says_no_traceback(data_dir: Path, stage: str, name: str) -> None:
    line, seconds = STAGES[stage]
    with launch_server(data_dir) as server:
        wait_for(lambda: line in server.log(), line, START_SECONDS)
        time.sleep(seconds)
        server.process.send_signal(signal.Signals[name])
        code = server.process.wait(timeout=STOP_SECONDS)
        assert code == (-signal.SIGINT if stage == "modules" else 0), server.log()
        assert_nothing_is_left(data_dir)
        assert "Traceback" not in server.log()
        assert "ready on" not in server.log()


@pytest.mark.slow
def test_hangup_ends_bin_serve_as_cleanly_as_sigterm(data_dir: Path) -> None:
    with running_server(data_dir, CONTEXT_SIZE="2048") as server:
        assert requests.post(f"{server.url}/v1/chat/completions", json=CHAT, timeout=30).status_code == 200
        server.process.send_signal(signal.SIGHUP)
        assert server.process.wait(timeout=STOP_SECONDS) == 0
        assert_nothing_is_left(data_dir)
        assert "Traceback" not in server.log()
