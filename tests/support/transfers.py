"""Databases that are filled, compared and carried, by commands run as an operator types them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from sqlalchemy import Engine, text

from mistral_api.analytics.gpu_stats import GpuSums
from mistral_api.cli import main
from mistral_api.database.engine import APPLICATION, create_transfer_engine
from mistral_api.database.tables import table_names
from mistral_api.delivery.batch_inserter import BatchInserter
from mistral_api.recording.exchange import Exchange
from mistral_api.recording.recorder import RecordingPolicy
from tests.support.databases import create_database, create_migrated_database, drop_database, open_cursor, rows_of
from tests.support.exchanges import make_exchange, question, record_exchange, reply, undelivered_recorder
from tests.support.gpu_cards import make_card
from tests.support.processes import SCHEMA, clean_environment, wait_for

PROGRAM = str(Path(sys.executable).parent / "mistral-api")
LONG_AGO = timedelta(days=100)
# Everything that COPY's text has to escape, and scripts of several languages.
DIFFICULT = "a\tb\\c\nd\r\n\\N \"' \\. \u4f60\u597d \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 \U0001f600 \u00e9"


def fill(engine: Engine, sessions: int = 6) -> None:
    """Record conversations over four months, with branches, difficult text, sums and samples of a card."""
    now = datetime.now(UTC)
    exchanges: list[Exchange] = []
    for number in range(sessions):
        created = now - LONG_AGO * (number % 5) / 4
        messages = [{"role": "system", "content": "Be brief."}, *question(f"{DIFFICULT} {number}")]
        common = {"created_at": created, "model": "m", "prompt_tokens": number, "completion_tokens": 3}
        exchanges.append(make_exchange(f"s{number}", messages=messages, answers=reply(DIFFICULT), **common))
        exchanges.append(make_exchange(f"s{number}", messages=[*messages[:1], *question("Other")], **common))
    BatchInserter(engine).insert(exchanges)
    sums = GpuSums()
    sums.add(now, [make_card()])
    with engine.begin() as connection:
        sums.write(connection)
        connection.execute(text("INSERT INTO usage_pruned VALUES (:before)"), {"before": now - timedelta(days=1000)})
    end_connections(engine)


def end_connections(engine: Engine) -> None:
    """Close the connections of an engine, and wait until PostgreSQL has none: one would look like that of a server."""
    engine.dispose()
    query = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s"
    with open_cursor(url_of(engine)) as cursor:

        def has_none() -> bool:
            cursor.execute(query, (APPLICATION,))
            return cursor.fetchone() is None

        wait_for(has_none, "the end of the connections")


def journal_exchanges(data_dir: Path, count: int) -> list[Exchange]:
    """Leave finished exchanges in the journal of a DATA_DIR, as a server does whose PostgreSQL is away."""
    data_dir.mkdir(exist_ok=True)
    recorder = undelivered_recorder(data_dir / "journal", RecordingPolicy())
    exchanges = [make_exchange(f"waiting{n}", messages=question("Wait?"), answers=reply("Yes")) for n in range(count)]
    recorder.start()
    for exchange in exchanges:
        record_exchange(recorder, exchange)
    recorder.close(0)
    return exchanges


def contents(url: str, schema: str | None = SCHEMA) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row of every table of ours, in order."""
    engine = create_transfer_engine(url, schema)
    try:
        names = table_names()
        return {name: rows_of(engine, f"SELECT * FROM {name} AS t ORDER BY CAST(t AS text)") for name in names}
    finally:
        engine.dispose()


@contextlib.contextmanager
def empty_database(engine: Engine, name: str, *, migrated: bool = False) -> Iterator[str]:
    """Give the URL of a new database in the same PostgreSQL."""
    url = url_of(engine)
    (create_migrated_database if migrated else create_database)(url, name)
    try:
        yield engine.url.set(database=name).render_as_string(hide_password=False)
    finally:
        drop_database(url, name)


def url_of(engine: Engine) -> str:
    """Return the URL of an engine, with the password."""
    return engine.url.render_as_string(hide_password=False)


def run_command(url: str | None, data_dir: Path, *arguments: str, **settings: str) -> Result:
    """Run ``mistral-api`` in this process, which is faster than the installed one."""
    database = {} if url is None else {"DATABASE_URL": url}
    environment = clean_environment(DATA_DIR=str(data_dir), **database, **settings)
    return CliRunner(env=dict.fromkeys(os.environ) | environment).invoke(main, arguments)


def start_command(url: str, data_dir: Path, *arguments: str, **settings: str) -> subprocess.Popen[str]:
    """Start ``mistral-api`` as a process that a test can kill."""
    environment = clean_environment(DATABASE_URL=url, DATA_DIR=str(data_dir), **settings)
    return subprocess.Popen(
        [PROGRAM, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def require_refused(done: Result, *sentence_parts: str, code: int = 2) -> None:
    """Check that a command ended with one sentence and an exit code."""
    assert done.exit_code == code, done.output
    *_, last = done.stderr.strip().splitlines()
    for part in sentence_parts:
        assert part in last, last
    assert "Traceback" not in done.output
    assert last.startswith("Error: ")
