"""The rollups behind the statistics equal sums over the usage rows, in whatever order those arrived."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from mistral_api.analytics.periods import TimeWindow, start_of
from mistral_api.analytics.rebuild import rebuild_if_never_built, rebuild_rollups
from mistral_api.analytics.usage_stats import usage_stats
from mistral_api.delivery.batch_inserter import BatchInserter
from mistral_api.delivery.housekeeping import prune_older_than
from mistral_api.recording.exchange import Exchange
from tests.support.databases import count_rows, rows_of
from tests.support.exchanges import make_exchange

NOW = datetime.now(UTC)
SUMS = {
    "usage_rollups": "SELECT * FROM usage_rollups ORDER BY period, start, endpoint, model, owner, status",
    "usage_series": "SELECT * FROM usage_series ORDER BY period, owner, start",
    "usage_sessions": "SELECT * FROM usage_sessions ORDER BY owner, session_id",
}


def _exchanges(number: int, days: float, seed: str = "any") -> list[Exchange]:
    """Return requests of all kinds over the last days, in random order."""
    chance = random.Random(seed)
    return [
        make_exchange(
            f"session-{chance.randrange(number // 3)}" if chance.random() < 0.9 else None,
            created_at=NOW - timedelta(days=days * chance.random()),
            endpoint=chance.choice(["/v1/chat/completions", "/v1/completions"]),
            owner=chance.choice(["local", "team"]),
            model=chance.choice(["a", "b", None]),
            status=chance.choice([200, 200, 200, 400, 503]),
            prompt_tokens=chance.randrange(1000),
            cached_tokens=chance.choice([None, chance.randrange(500)]),
            completion_tokens=chance.randrange(300),
            latency_ms=chance.lognormvariate(6, 1),
            time_to_first_token_ms=chance.choice([None, chance.lognormvariate(4, 1)]),
            tokens_per_second=chance.choice([None, chance.uniform(1, 90)]),
        )
        for _ in range(number)
    ]


def _deliver(engine: Engine, exchanges: Sequence[Exchange], batch: int = 50) -> None:
    delivery = BatchInserter(engine)
    for start in range(0, len(exchanges), batch):
        delivery.insert(exchanges[start : start + batch])


def _stats(engine: Engine, hours: int, owner: str = "") -> Mapping[str, Any]:
    with Session(engine) as session:
        return usage_stats(session, TimeWindow.last(hours, owner))


def _sums(engine: Engine) -> dict[str, list[tuple[Any, ...]]]:
    return {table: rows_of(engine, query) for table, query in SUMS.items()}


def test_usage_statistics_equal_sums_over_the_usage_rows(engine: Engine) -> None:
    exchanges = _exchanges(150, days=400) + _exchanges(50, days=8) + _exchanges(50, days=1)
    _deliver(engine, exchanges)
    for hours in (1, 24, 168, 720, 8760):
        for owner in ("", "team"):
            _assert_stats_equal(engine, exchanges, hours, owner)


def _assert_stats_equal(engine: Engine, exchanges: Sequence[Exchange], hours: int, owner: str) -> None:
    stats = _stats(engine, hours, owner)
    start = datetime.fromtimestamp(stats["window"]["start"], UTC)
    held = [each for each in exchanges if each.created_at >= start and owner in ("", each.owner)]
    assert timedelta(0) <= datetime.now(UTC) - timedelta(hours=hours) - start <= timedelta(days=1)
    failed = sum(each.status >= 400 for each in held)
    by_status = Counter(str(each.status) for each in held)
    assert stats["requests"] == {
        "total": len(held), "succeeded": len(held) - failed, "failed": failed, "by_status": dict(by_status)
    }  # fmt: skip
    assert list(stats["requests"]["by_status"]) == sorted(by_status)
    prompt, completion = (sum(getattr(each, f"{kind}_tokens") for each in held) for kind in ("prompt", "completion"))
    cached = sum(each.cached_tokens or 0 for each in held)
    assert stats["tokens"] == {
        "prompt": prompt,
        "cached": cached,
        "completion": completion,
        "total": prompt + completion,
    }
    assert stats["sessions"] == len({(each.owner, each.session_id) for each in held if each.session_id})
    for name, field in (("latency_ms", "latency_ms"), ("time_to_first_token_ms",) * 2, ("tokens_per_second",) * 2):
        values = [getattr(each, field) for each in held if getattr(each, field) is not None]
        _assert_spread(stats[name], values)
    for group, field in (("endpoint", "endpoint"), ("model", "model"), ("key", "owner")):
        counted = {entry[group]: entry["requests"]["total"] for entry in stats[f"by_{group}"]}
        assert counted == Counter(getattr(each, field) for each in held)
    assert sum(point["requests"] for point in stats["series"]) == len(held)
    assert sum(point["prompt_tokens"] for point in stats["series"]) == prompt


def _assert_spread(spread: dict[str, float | None], values: list[float]) -> None:
    if not values:
        assert set(spread.values()) == {None}
        return
    assert spread["mean"] == pytest.approx(sum(values) / len(values), rel=1e-4)
    ordered = sorted(values)
    for name in set(spread) - {"mean"}:
        rank = -(-int(name[1:]) * len(ordered) // 100)
        assert spread[name] == pytest.approx(ordered[rank - 1], rel=0.05), name


def test_series_points_have_the_latency_percentile_of_their_hour(engine: Engine) -> None:
    exchanges = _exchanges(300, days=1)
    _deliver(engine, exchanges, batch=7)
    for point in _stats(engine, 24)["series"]:
        values = sorted(each.latency_ms for each in exchanges if _hour(each) == point["start"])
        if values:
            assert point["p95_latency_ms"] == pytest.approx(values[-(-95 * len(values) // 100) - 1], rel=0.05)
        else:
            assert (point["requests"], point["p95_latency_ms"]) == (0, None)


def _hour(exchange: Exchange) -> int:
    return int(start_of("hour", exchange.created_at).timestamp())


def test_late_usage_row_counts_in_the_hour_of_its_creation(engine: Engine) -> None:
    made = NOW - timedelta(hours=5)
    _deliver(engine, [make_exchange(created_at=NOW), make_exchange(created_at=made)])
    points = {point["start"]: point["requests"] for point in _stats(engine, 24)["series"]}
    assert points[int(start_of("hour", made).timestamp())] == 1
    assert points[int(start_of("hour", NOW).timestamp())] == 1


def test_usage_row_delivered_twice_counts_once(engine: Engine) -> None:
    exchanges = _exchanges(40, days=1)
    _deliver(engine, exchanges)
    before = _sums(engine)
    _deliver(engine, exchanges)
    assert _sums(engine) == before


def test_rollup_rebuild_gives_the_same_sums(engine: Engine) -> None:
    _deliver(engine, _exchanges(500, days=90), batch=11)
    before = _sums(engine)
    assert count_rows(engine, "usage_rollups") > 300
    assert rebuild_rollups(engine) == 500
    assert _sums(engine) == before
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE usage_rollups, usage_series, usage_sessions"))
    rebuild_if_never_built(engine)
    assert _sums(engine) == before


@pytest.mark.parametrize("days", [3, 40])
def test_rollup_rebuild_keeps_the_sums_of_pruned_rows(engine: Engine, days: int) -> None:
    _deliver(engine, _exchanges(300, days=90))
    before = {table: rows for table, rows in _sums(engine).items() if table != "usage_sessions"}
    prune_older_than(engine, days)
    assert 0 < count_rows(engine, "api_usage") < 300
    # A very late request is counted, and stays counted.
    late = make_exchange(None, created_at=NOW - timedelta(days=60), owner="late", status=418)
    _deliver(engine, [late])
    after = _sums(engine)
    rebuild_rollups(engine)
    again = _sums(engine)
    assert again == after
    for table, rows in before.items():
        assert set(map(str, rows)) - set(map(str, again[table])) == _sums_changed_by(rows, late), table


def _sums_changed_by(rows: Sequence[tuple[Any, ...]], late: Exchange) -> set[str]:
    """Return the sums over all owners that a late request changed."""
    starts = {(period, start_of(period, late.created_at)) for period in ("hour", "day", "month")}
    return {str(row) for row in rows if len(row) == 12 and row[1] == "" and (row[0], row[2]) in starts}
