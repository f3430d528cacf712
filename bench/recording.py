"""Measure recording: the delivery rate to PostgreSQL, and the memory used in an outage."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psutil
from sqlalchemy import Engine, create_engine

from bench.delay import delayed_proxy
from mistral_api import create_app
from mistral_api.application import prepare_database
from mistral_api.database.engine import create_unchecked_engine
from mistral_api.delivery.writer import writer_starter
from mistral_api.embedded.postgres import start_embedded_postgres
from mistral_api.recording.exchange import Exchange
from mistral_api.recording.recorder import Recorder, RecordingPolicy
from mistral_api.services import services_of
from mistral_api.settings import Settings
from mistral_api.system.identifiers import new_id

LOCAL_EXCHANGES, REMOTE_EXCHANGES = 20_000, 5_000
ROUND_TRIP_SECONDS = 0.1
OUTAGE_EXCHANGES = 3600 * 50
UNREACHABLE_URL = "postgresql+psycopg2://nobody@127.0.0.1:1/nothing"


def measure_writer() -> None:
    """Deliver a full journal to an empty PostgreSQL, once on this machine and once a long round trip away."""
    with _empty_database() as engine:
        _time_delivery("a local PostgreSQL", engine, LOCAL_EXCHANGES)
        query = engine.url.query
        with delayed_proxy(Path(str(query["host"])) / f".s.PGSQL.{query['port']}", ROUND_TRIP_SECONDS) as proxy:
            far = create_engine(
                engine.url.difference_update_query(["host", "port"]).set(host="127.0.0.1", port=proxy.port)
            )
            _time_delivery(f"a PostgreSQL {ROUND_TRIP_SECONDS * 1000:.0f} ms away", far, REMOTE_EXCHANGES)
            far.dispose()


def measure_outage() -> None:
    """Record an hour of 50 exchanges a second while the database is down, and print disk and memory use."""
    with _without_warnings(), tempfile.TemporaryDirectory(prefix="mistral-api-bench-") as folder:
        recorder = Recorder(Path(folder), RecordingPolicy(), writer_starter(create_engine(UNREACHABLE_URL)))
        recorder.start()
        process, sizes = psutil.Process(), []
        for number in range(OUTAGE_EXCHANGES + 1):
            if number % 1000 == 0 and number:
                sizes.append(process.memory_info().rss / 2**20)
            _record(recorder, number)
        disk = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file()) / 2**20
        print(
            f"outage: {recorder.state().pending} exchanges wait, {disk:.0f} MB on disk; memory at the beginning "
            f"{sizes[0]:.1f} MB, at most {max(sizes):.1f} MB, at the end {sizes[-1]:.1f} MB",
            flush=True,
        )
        recorder.close(seconds=0)


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Suppress the warnings that the database is down: here it is meant to be."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@contextlib.contextmanager
def _empty_database() -> Iterator[Engine]:
    """Yield the writer's engine for an empty database with its schema."""
    with tempfile.TemporaryDirectory(prefix="mistral-api-bench-") as folder:
        Path(folder).chmod(0o755)
        running = start_embedded_postgres(Path(folder) / "var")
        settings = Settings(database_url=running.url, data_dir=Path(folder) / "var", log_level="WARNING")
        app = create_app(settings)
        prepare_database(app)
        engine = create_unchecked_engine(running.url, settings)
        try:
            yield engine
        finally:
            engine.dispose()
            services_of(app.extensions).close()
            running.stop()


def _time_delivery(where: str, engine: Engine, number: int) -> None:
    """Fill a journal without delivery, then time the writer until the journal is empty."""
    with tempfile.TemporaryDirectory(prefix="mistral-api-bench-") as folder:
        with _without_warnings():
            filling = Recorder(Path(folder), RecordingPolicy(), writer_starter(create_engine(UNREACHABLE_URL)))
            filling.start()
            for count in range(number):
                _record(filling, count)
            filling.close(seconds=0)
        recorder = Recorder(Path(folder), RecordingPolicy(), writer_starter(engine))
        began = time.perf_counter()
        recorder.start()
        while recorder.state().pending:
            time.sleep(0.01)
        seconds = time.perf_counter() - began
        recorder.close()
    print(f"writer: {number / seconds:.0f} exchanges a second into {where}; {number} in {seconds:.1f} s", flush=True)


def _record(recorder: Recorder, number: int) -> None:
    exchange = _exchange(number)
    recorder.end(recorder.begin(exchange, lambda: None), exchange)


def _exchange(number: int) -> Exchange:
    """Return a finished exchange of one of 300 conversations."""
    return Exchange(
        id=new_id(),
        created_at=datetime.now(UTC),
        endpoint="/v1/chat/completions",
        owner="local",
        session_id=f"bench-{number % 300}",
        model="mistral-7b-instruct",
        messages=[{"role": "user", "content": f"What is the weather like in city number {number}, and what to wear?"}],
        answers=[{"content": "It is a fine day with some clouds and a light wind from the west; take a jacket. " * 3}],
        prompt_tokens=40,
        completion_tokens=60,
        latency_ms=900.0 + number % 500,
        time_to_first_token_ms=30.0 + number % 40,
        tokens_per_second=60.0 + number % 30,
        finish_reason="stop",
    )
