"""Many rows as one parameter: a JSON array that PostgreSQL reads as a table (``json_to_recordset``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy.dialects import postgresql

from mistral_api.tables.base import Base

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]


def column_names(table: type[Base]) -> list[str]:
    """The names of a table's columns, in their order."""
    return [column.name for column in table.__table__.columns]


def written(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as the value of such a parameter."""
    return orjson.dumps(rows).decode()


def recordset(table: type[Base], names: Iterable[str], parameter: str = "rows", more: Sequence[str] = ()) -> str:
    """The FROM item ``given``, read from the named parameter: these columns of a table, and ``more`` declared ones."""
    columns = table.__table__.c
    declared = [f"{name} {columns[name].type.compile(dialect=_DIALECT)}" for name in names]
    return f"json_to_recordset(CAST(:{parameter} AS json)) AS given({', '.join([*declared, *more])})"
