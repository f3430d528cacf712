"""The first API key, which bin/serve makes where other machines can reach it."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mistral_api.embedded.postgres import start_embedded_postgres
from mistral_api.security.api_key import digest_of
from mistral_api.security.audit import read_events
from tests.support.databases import open_cursor
from tests.support.misbehaving_server import misbehaving_server
from tests.support.processes import clean_environment, free_port, launch_server, wait_for, wait_until_ready

pytestmark = pytest.mark.slow

SECRET = re.compile(r"mla_[A-Za-z0-9]{43}")


def stored_keys(data_dir: Path) -> list[tuple[str, str, list[str], bytes]]:
    """Name, owner, scopes and digest of every key."""
    running = start_embedded_postgres(data_dir)
    try:
        with open_cursor(running.url) as cursor:
            cursor.execute("SELECT name, owner, scopes, digest FROM api_keys")
            return [(name, owner, sorted(scopes), bytes(digest)) for name, owner, scopes, digest in cursor.fetchall()]
    finally:
        running.stop()


def served_log(data_dir: Path, **settings: str) -> str:
    """What a server prints that listens on all addresses, from its start to its end."""
    with (
        misbehaving_server() as url,
        launch_server(data_dir, **{"API_HOST": "0.0.0.0", "MODEL_SERVER_URL": url} | settings) as server,
    ):
        wait_until_ready(server)
        server.stop()
        return server.log()


def test_the_first_key_is_in_a_private_file_that_the_log_names_and_is_made_once(data_dir: Path) -> None:
    log = served_log(data_dir)
    path = data_dir / "first-api-key"
    assert str(path) in log
    assert "Bearer YOUR_API_KEY" in log
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    secret = path.read_text().strip()
    assert SECRET.fullmatch(secret)
    assert secret[:12] not in log
    (event,) = [each for each in read_events(data_dir) if each["event"] == "key_created"]
    assert event["by"] == "server"
    assert event["subject"].startswith("first (key_")
    scopes = ["admin", "grammar", "history", "inference", "metrics"]
    assert stored_keys(data_dir) == [("first", "local", scopes, digest_of(secret))]
    path.unlink()
    assert "first-api-key" not in served_log(data_dir)
    assert not path.exists()
    assert len(stored_keys(data_dir)) == 1


@pytest.mark.parametrize(
    "settings",
    [{"ALLOW_ANONYMOUS": "true"}, {"ADMIN_API_KEY": "an-operators-own-secret"}, {"API_HOST": "127.0.0.1"}],
)
def test_no_key_is_made_where_none_is_needed(data_dir: Path, settings: dict[str, str]) -> None:
    log = served_log(data_dir, **settings)
    assert "first-api-key" not in log
    assert "an-operators-own-secret" not in log
    assert ("Bearer" in log) == ("ADMIN_API_KEY" in settings)
    assert stored_keys(data_dir) == []


@contextlib.contextmanager
def served_on_a_terminal(data_dir: Path) -> Iterator[int]:
    """Give the other end of the terminal on which a server runs."""
    ours, theirs = pty.openpty()
    with misbehaving_server() as url:
        settings = {
            "DATA_DIR": str(data_dir),
            "API_HOST": "0.0.0.0",
            "API_PORT": str(free_port()),
            "MODEL_SERVER_URL": url,
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "mistral_api.serving"],
            env=clean_environment(**settings), cwd=data_dir.parent, stdout=theirs, stderr=theirs,
        )  # fmt: skip
        os.close(theirs)
        try:
            yield ours
        finally:
            process.terminate()
            process.wait(timeout=40)
            os.close(ours)


def test_the_first_key_is_shown_on_a_terminal_and_written_nowhere(data_dir: Path) -> None:
    shown = ""

    def announced() -> bool:
        nonlocal shown
        shown += os.read(terminal, 65536).decode()
        return "ready on" in shown

    with served_on_a_terminal(data_dir) as terminal:
        wait_for(announced, "the ready line", 60)
    (secret,) = SECRET.findall(shown)
    assert not (data_dir / "first-api-key").exists()
    assert [key[3] for key in stored_keys(data_dir)] == [digest_of(secret)]
    for path in data_dir.glob("*"):
        assert not path.is_file() or secret not in path.read_text(errors="replace")
