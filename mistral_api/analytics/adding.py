"""Adding sums to those that PostgreSQL has already: one statement for all of them, whatever is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, text

from mistral_api.tables.recordset import column_names, recordset, written
from mistral_api.tables.rollup import HISTOGRAMS, UsageRollup, UsageSeries


def upsert_sums(connection: Connection, rollups: Sequence[dict[str, Any]], points: Sequence[dict[str, Any]]) -> None:
    """Add rows to ``usage_rollups`` and ``usage_series``, in the connection's transaction."""
    connection.execute(_ADD, {"rollups": written(rollups), "points": written(points)})


def _both(name: str) -> str:
    """A number or a histogram that is there already, with the new one added."""
    if name in HISTOGRAMS:
        return (
            f"ARRAY(SELECT coalesce(a, 0) + coalesce(b, 0) FROM "
            f"unnest(present.{name}, excluded.{name}) WITH ORDINALITY AS pair(a, b, bucket) ORDER BY bucket)"
        )
    return f"present.{name} + excluded.{name}"


def _p95_bucket(histogram: str, requests: str) -> str:
    """``histogram.percentile`` in SQL, as far as the bucket: PostgreSQL counts from 1."""
    return (
        f"(SELECT min(bucket) - 1 FROM (SELECT bucket, sum(number) OVER (ORDER BY bucket) AS seen "
        f"FROM unnest({histogram}) WITH ORDINALITY AS counted(number, bucket)) AS running "
        f"WHERE seen >= greatest(1, ceil(0.95 * ({requests}))))"
    )


def _add_up(table: type[UsageRollup | UsageSeries], parameter: str, computed: dict[str, tuple[str, str]]) -> str:
    """Insert rows or add to them, always in one order: two transactions never wait for each other's rows.

    ``computed`` has for a column what it is in a new row, and in one that has been added to.
    """
    keys = [column.name for column in table.__table__.primary_key]
    given = [name for name in column_names(table) if name not in computed]
    new = [*given, *(value for value, _ in computed.values())]
    changes = {name: _both(name) for name in given if name not in keys} | {
        name: value for name, (_, value) in computed.items()
    }
    return (
        f"INSERT INTO {table.__tablename__} AS present ({', '.join([*given, *computed])}) SELECT {', '.join(new)} "
        f"FROM {recordset(table, given, parameter)} ORDER BY {', '.join(keys)} ON CONFLICT ({', '.join(keys)}) "
        f"DO UPDATE SET {', '.join(f'{name} = {value}' for name, value in changes.items())}"
    )


_P95 = (_p95_bucket("latency", "requests"), _p95_bucket(_both("latency"), _both("requests")))
_ADD = text(f"{_add_up(UsageRollup, 'rollups', {})}; {_add_up(UsageSeries, 'points', {'p95_latency_bucket': _P95})}")
