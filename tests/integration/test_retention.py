"""Retention: old data is deleted, by whole months where possible, and partitions of coming months are created."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from mistral_api.delivery.batch_inserter import BatchInserter
from mistral_api.delivery.housekeeping import DELETE_BATCH, Housekeeping, PruneResult, prune_older_than
from mistral_api.delivery.partitions import coming_months, list_partitions, month_of_partition, partition_name
from tests.support.databases import count_rows, rows_of
from tests.support.exchanges import make_exchange, question, reply
from tests.support.processes import wait_for

NOW = datetime.now(UTC)


def _days_ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


def test_prune_deletes_only_conversations_and_usage_older_than_the_retention(engine: Engine) -> None:
    old = make_exchange("old", created_at=_days_ago(31), messages=question("old"))
    new = make_exchange("new", created_at=_days_ago(29), messages=question("new"))
    BatchInserter(engine).insert([old, new])
    pruned = prune_older_than(engine, days=30)
    assert pruned.conversations == 1
    assert rows_of(engine, "SELECT session_id FROM conversations") == [("new",)]
    assert rows_of(engine, "SELECT content FROM messages") == [("new",)]
    assert rows_of(engine, "SELECT session_id FROM api_usage") == [("new",)]
    assert rows_of(engine, "SELECT session_id FROM usage_sessions") == [("new",)]
    assert rows_of(engine, "SELECT sum(requests) FROM usage_rollups WHERE period = 'hour'") == [(2,)]


def test_prune_drops_partitions_of_past_months(engine: Engine) -> None:
    with engine.begin() as connection:
        for name in list_partitions(connection):
            if month_of_partition(name) is not None:
                connection.execute(text(f"DROP TABLE {name}"))
    exchanges = [make_exchange(None, created_at=_days_ago(days)) for days in (400, 330, 100, 1)]
    BatchInserter(engine).insert(exchanges)
    assert prune_older_than(engine, days=200) == PruneResult(conversations=0, partitions=2, usage_rows=0)
    with engine.connect() as connection:
        left = [name for name in list_partitions(connection) if month_of_partition(name)]
    assert left == sorted({partition_name(exchange.created_at) for exchange in exchanges[2:]})
    assert count_rows(engine, "api_usage") == 2
    assert prune_older_than(engine, days=200) == PruneResult(0, 0, 0)


def test_prune_deletes_rows_of_the_default_partition_in_batches(engine: Engine) -> None:
    insert = (
        "INSERT INTO api_usage (request_id, created_at, endpoint, status, owner, stream, latency_ms) "
        "SELECT gen_random_uuid(), :moment, '/v1/completions', 200, 'local', false, 1 FROM generate_series(1, :number)"
    )
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS api_usage_2016_05"))
        connection.execute(text(insert), {"moment": datetime(2016, 5, 5, tzinfo=UTC), "number": 2 * DELETE_BATCH + 1})
    assert prune_older_than(engine, days=30).usage_rows == 2 * DELETE_BATCH + 1
    assert count_rows(engine, "api_usage") == 0


def test_prune_keeps_old_conversations_with_new_messages(engine: Engine) -> None:
    first = make_exchange("long", created_at=_days_ago(31), messages=question("1"), answers=reply("a"))
    last = make_exchange("long", created_at=NOW, messages=question("2"), answers=reply("b"))
    BatchInserter(engine).insert([first, last])
    prune_older_than(engine, days=30)
    assert rows_of(engine, "SELECT content FROM messages ORDER BY sequence") == [("1",), ("a",), ("2",), ("b",)]


def test_usage_row_older_than_all_partitions_is_stored_after_a_prune(engine: Engine) -> None:
    BatchInserter(engine).insert([make_exchange(created_at=NOW)])
    prune_older_than(engine, days=30)
    BatchInserter(engine).insert([make_exchange(created_at=_days_ago(1000))])
    assert count_rows(engine, "api_usage") == 2


@pytest.mark.parametrize("days", [0, 30])
def test_housekeeping_creates_coming_partitions_and_prunes_old_rows(engine: Engine, days: int) -> None:
    with engine.begin() as connection:
        for month in coming_months(NOW)[1:]:
            connection.execute(text(f"DROP TABLE IF EXISTS {partition_name(month)}"))
    BatchInserter(engine).insert([make_exchange("old", created_at=_days_ago(90), messages=question("old"))])
    housekeeping = Housekeeping(engine, days, lambda _: None)
    housekeeping.start()
    wanted = {partition_name(month) for month in coming_months(NOW)}

    def done() -> bool:
        with engine.connect() as connection:
            ready = wanted <= set(list_partitions(connection))
        return ready and count_rows(engine, "conversations") == (0 if days else 1)

    wait_for(done, "the partitions of the coming months")
    housekeeping.close()
