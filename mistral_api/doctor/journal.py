"""The check of the journal: what waits in it for PostgreSQL, and what PostgreSQL has refused."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from mistral_api.doctor.finding import Finding, failure, ok, warning
from mistral_api.recording.journal import JOURNAL_FILE
from mistral_api.settings import Settings

# A record that has waited for longer waits for a database that is away, or for a server that does not run.
LONG_SECONDS = 300.0
_WAITING = "SELECT count(*), min(ended_at) FROM endings"
_REJECTED = "SELECT count(*) FROM rejected"


def check_journal(settings: Settings) -> Iterator[Finding]:
    """Count the records in the journal, without writing to its file."""
    path = settings.data_dir / "journal" / JOURNAL_FILE
    if not path.exists():
        yield ok("journal", "none yet; the first start of the server makes it")
        return
    try:
        with closing(_open(path)) as connection:
            (waiting, oldest), (rejected,) = (connection.execute(query).fetchone() for query in (_WAITING, _REJECTED))
    except sqlite3.Error as error:
        mend = "start the server: it repairs the journal, and keeps what can be read"
        yield failure("journal", f"'{path}' cannot be read: {error}", mend)
        return
    yield _waiting(waiting, time.time() - oldest if oldest else 0.0)
    if rejected:
        yield warning("journal", f"{rejected} records that PostgreSQL refused are kept in the table 'rejected' of it")


def _open(path: Path) -> sqlite3.Connection:
    """Open the file for reading alone. Without a log beside it nobody has it open, and nothing needs to be made."""
    alone = not path.with_name(f"{path.name}-wal").exists()
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if alone else ''}", uri=True)


def _waiting(count: int, seconds: float) -> Finding:
    if not count:
        return ok("journal", "everything in it has been delivered")
    text = f"{count} records wait for PostgreSQL, the oldest for {seconds:.0f} s"
    if seconds > LONG_SECONDS:
        return warning("journal", text, "start the server with its database reachable; nothing is lost meanwhile")
    return ok("journal", text)
