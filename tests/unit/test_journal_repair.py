"""A damaged journal file: complete rows are recovered, and the log reports the lost ones."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from mistral_api.recording.backlog import Backlog
from mistral_api.recording.exchange import Exchange
from mistral_api.recording.journal import JOURNAL_FILE, Journal, prepare_journal
from mistral_api.recording.journal_repair import find_damage
from tests.support.exchanges import make_exchange, question, reply

NUMBER = 300


@pytest.fixture
def exchanges() -> list[Exchange]:
    """Long and short exchanges."""
    return [
        make_exchange(
            f"session-{n}",
            messages=question(f"{n} " + "word " * (n % 50 * 10)),
            answers=reply(f"answer {n}"),
        )
        for n in range(NUMBER)
    ]


@pytest.fixture
def path(tmp_path: Path, exchanges: list[Exchange]) -> Path:
    """A closed journal with all of them, without a WAL."""
    made = prepare_journal(tmp_path, alone=True)
    with closing(Journal(made, "me")) as journal:
        for exchange in exchanges:
            journal.add(exchange)
    with closing(sqlite3.connect(made)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert made.stat().st_size > 200_000
    return made


def _cut(path: Path, share: float) -> None:
    with path.open("r+b") as file:
        file.truncate(int(path.stat().st_size * share))


def _recovered(path: Path) -> list[Exchange]:
    with closing(Backlog(path)) as backlog:
        return [entry.exchange() for entry in backlog.oldest_entries(NUMBER, 1 << 30)]


@pytest.mark.parametrize("share", [0.95, 0.7, 0.3])
def test_complete_rows_of_a_truncated_journal_are_recovered(
    path: Path, exchanges: list[Exchange], share: float, caplog: pytest.LogCaptureFixture
) -> None:
    _cut(path, share)
    with caplog.at_level(logging.ERROR):
        prepare_journal(path.parent, alone=True)
    recovered = _recovered(path)
    assert find_damage(path) is None
    assert all(exchange in exchanges for exchange in recovered)
    assert share * 0.4 < len(recovered) / NUMBER < 1
    words = caplog.text
    assert "is damaged" in words
    assert "rows are lost, the file is kept as" in words
    (kept,) = path.parent.glob(f"{JOURNAL_FILE}.damaged-*")
    assert str(kept) in words


def test_unreadable_journal_file_is_moved_aside_and_replaced_by_an_empty_one(path: Path) -> None:
    path.write_bytes(b"not a database, " * 5000)
    prepare_journal(path.parent, alone=True)
    assert _recovered(path) == []
    (kept,) = path.parent.glob(f"{JOURNAL_FILE}.damaged-*")
    assert kept.read_bytes().startswith(b"not a database")
    with closing(Journal(path, "me")) as journal:
        journal.add(make_exchange())
        assert journal.pending()[0] == 1


def test_journal_with_a_truncated_wal_is_read(tmp_path: Path, exchanges: list[Exchange]) -> None:
    path = prepare_journal(tmp_path, alone=True)
    journal, reader = Journal(path, "me"), sqlite3.connect(path)
    for exchange in exchanges:
        journal.add(exchange)
    # As after a crash: the WAL is not checkpointed into the file, and its last row is truncated.
    copy = tmp_path / "copy"
    copy.mkdir()
    for suffix in ("", "-wal"):
        (copy / (JOURNAL_FILE + suffix)).write_bytes((tmp_path / (JOURNAL_FILE + suffix)).read_bytes())
    journal.close()
    reader.close()
    wal = copy / f"{JOURNAL_FILE}-wal"
    _cut(wal, (wal.stat().st_size - 1000) / wal.stat().st_size)
    prepare_journal(copy, alone=True)
    assert _recovered(copy / JOURNAL_FILE) == exchanges[:-1]


def test_undamaged_journal_is_unchanged(path: Path, exchanges: list[Exchange]) -> None:
    prepare_journal(path.parent, alone=True)
    assert _recovered(path) == exchanges
    assert not list(path.parent.glob("*damaged*"))


def test_damaged_journal_that_another_process_has_open_is_not_repaired(path: Path) -> None:
    _cut(path, 0.5)
    with pytest.raises(sqlite3.DatabaseError):
        prepare_journal(path.parent, alone=False)
    assert not list(path.parent.glob("*damaged*"))
