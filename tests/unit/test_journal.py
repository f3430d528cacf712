"""The journal: what is in it is safe, in order, and leaves only by delivery or with a reason."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mistral_api.exchange import Exchange
from mistral_api.recording.journal import Journal
from tests.exchanges import an_exchange


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """An empty journal."""
    made = Journal(tmp_path)
    yield made
    made.close()


def test_entries_come_back_whole_and_oldest_first(journal: Journal) -> None:
    exchanges = [an_exchange(messages=[{"role": "user", "content": f"{number} \U0001f600"}]) for number in range(3)]
    for exchange in exchanges:
        journal.append(exchange)
    assert [Exchange.from_bytes(entry.payload) for entry in journal.oldest(10)] == exchanges
    assert len(journal.oldest(2)) == 2


def test_only_what_was_delivered_leaves(journal: Journal) -> None:
    for _ in range(3):
        journal.append(an_exchange())
    first, *rest = journal.oldest(10)
    journal.remove([first])
    assert journal.oldest(10) == rest
    assert journal.pending()[0] == 2


def test_a_session_waits_for_its_owner_alone(journal: Journal) -> None:
    journal.append(an_exchange("mine"))
    journal.append(an_exchange(None))
    assert journal.has_session("local", "mine")
    assert not journal.has_session("local", "other")
    assert not journal.has_session("somebody else", "mine")
    journal.remove(journal.oldest(10))
    assert not journal.has_session("local", "mine")
    assert journal.pending() == (0, None)


def test_what_is_refused_is_set_aside_with_its_reason(journal: Journal, tmp_path: Path) -> None:
    journal.append(an_exchange())
    (entry,) = journal.oldest(1)
    journal.reject(entry, "no such type")
    assert journal.pending() == (0, None)
    with sqlite3.connect(tmp_path / "journal.sqlite3") as connection:
        rejected = connection.execute("SELECT reason, payload FROM rejected").fetchall()
    connection.close()
    assert rejected == [("no such type", entry.payload)]


def test_it_survives_its_process_being_killed(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from mistral_api.recording.journal import Journal; from tests.exchanges import an_exchange\n"
        "Journal(Path(sys.argv[1])).append(an_exchange('killed'))\n"
        "os.kill(os.getpid(), signal.SIGKILL if hasattr(signal, 'SIGKILL') else signal.SIGTERM)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, timeout=30)
    assert killed.returncode != 0
    journal = Journal(tmp_path)
    assert [Exchange.from_bytes(entry.payload).session_id for entry in journal.oldest(10)] == ["killed"]
    journal.close()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")
def test_nobody_else_can_read_it(journal: Journal, tmp_path: Path) -> None:
    journal.append(an_exchange())
    assert {path.stat().st_mode & 0o077 for path in tmp_path.iterdir()} == {0}
