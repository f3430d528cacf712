"""Looking into a database, and emptying it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, text

_TABLES = "api_usage, conversations, usage_rollups, usage_series, usage_sessions, usage_pruned"


def rows_of(engine: Engine, query: str, **parameters: Any) -> list[tuple[Any, ...]]:
    """The rows of a query."""
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query), parameters)]


def count_of(engine: Engine, table: str) -> int:
    """How many rows a table has."""
    return int(rows_of(engine, f"SELECT count(*) FROM {table}")[0][0])


def empty(engine: Engine) -> None:
    """Delete everything that was recorded."""
    with engine.begin() as connection:
        connection.execute(text(f"TRUNCATE {_TABLES} CASCADE"))
