"""A read costs one round trip to PostgreSQL, and survives the end of its connection."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import Engine, event, text

from bench.delay import DelayedProxy, delayed_proxy
from mistral_api import create_app
from mistral_api.database import reads as reads_module
from mistral_api.database.reads import DatabaseReads
from mistral_api.errors import Unavailable
from mistral_api.services import services_of
from mistral_api.settings import Settings
from tests.support.databases import rows_of
from tests.support.exchanges import unreachable_engine

ONE = text("SELECT 1 AS one")


@pytest.fixture
def proxy(engine: Engine) -> Iterator[DelayedProxy]:
    """A proxy in front of PostgreSQL that counts round trips."""
    query = engine.url.query
    with delayed_proxy(Path(str(query["host"])) / f".s.PGSQL.{query['port']}", 0.0) as made:
        yield made


@pytest.fixture
def far_app(engine: Engine, proxy: DelayedProxy, tmp_path: Path) -> Iterator[Flask]:
    """An application whose database is behind the proxy."""
    url = engine.url.difference_update_query(["host", "port"]).set(host="127.0.0.1", port=proxy.port)
    app = create_app(Settings(database_url=url.render_as_string(hide_password=False), data_dir=tmp_path))
    yield app
    services_of(app.extensions).close()


@pytest.fixture
def far_engine(far_app: Flask) -> Engine:
    """The engine of that application."""
    return services_of(far_app.extensions).engine


def _end_connections(engine: Engine) -> None:
    """End all other connections to PostgreSQL, as a failover does."""
    rows_of(
        engine,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
    )


def test_read_is_one_round_trip(far_engine: Engine, proxy: DelayedProxy) -> None:
    reads = DatabaseReads(far_engine)
    reads.rows(ONE, {})
    before = proxy.round_trips
    for _ in range(5):
        assert [row.one for row in reads.rows(ONE, {})] == [1]
    assert proxy.round_trips - before == 5


def test_read_is_one_round_trip_also_after_others_used_the_connection(far_engine: Engine, proxy: DelayedProxy) -> None:
    reads = DatabaseReads(far_engine)
    with far_engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(ONE)
    with far_engine.begin() as connection:
        connection.execute(ONE)
    before = proxy.round_trips
    for _ in range(3):
        reads.rows(ONE, {})
    assert proxy.round_trips - before == 3


def test_connection_that_was_idle_for_long_is_checked_first(
    far_engine: Engine, proxy: DelayedProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = DatabaseReads(far_engine)
    reads.rows(ONE, {})
    before = proxy.round_trips
    monkeypatch.setattr(reads_module, "CHECKED_AFTER_SECONDS", -1.0)
    reads.rows(ONE, {})
    assert proxy.round_trips - before == 2


def test_read_on_a_dead_connection_is_repeated_on_a_new_one(engine: Engine, far_engine: Engine) -> None:
    reads = DatabaseReads(far_engine)
    reads.rows(ONE, {})
    _end_connections(engine)
    assert [row.one for row in reads.rows(ONE, {})] == [1]


def test_change_never_gets_a_dead_connection(engine: Engine, far_engine: Engine) -> None:
    with far_engine.begin() as connection:
        connection.execute(ONE)
    _end_connections(engine)
    with far_engine.begin() as connection:
        assert connection.scalar(ONE) == 1


def test_read_in_autocommit_leaves_transactions_as_they_were(engine: Engine, far_engine: Engine) -> None:
    DatabaseReads(far_engine).rows(ONE, {})
    with far_engine.connect() as connection:
        connection.execute(text("INSERT INTO usage_pruned (before) VALUES (now())"))
    assert rows_of(engine, "SELECT count(*) FROM usage_pruned") == [(0,)]


def test_unreachable_database_is_not_asked_again_at_once_by_those_who_can_do_without() -> None:
    unreachable, attempts = unreachable_engine(), []
    event.listen(unreachable, "do_connect", lambda *connection: attempts.append(connection))
    reads = DatabaseReads(unreachable)
    with pytest.raises(Unavailable) as away:
        reads.rows(ONE, {})
    assert away.value.code == "database_unavailable"
    asked = len(attempts)
    assert asked
    for _ in range(100):
        assert reads.rows_if_reachable(ONE, {}) is None
    assert len(attempts) == asked


def test_statement_timeout_is_no_sign_of_a_database_that_is_away(engine: Engine) -> None:
    reads = DatabaseReads(engine)
    with pytest.raises(Unavailable):
        reads.rows(text("SET statement_timeout = 50; SELECT pg_sleep(5)"), {})
    assert reads.rows_if_reachable(ONE, {}) is not None
    with pytest.raises(Unavailable):
        reads.rows(text("SELECT pg_sleep(5)"), {}, 0.1)
    assert reads.rows_if_reachable(ONE, {}) is None
